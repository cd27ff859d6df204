//! ID tokens (OpenID Connect Core §3.1.3.7) from a login that the gate requested. An ID token must contain the `nonce`
//! of the login, so an access token is never accepted as an ID token.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::genuine::{Genuine, NotGenuine, genuine};
use super::judge::{self, ClaimsSource, TokenTimes};
use super::mapping::{ClaimMapping, RequiredClaim, WantedClaim};
use super::{IssuerRules, Verifier, name_claim};
use crate::claim::{ClaimError, ClaimPath, OwnClaims};
use crate::clock::Timestamp;
use crate::denial::{Denial, ProviderFlaw};
use crate::random::are_equal;
use crate::session::step_up::StepUp;
use crate::session::{Scope, VouchedBy};
use crate::strict_json::{Member, Members};
use crate::token::algorithm::Algorithm;
use crate::token::claims::TokenIssuer;

/// The maximum age of an ID token, which is issued at the code exchange.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Claims that distinguish kinds of tokens. Configured values for these claims apply only to access tokens.
const KINDS: [&str; 2] = ["typ", "token_use"];

/// An ID token to verify, with the data of its login.
#[derive(Clone, Copy)]
pub struct SentIdToken<'a> {
    /// The name of the issuer at which the user logs in.
    pub issuer: &'a str,
    /// The client id of the gate at the issuer.
    pub client: &'a str,
    /// The nonce of the login.
    pub nonce: &'a str,
    /// The access token that came with the ID token.
    pub access_token: &'a str,
    /// The scope that the provider granted, with the provider's scope names.
    pub scope: &'a str,
    /// The ID token.
    pub token: &'a str,
}

crate::debug_with!(SentIdToken<'_>);

/// A user who has logged in at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedLogin {
    /// The subject with the issuer's prefix.
    pub subject: Box<str>,
    /// The account, prefixed with the issuer's name.
    pub account: Option<Box<str>>,
    /// The part of the granted scope that the issuer's rules allow.
    pub scope: Scope,
    /// The user's roles and other claims for the session's tokens.
    pub claims: OwnClaims,
    /// The issuer that authenticated the user.
    pub vouched_by: VouchedBy,
    /// The time at which the ID token was issued (`iat`).
    pub issued_at: Timestamp,
    /// The authentication context class of the login (`acr`).
    pub acr: Option<Box<str>>,
    /// The time of the login (`auth_time`).
    pub auth_time: Option<Timestamp>,
    leeway: Duration,
}

impl ProvedLogin {
    /// Returns whether the login satisfies a route's step-up requirement.
    pub fn meets(&self, step_up: &StepUp, now: Timestamp) -> bool {
        step_up.is_met((self.acr.as_deref(), self.auth_time), self.leeway, now)
    }
}

/// Claims about a login (RFC 9470 §6.2).
const ACR: &str = "acr";
const AUTH_TIME: &str = "auth_time";

const fn refused(what: &'static str) -> Denial {
    Denial::ProviderLogin(ProviderFlaw::IdToken(what))
}

impl Verifier {
    pub(crate) fn token_issuer(&self, issuer: &str) -> Option<&Arc<TokenIssuer>> {
        self.found(issuer).map(|(_, shared)| shared)
    }

    /// Verifies the ID token of a login and returns the user. Claims in `shown` are kept for identity headers if they
    /// are strings, numbers or booleans.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`] if the ID token is invalid. [`Denial::KeysUnavailable`] if the issuer's keys are
    /// unavailable.
    // Requirement B33.
    pub fn proved_login(
        &self,
        sent: SentIdToken<'_>,
        shown: &[Box<str>],
        now: Timestamp,
        wall: Timestamp,
    ) -> Result<ProvedLogin, Denial> {
        let rules =
            self.named(sent.issuer).filter(|rules| !rules.ours).ok_or(refused("the gate does not trust its issuer"))?;
        let refuse = |flaw: NotGenuine| flaw.denial(refused, refused("it was not signed with a key of the issuer"));
        // The payload is copied, because its buffer is freed after the signature check.
        let read = |payload: &[u8]| {
            let claims = Members::read(payload).map_err(refused)?;
            let is_its = claims.get("iss").and_then(Member::as_text) == Some(&*rules.issuer);
            if is_its { Ok(payload.to_vec()) } else { Err(refused("`iss` is another issuer")) }
        };
        let Genuine { claims: payload, typ, algorithm } =
            genuine((&rules.keys, rules.leeway), sent.token, now, read, refuse)?;
        if !matches!(typ.as_deref(), None | Some("jwt")) {
            return Err(refused("`typ` is not the type of an ID token"));
        }
        let claims = Members::read(&payload).map_err(refused)?;
        answers(&claims, &sent, algorithm)?;
        let times = TokenTimes::read(&claims).map_err(|_| refused("`exp` or `iat` is missing or is not a time"))?;
        let moments = judge::Moments { expiry: wall, beginning: wall };
        times.judge(rules, moments, Duration::ZERO).map_err(|_| refused("it has expired, or is not valid yet"))?;
        let is_recent = |at: &Timestamp| at.plus(MAX_AGE).plus(rules.leeway) >= wall;
        let issued_at = times.issued_at.filter(is_recent).ok_or(refused("`iat` is missing, or is too long ago"))?;
        self.mapped(rules, &sent, &claims, (times, issued_at, shown))
    }

    fn mapped(
        &self,
        rules: &IssuerRules,
        sent: &SentIdToken<'_>,
        claims: &Members<'_>,
        (times, issued_at, shown): (TokenTimes, Timestamp, &[Box<str>]),
    ) -> Result<ProvedLogin, Denial> {
        let rules = of_other_kind(rules);
        let of_tokens = rules.of_tokens();
        let judged = judge::claims(sent.token.into(), claims, (&rules, &of_tokens), ClaimsSource::Unknown, times);
        let token = judged.map_err(|refusal| match name_claim(&rules, refusal, None) {
            Denial::BadClaim(what) => refused(what),
            _ => refused("the rules for the token's issuer do not allow one of its claims"),
        })?;
        let mut own = OwnClaims::new();
        let roles = token.roles().names();
        if !roles.is_empty() {
            own.insert(OwnClaims::ROLES, roles).map_err(|_| refused("its roles are too long"))?;
        }
        // Routes with a step-up requirement (RFC 9470) check these claims of the session.
        let (acr, auth_time) = token.login();
        let seconds = auth_time.map(|at| at.as_secs());
        let inserted = acr.map_or(Ok(()), |acr| own.insert(ACR, acr));
        let inserted = inserted.and(seconds.map_or(Ok(()), |seconds| own.insert(AUTH_TIME, seconds)));
        inserted.map_err(|_| refused("its claims are too long"))?;
        for name in shown.iter().filter(|name| ![OwnClaims::ROLES, ACR, AUTH_TIME].contains(&&***name)) {
            let inserted = match claims.get(name) {
                Some(Member::Text(text)) => own.try_insert(&**name, text),
                Some(Member::Number(number)) => own.try_insert(&**name, number),
                Some(Member::Bool(value)) => own.try_insert(&**name, value),
                _ => continue,
            };
            if let Err(ClaimError::TooLong) = inserted {
                return Err(refused("its claims are too long"));
            }
        }
        let granted = Scope::parse(sent.scope).map_err(|_| refused("the granted scope is malformed"))?;
        let granted = rules.granted(granted);
        // Records the session, so that a later logout can end it.
        rules.sessions_seen.note_token(&token);
        Ok(ProvedLogin {
            subject: token.subject.clone(),
            account: token.account().map(Box::from),
            scope: Scope::from_tokens(granted.iter().chain(token.scope.iter())),
            claims: own,
            issued_at,
            acr: acr.map(Box::from),
            auth_time,
            leeway: token.leeway(),
            vouched_by: token.voucher(),
        })
    }
}

fn answers(claims: &Members<'_>, sent: &SentIdToken<'_>, algorithm: Algorithm) -> Result<(), Denial> {
    let text = |name: &str| claims.optional(name).map(Member::as_text);
    let others = match claims.get("aud") {
        Some(Member::Text(one)) if **one == *sent.client => false,
        Some(Member::Array(several)) if several.iter().any(|one| one.as_text() == Some(sent.client)) => {
            several.len() > 1
        }
        _ => return Err(refused("`aud` is not the gate's client")),
    };
    match text("azp") {
        None if others => return Err(refused("`aud` names several clients, but `azp` is missing")),
        None => {}
        Some(Some(party)) if party == sent.client => {}
        Some(_) => return Err(refused("`azp` is another client")),
    }
    let nonce = text("nonce").flatten().unwrap_or_default();
    if nonce.is_empty() || !are_equal(nonce.as_bytes(), sent.nonce.as_bytes()) {
        return Err(refused("`nonce` is not the nonce of this login"));
    }
    if claims.get("events").is_some() {
        return Err(refused("it is a logout token"));
    }
    match text("at_hash") {
        None => Ok(()),
        Some(Some(hash)) if are_equal(hash.as_bytes(), half_hash(algorithm, sent.access_token).as_bytes()) => Ok(()),
        Some(_) => Err(refused("`at_hash` does not match the access token")),
    }
}

/// The left half of the token's hash (OpenID Connect Core §3.1.3.6), in base64url.
fn half_hash(algorithm: Algorithm, token: &str) -> String {
    let by = match algorithm {
        Algorithm::Es256 | Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Hs256 => &SHA256,
        Algorithm::Es384 | Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Hs384 => &SHA384,
        // Ed25519 uses SHA-512 internally.
        Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::Hs512 | Algorithm::EdDsa => &SHA512,
    };
    let hash = digest::digest(by, token.as_bytes());
    let (left, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    URL_SAFE_NO_PAD.encode(left)
}

/// Returns the issuer's rules for tokens other than access tokens. Required claim values still apply.
pub(super) fn of_other_kind(rules: &IssuerRules) -> IssuerRules {
    let is_of_kind = |path: &ClaimPath| path.segments().len() == 1 && path.segments().any(|name| KINDS.contains(&name));
    let holds =
        |required: &&RequiredClaim| matches!(required.wanted, WantedClaim::OneOf(_)) && !is_of_kind(&required.path);
    let require = rules.claims.require.iter().filter(holds).cloned().collect();
    let claims = ClaimMapping { audience: None, require, ..(*rules.claims).clone() };
    IssuerRules { claims: Arc::new(claims), max_lifetime: None, ..rules.clone() }
}
