//! Assertions as grants (RFC 7523 §2.1). Another issuer asserts who the caller is, and the gate issues a token for this
//! caller.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::assertion_grants::JagSubject;
use super::client_assertion::{UsableOnce, sole_audience};
use super::genuine::{Genuine, NotGenuine, genuine};
use super::id_token::of_other_kind;
use super::judge::{self, ClaimsSource, TokenTimes};
use super::names::is_name;
use super::{IssuerRules, Verifier, name_claim};
use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::session::{Scope, VouchedBy};
use crate::strict_json::{Member, Members};
use crate::thumbprint::KeyThumbprint;
use crate::token::claims::AccessToken;

/// The `typ` of an identity assertion (draft-ietf-oauth-identity-assertion-authz-grant).
const ID_JAG: &str = "oauth-id-jag+jwt";
/// The specific `typ` of a workload assertion. A generic `typ` is also accepted.
const GRANT: &str = "authorization-grant+jwt";

/// An assertion to verify.
#[derive(Clone, Copy)]
pub struct SentGrant<'a> {
    /// The accepted audiences: the gate's issuers and, for workloads only, the URL of the token endpoint.
    pub audience: (&'a [&'a str], Option<&'a str>),
    /// The authenticated client.
    pub client: Option<&'a str>,
    /// The assertion.
    pub token: &'a str,
}

/// A valid assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedGrant {
    /// The client that gets the token.
    pub client: Box<str>,
    /// The user, or `None` if the token is for the client.
    pub user: Option<ProvedUser>,
    /// The id that prevents a second use of the assertion.
    pub once: UsableOnce,
    /// The time at which the assertion was issued (`iat`).
    pub issued_at: Timestamp,
    /// The key to which the token must be bound.
    pub bound_to: Option<KeyThumbprint>,
    /// The issuer that authenticated the user.
    pub vouched_by: VouchedBy,
}

/// The user of an identity assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedUser {
    /// How the user is mapped to a user of this gate.
    pub by: JagSubject,
    /// The subject, with the issuer's prefix.
    pub subject: Box<str>,
    /// The subject without the prefix. The directory is queried with this subject.
    pub at_issuer: Box<str>,
    /// The account, prefixed with the issuer's name.
    pub account: Option<Box<str>>,
    /// The requested scope, reduced to what the issuer's rules allow.
    pub scope: Scope,
    /// The claims for the issued token, with the user's roles.
    pub claims: OwnClaims,
    /// The resources that the assertion names.
    pub resources: Vec<Box<str>>,
}

const fn refused(what: &'static str) -> Denial {
    Denial::GrantAssertion(what)
}

impl Verifier {
    /// Verifies an assertion. The caller must still check that the assertion was not used before.
    ///
    /// # Errors
    /// [`Denial::GrantAssertion`] if the assertion is invalid. [`Denial::KeysUnavailable`] if the issuer's keys are
    /// unavailable.
    // Requirements D18, D23, D24.
    pub fn proved_grant(&self, sent: SentGrant<'_>, now: Timestamp, wall: Timestamp) -> Result<ProvedGrant, Denial> {
        let rules = self.claimed(sent.token).map_err(|denial| match denial {
            Denial::UnknownIssuer => refused("the gate does not trust its issuer"),
            _ => refused("it is not a JWS with claims"),
        })?;
        if rules.ours {
            return Err(refused("its issuer is this gate"));
        }
        let refuse = |flaw: NotGenuine| flaw.denial(refused, refused("it was not signed with a key of the issuer"));
        // The payload is copied, because its buffer is freed after the signature check.
        let read = |payload: &[u8]| Ok(payload.to_vec());
        let Genuine { claims: payload, typ, .. } = genuine((&rules.keys, rules.leeway), sent.token, now, read, refuse)?;
        let claims = Members::read(&payload).map_err(refused)?;
        let times = TokenTimes::read(&claims).map_err(|_| refused("`exp` or `iat` is missing or is not a time"))?;
        let issued_at = times.issued_at.ok_or(refused("`iat` is missing"))?;
        // The expiry is compared with both clocks, because used assertions are recorded in engine time.
        let moments = judge::Moments { expiry: wall.max(now), beginning: wall };
        times.judge(rules, moments, Duration::ZERO).map_err(|_| refused("it has expired, or is not valid yet"))?;
        if claims.get("authorization_details").is_some() {
            return Err(refused("`authorization_details` restrict it, but the gate cannot enforce them"));
        }
        if claims.get("events").is_some() {
            return Err(refused("it is a logout token or an event, not an assertion"));
        }
        let times = (times, issued_at);
        match typ.as_deref() {
            Some(ID_JAG) => self.id_jag(rules, &sent, &claims, times, wall),
            None | Some("jwt" | GRANT) => self.workload(rules, &sent, &claims, times),
            Some(_) => Err(refused("`typ` is not the type of an assertion")),
        }
    }

    fn id_jag(
        &self,
        rules: &IssuerRules,
        sent: &SentGrant<'_>,
        claims: &Members<'_>,
        (times, issued_at): (TokenTimes, Timestamp),
        wall: Timestamp,
    ) -> Result<ProvedGrant, Denial> {
        let jag = rules.grants.id_jag.as_ref().ok_or(refused("`id_jag` is not set for its issuer"))?;
        if !sole_audience(claims).is_some_and(|sole| sent.audience.0.contains(&sole)) {
            return Err(refused("`aud` must be the issuer of this gate, as its only value"));
        }
        let client = text(claims, "client_id").ok_or(refused("`client_id` is missing"))?;
        if sent.client != Some(client) {
            return Err(refused("`client_id` is not the client that presents the assertion"));
        }
        if !jag.clients.iter().any(|listed| **listed == *client) {
            return Err(refused("its client is not listed in `id_jag.clients`"));
        }
        if issued_at.plus(jag.max_age).plus(rules.leeway) < wall {
            return Err(refused("`iat` is too long ago"));
        }
        let id = text(claims, "jti").filter(|id| is_name(id)).ok_or(refused("`jti` must have 1 to 256 bytes"))?;
        let resources = resources(claims)?;
        let token = self.judged(rules, sent.token, claims, times)?;
        let mut own = OwnClaims::new();
        let roles = token.roles().names();
        if !roles.is_empty() {
            own.insert(OwnClaims::ROLES, roles).map_err(|_| refused("its roles are too long"))?;
        }
        let user = ProvedUser {
            by: jag.subject,
            subject: token.subject.clone(),
            at_issuer: token.token_subject().into(),
            account: token.account().map(Box::from),
            scope: token.scope.clone(),
            claims: own,
            resources,
        };
        self.proved(rules, &token, (client, Some(user)), id.into(), (times, issued_at))
    }

    /// The workload gets a token for the client that the issuer's rules name.
    fn workload(
        &self,
        rules: &IssuerRules,
        sent: &SentGrant<'_>,
        claims: &Members<'_>,
        (times, issued_at): (TokenTimes, Timestamp),
    ) -> Result<ProvedGrant, Denial> {
        let bearer = rules.grants.jwt_bearer.as_ref().ok_or(refused("`jwt_bearer` is not set for its issuer"))?;
        let (issuers, endpoint) = sent.audience;
        if !sole_audience(claims).is_some_and(|sole| issuers.contains(&sole) || endpoint == Some(sole)) {
            return Err(refused("`aud` must be the issuer or the token endpoint of this gate, as its only value"));
        }
        let subject = text(claims, "sub").ok_or(refused("`sub` is missing"))?;
        if !bearer.subjects.iter().any(|listed| **listed == *subject) {
            return Err(refused("its subject is not listed in `jwt_bearer.subjects`"));
        }
        if sent.client.is_some_and(|client| *client != *bearer.as_client) {
            return Err(refused("the client that presents it is not the client in `jwt_bearer.as_client`"));
        }
        if times.expires > issued_at.plus(bearer.max_lifetime) {
            return Err(refused("`exp` is too long after `iat`"));
        }
        let id = match claims.get("jti") {
            Some(id) => id.as_text().filter(|id| is_name(id)).ok_or(refused("`jti` must have 1 to 256 bytes"))?.into(),
            // Some issuers do not set `jti`.
            None => named_by_claims(rules, subject, (times, issued_at)),
        };
        let token = self.judged(rules, sent.token, claims, times)?;
        self.proved(rules, &token, (&bearer.as_client, None), id, (times, issued_at))
    }

    fn judged(
        &self,
        rules: &IssuerRules,
        token: &str,
        claims: &Members<'_>,
        times: TokenTimes,
    ) -> Result<AccessToken, Denial> {
        let rules = of_other_kind(rules);
        let of_tokens = rules.of_tokens();
        let judged = judge::claims(token.into(), claims, (&rules, &of_tokens), ClaimsSource::Unknown, times);
        judged.map_err(|refusal| match name_claim(&rules, refusal, None) {
            Denial::BadClaim(what) => refused(what),
            Denial::UnprovedBinding => refused("`cnf` binds the assertion to a key that the gate cannot check"),
            _ => refused("the rules for the assertion's issuer do not allow one of its claims"),
        })
    }

    fn proved(
        &self,
        rules: &IssuerRules,
        token: &AccessToken,
        (client, user): (&str, Option<ProvedUser>),
        id: Box<str>,
        (times, issued_at): (TokenTimes, Timestamp),
    ) -> Result<ProvedGrant, Denial> {
        if token.certificate().is_some() {
            return Err(refused("`cnf` binds it to a certificate"));
        }
        let by = token.voucher();
        if !by.is_valid() {
            return Err(refused("its subject or session has an invalid form"));
        }
        // Records the session, so that a later logout can end it.
        rules.sessions_seen.note_token(token);
        let until = times.expires.plus(rules.leeway * 2);
        let once = UsableOnce { kind: "grant", issuer: (*rules.issuer).into(), id, until };
        let bound_to = token.bound_to();
        Ok(ProvedGrant { client: client.into(), user, once, issued_at, bound_to, vouched_by: by })
    }
}

fn text<'a>(claims: &'a Members<'_>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Member::as_text)
}

/// Reads `resource` (RFC 8707).
fn resources(claims: &Members<'_>) -> Result<Vec<Box<str>>, Denial> {
    const WHY: Denial = refused("`resource` must be a string or an array of strings");
    let one = |member: &Member<'_>| member.as_text().filter(|text| !text.is_empty()).map(Box::from).ok_or(WHY);
    match claims.get("resource") {
        None => Ok(Vec::new()),
        Some(Member::Array(several)) if !several.is_empty() => several.iter().map(one).collect(),
        Some(member) => Ok(vec![one(member)?]),
    }
}

/// Derives an id from the other claims, because the assertion has no `jti`.
fn named_by_claims(rules: &IssuerRules, subject: &str, (times, issued_at): (TokenTimes, Timestamp)) -> Box<str> {
    let (issued, expires) = (issued_at.as_millis(), times.expires.as_millis());
    let said = format!("{} {} {subject} {issued} {expires}", rules.issuer.len(), rules.issuer);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, said.as_bytes())).into()
}
