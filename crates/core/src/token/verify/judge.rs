//! Checks the claims of a token after its signature was verified.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS};

use super::TokenToVerify;
use super::mapping::RefusedClaim;
use super::names::is_name;
use super::rules::{IssuerRules, media_subtype};
use crate::clock::{LAST_SECOND, Timestamp};
use crate::denial::Denial;
use crate::session::{Generation, SessionId, VouchedBy};
use crate::strict_json::{Member, Members};
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
use crate::token::claims::{AccessToken, LoginClaims, RareClaims, TokenHash, TokenIssuer};
use crate::token::delegation::{Delegation, TokenOrigin};
use crate::token::keyring::VerifyingKey;
use crate::token::typ::TYP;

#[derive(Clone, Copy)]
pub(super) enum ClaimsSource<'a> {
    Token(&'a VerifyingKey),
    Response(&'a str),
    /// Without the key, the source is unknown.
    Unknown,
}

const ACCOUNT: &str = "`account` must be a string of 1 to 256 bytes without control characters";

/// Checks everything that does not depend on the route.
pub(super) fn claims<'r>(
    token: TokenToVerify<'_>,
    claims: &Members<'_>,
    (rules, issuer): (&'r IssuerRules, &Arc<TokenIssuer>),
    origin: ClaimsSource<'_>,
    times: TokenTimes,
) -> Result<AccessToken, RefusedClaim<'r>> {
    let (bound_to, certificate) = confirmation(claims)?;
    let TokenTimes { expires, not_before, issued_at } = times;
    let (mapping, is_introspected) = (&rules.claims, matches!(origin, ClaimsSource::Response(_)));
    mapping.judge_required(claims)?;
    let subject = mapping.subject_of(claims, is_introspected)?;
    let jti = name(claims, "jti", "`jti` must be a string of 1 to 256 bytes without control characters")?;
    let sid = name(claims, "sid", "`sid` must be a string of 1 to 256 bytes without control characters")?;
    let client = mapping.client_of(claims)?;
    let scope = mapping.scope_of(claims, rules.ours)?;
    let is_optional = is_introspected && rules.introspection.as_ref().is_some_and(|it| it.audience_optional);
    let audience = match claims.get("aud") {
        None if is_optional && mapping.audience.is_none() => Arc::clone(&rules.audience),
        _ => audience(claims, rules)?,
    };
    let (session, account) = if rules.ours {
        has_own_claims(jti.is_some(), client.is_some(), issued_at.is_some())?;
        let account = name(claims, "account", ACCOUNT)?;
        (session(sid, claims.get("gen"))?, account.map(Box::from))
    } else {
        let account = mapping.account_of(claims)?;
        (None, account.map(|account| format!("{}:{account}", rules.name).into()))
    };
    // Revoking any session of the subject also revokes a token without a session.
    let issuer_session = match rules.ours || rules.session_claim.is_empty() {
        true => None,
        false => claims.optional(&rules.session_claim).and_then(Member::as_text).map(Box::from),
    };
    issued_at.map_or(Ok(()), |issued_at| lifetime(expires, issued_at, rules))?;
    let (signer, response) = match origin {
        ClaimsSource::Token(key) => (Some(Arc::clone(key.identity())), None),
        ClaimsSource::Unknown => (None, None),
        ClaimsSource::Response(response) => (None, Some(response.into())),
    };
    let (shown, raw_subject) = match mapping.encodes_subject {
        false => (Cow::Borrowed(subject), None),
        true => (percent_encoded(subject), Some(subject.into())),
    };
    // Logout notices and events name the user by `sub`.
    let sub = claims.get("sub").and_then(Member::as_text).filter(|sub| !rules.ours && *sub != subject && is_name(sub));
    let rare = RareClaims {
        roles: mapping.roles_of(claims, rules.ours)?,
        raw_subject,
        sub: sub.map(Box::from),
        account,
        issuer_session,
        vouched_by: if rules.ours { vouched_by(claims)? } else { None },
        delegation: if rules.ours { delegation(token.text, claims, session.is_some())? } else { None },
        bound_to: bound_to.map(|key| (key, TokenHash::new(token.text))),
        certificate,
        login: login(claims),
        not_before,
        response,
        ..RareClaims::default()
    };
    Ok(AccessToken {
        text: token.kept.map_or_else(|| token.text.into(), Arc::clone),
        issued_by: Arc::clone(issuer),
        signer,
        rare: (rare != RareClaims::default()).then(|| Box::new(rare)),
        subject: match &*rules.subject_prefix {
            "" => shown.into(),
            prefix => format!("{prefix}{shown}").into(),
        },
        client: client.map(Box::from),
        scope: rules.granted(scope),
        audience,
        session,
        jti: jti.map(Box::from),
        issued_at,
        expires,
    })
}

/// Checks for the claims that the gate always writes (RFC 9068 §2.2).
fn has_own_claims(jti: bool, client_id: bool, iat: bool) -> Result<(), Denial> {
    let missing = match (jti, client_id, iat) {
        (true, true, true) => return Ok(()),
        (false, ..) => "no jti",
        (true, false, _) => "no client_id",
        (true, true, false) => "no iat",
    };
    Err(Denial::BadClaim(missing))
}

fn vouched_by(claims: &Members<'_>) -> Result<Option<VouchedBy>, Denial> {
    let text = |name_of| {
        name(claims, name_of, "the claims `origin_…` must be strings of 1 to 256 bytes without control characters")
    };
    match (text("origin_iss")?, text("origin_sub")?, text("origin_sid")?) {
        (None, None, None) => Ok(None),
        (Some(issuer), Some(subject), session) => {
            let session = session.map(Box::from);
            Ok(Some(VouchedBy { issuer: issuer.into(), subject: subject.into(), session }))
        }
        _ => Err(Denial::BadClaim("`origin_iss` and `origin_sub` must be both present or both absent")),
    }
}

/// Reads the client that acts for the subject (RFC 8693 §4.1).
// Requirements D4 and D8.
fn delegation(text: &str, claims: &Members<'_>, has_session: bool) -> Result<Option<Delegation>, Denial> {
    if claims.get("act").is_none() {
        return Ok(None);
    }
    let act = super::claims_of(text).and_then(|mut all| all.remove("act"));
    let origin = match time(claims, "origin_iat", "`origin_iat` must be a time")? {
        Some(issued_at) if claims.get("origin_iss").is_some() => {
            let jti = name(claims, "origin_jti", "`origin_jti` must be a string of 1 to 256 bytes")?;
            Some(TokenOrigin { issued_at, jti: jti.map(Box::from) })
        }
        _ => None,
    };
    if !has_session && origin.is_none() {
        return Err(Denial::BadClaim("`act` requires `sid`, or `origin_iss` and `origin_iat`"));
    }
    let client = name(claims, "origin_client", "`origin_client` must be a string of 1 to 256 bytes")?;
    let delegation = act.and_then(|act| Delegation::new(act, origin, client.map(Box::from)));
    delegation.map(Some).ok_or(Denial::BadClaim("`act` must name an actor"))
}

type Bindings = (Option<KeyThumbprint>, Option<CertificateThumbprint>);

/// Reads `cnf` (RFC 7800 §3.1): `jkt` (RFC 9449 §6.1), `x5t#S256` (RFC 8705 §3.1), or both. A token with both requires
/// both proofs. Unsupported confirmations cause a refusal (R14).
fn confirmation(claims: &Members<'_>) -> Result<Bindings, Denial> {
    let members = match claims.get("cnf") {
        None => return Ok((None, None)),
        Some(Member::Object(members)) => members,
        Some(_) => return Err(Denial::UnprovedBinding),
    };
    let (mut key, mut certificate) = (None, None);
    for name in members.names() {
        let text = members.get(name).and_then(Member::as_text);
        let is_read = match name {
            "jkt" => {
                key = text.and_then(KeyThumbprint::parse);
                key.is_some()
            }
            "x5t#S256" => {
                certificate = text.and_then(CertificateThumbprint::parse);
                certificate.is_some()
            }
            _ => false,
        };
        if !is_read {
            return Err(Denial::UnprovedBinding);
        }
    }
    if key.is_none() && certificate.is_none() { Err(Denial::UnprovedBinding) } else { Ok((key, certificate)) }
}

/// A claim of the wrong type is ignored.
fn login(claims: &Members<'_>) -> LoginClaims {
    let acr = claims.get("acr").and_then(Member::as_text).map(Box::from);
    let auth_time = claims.get("auth_time").and_then(Member::as_u64).filter(|secs| *secs <= LAST_SECOND);
    LoginClaims { acr, auth_time: auth_time.map(Timestamp::from_secs) }
}

/// Percent-encodes `%` and everything but visible ASCII. The encoding is injective.
fn percent_encoded(subject: &str) -> Cow<'_, str> {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
    percent_encoding::utf8_percent_encode(subject, ENCODED).into()
}

#[derive(Clone, Copy)]
pub(super) struct TokenTimes {
    pub(super) expires: Timestamp,
    pub(super) not_before: Option<Timestamp>,
    pub(super) issued_at: Option<Timestamp>,
}

#[derive(Clone, Copy)]
pub(super) struct Moments {
    /// The time to compare with `exp`.
    pub(super) expiry: Timestamp,
    /// The time to compare with `nbf` and `iat`.
    pub(super) beginning: Timestamp,
}

impl Moments {
    pub(super) fn for_issuer(rules: &IssuerRules, engine_now: Timestamp, wall_now: Timestamp) -> Self {
        if rules.ours {
            // The gate's own tokens expire by the faster clock, so a slow clock does not prolong them.
            Self { expiry: engine_now.max(wall_now), beginning: engine_now }
        } else {
            Self { expiry: wall_now, beginning: wall_now }
        }
    }
}

impl TokenTimes {
    pub(super) fn read(claims: &Members<'_>) -> Result<Self, Denial> {
        Ok(Self {
            expires: time(claims, "exp", "`exp` must be a time")?.ok_or(Denial::BadClaim("no exp"))?,
            not_before: time(claims, "nbf", "`nbf` must be a time")?,
            issued_at: time(claims, "iat", "`iat` must be a time")?,
        })
    }

    pub(super) fn judge(
        self,
        rules: &IssuerRules,
        moments: Moments,
        expired_for_at_most: Duration,
    ) -> Result<(), Denial> {
        if self.expires.plus(expired_for_at_most).plus(rules.leeway_of_expiry()) <= moments.expiry {
            return Err(Denial::TokenExpired);
        }
        let latest = moments.beginning.plus(rules.leeway);
        if [self.not_before, self.issued_at].into_iter().flatten().any(|t| t > latest) {
            return Err(Denial::TokenNotYetValid);
        }
        Ok(())
    }

    /// Requires `iat` if the token's type requires it (RFC 9068 §2.2). In other types `iat` is optional (RFC 7519
    /// §4.1.6).
    pub(super) fn judge_iat(self, rules: &IssuerRules, moments: Moments, typ: Option<&str>) -> Result<(), Denial> {
        match self.issued_at {
            Some(_) => Ok(()),
            None if rules.max_lifetime.is_some() && typ.is_some_and(is_rfc9068) => Err(Denial::BadClaim("no iat")),
            None => lifetime(self.expires, moments.beginning.plus(rules.leeway), rules),
        }
    }
}

fn is_rfc9068(typ: &str) -> bool {
    media_subtype(typ).eq_ignore_ascii_case(TYP)
}

pub(super) const TOO_LONG: &str = "`exp` is too long after `iat`";

fn lifetime(expires: Timestamp, issued_at: Timestamp, rules: &IssuerRules) -> Result<(), Denial> {
    let Some(longest) = rules.max_lifetime else { return Ok(()) };
    if expires.since(issued_at) > longest { Err(Denial::BadClaim(TOO_LONG)) } else { Ok(()) }
}

fn name<'a>(claims: &'a Members<'_>, claim: &str, why: &'static str) -> Result<Option<&'a str>, Denial> {
    match claims.optional(claim) {
        None => Ok(None),
        Some(member) => member.as_text().filter(|text| is_name(text)).map(Some).ok_or(Denial::BadClaim(why)),
    }
}

fn time(claims: &Members<'_>, claim: &str, why: &'static str) -> Result<Option<Timestamp>, Denial> {
    let number = match claims.get(claim) {
        None => return Ok(None),
        Some(Member::Number(number)) => number,
        Some(_) => return Err(Denial::BadClaim(why)),
    };
    Timestamp::from_numeric_date(number).map(Some).ok_or(Denial::BadClaim(why))
}

fn audience<'r>(claims: &Members<'_>, rules: &'r IssuerRules) -> Result<Arc<[Box<str>]>, RefusedClaim<'r>> {
    const WHY: Denial = Denial::BadClaim("`aud` must be a string or an array of strings");
    let entry = |member: &Member<'_>| member.as_text().filter(|text| !text.is_empty()).map(Box::from).ok_or(WHY.into());
    let one = |text: &str| match &*rules.audience {
        [usual] if **usual == *text => Arc::clone(&rules.audience),
        _ => [text.into()].into(),
    };
    if let Some(text) = rules.claims.audience_of(claims) {
        return text.map(one);
    }
    match claims.get("aud") {
        Some(Member::Text(text)) if !text.is_empty() => Ok(one(text)),
        Some(Member::Array(several)) if !several.is_empty() => several.iter().map(entry).collect(),
        Some(_) => Err(WHY.into()),
        None => Err(Denial::BadClaim("no aud").into()),
    }
}

/// Reads the session and its generation. A token must have both a session and a generation, or neither.
fn session(sid: Option<&str>, generation: Option<&Member<'_>>) -> Result<Option<(SessionId, Generation)>, Denial> {
    match (sid, generation) {
        (None, None) => Ok(None),
        (Some(sid), Some(generation)) => {
            let sid = SessionId::parse(sid).ok_or(Denial::BadClaim("`sid` is not a valid session id of this gate"))?;
            let generation = generation.as_u64().map(Generation::new).filter(|it| *it >= Generation::FIRST);
            let generation = generation.ok_or(Denial::BadClaim("`gen` must be a positive whole number"))?;
            Ok(Some((sid, generation)))
        }
        (Some(_), None) | (None, Some(_)) => {
            Err(Denial::BadClaim("`sid` and `gen` must be both present or both absent"))
        }
    }
}
