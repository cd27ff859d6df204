//! The claims of a token with a good signature.

use std::sync::Arc;
use std::time::Duration;

use super::members::{Member, Members};
use super::rules::IssuerRules;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::session::{Generation, Scope, SessionId};
use crate::token::claims::AccessToken;
use crate::token::keyring::VerifyingKey;

/// The longest name (subject, session, token, client), in bytes (J9).
const MAX_NAME: usize = 256;
/// The end of the year 9999, in seconds: no honest time is later, and nothing overflows before it.
const LAST_SECOND: u64 = 253_402_300_799;

/// Is this a valid `jti`, client or account?
#[doc(hidden)]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Is this a valid `sub`? Visible ASCII, because it goes into a header.
#[doc(hidden)]
pub fn is_subject(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Checks everything that does not depend on the route.
pub(super) fn claims(
    text: &str,
    claims: &Members<'_>,
    rules: &IssuerRules,
    key: &VerifyingKey,
    times: Times,
) -> Result<AccessToken, Denial> {
    if claims.get("cnf").is_some() {
        return Err(Denial::UnprovedBinding);
    }
    let Times { expires, not_before, issued_at } = times;
    let subject = word(claims, "sub", "sub must be a string")?.ok_or(Denial::BadClaim("no sub"))?;
    if !is_subject(subject) {
        return Err(Denial::BadClaim("sub must be 1 to 256 visible ASCII characters"));
    }
    let jti = name(claims, "jti", "jti must be a string of 1 to 256 bytes without control characters")?;
    let sid = name(claims, "sid", "sid must be a string of 1 to 256 bytes without control characters")?;
    let client = name(claims, "client_id", "client_id must be a string of 1 to 256 bytes without control characters")?;
    let scope = match word(claims, "scope", "scope must be a string")? {
        Some(scope) => Scope::parse(scope).map_err(|_| Denial::BadClaim("scope has a character that none may have"))?,
        None => Scope::default(),
    };
    let audience = audience(claims, rules)?;
    let (session, account) = if rules.ours {
        if jti.is_none() {
            return Err(Denial::BadClaim("no jti"));
        }
        if client.is_none() {
            return Err(Denial::BadClaim("no client_id"));
        }
        if issued_at.is_none() {
            return Err(Denial::BadClaim("no iat"));
        }
        let account = name(claims, "account", "account must be a string of 1 to 256 bytes without control characters")?;
        (session(sid, claims.get("gen"))?, account.map(Box::from))
    } else {
        (None, None)
    };
    lifetime(expires, issued_at, rules)?;
    Ok(AccessToken {
        text: text.into(),
        issuer: rules.issuer.clone(),
        issuer_name: rules.name.clone(),
        ours: rules.ours,
        everywhere: rules.everywhere,
        role_claims: Arc::clone(&rules.role_claims),
        subject: if rules.subject_prefix.is_empty() {
            subject.into()
        } else {
            format!("{}{subject}", rules.subject_prefix).into()
        },
        subject_prefix: rules.subject_prefix.len(),
        account,
        client: client.map(Box::from),
        scope: rules.granted(scope),
        audience,
        session,
        jti: jti.map(Box::from),
        issued_at,
        not_before,
        expires,
        leeway: rules.leeway,
        kid: key.shared_kid().cloned(),
        key: key.print(),
    })
}

/// The times of a token.
#[derive(Clone, Copy)]
pub(super) struct Times {
    expires: Timestamp,
    not_before: Option<Timestamp>,
    issued_at: Option<Timestamp>,
}

/// The moments for which a token is judged.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    /// For `exp`.
    pub(super) expiry: Timestamp,
    /// For `nbf` and `iat`.
    pub(super) beginning: Timestamp,
}

impl Times {
    pub(super) fn read(claims: &Members<'_>) -> Result<Self, Denial> {
        Ok(Self {
            expires: time(claims, "exp", "exp must be a time")?.ok_or(Denial::BadClaim("no exp"))?,
            not_before: time(claims, "nbf", "nbf must be a time")?,
            issued_at: time(claims, "iat", "iat must be a time")?,
        })
    }

    /// Are these times valid at these moments?
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
}

fn lifetime(expires: Timestamp, issued_at: Option<Timestamp>, rules: &IssuerRules) -> Result<(), Denial> {
    let Some(longest) = rules.max_lifetime else { return Ok(()) };
    let since = issued_at.ok_or(Denial::BadClaim("no iat"))?;
    if expires.since(since) > longest { Err(Denial::BadClaim("exp is too long after iat")) } else { Ok(()) }
}

fn word<'a>(claims: &'a Members<'_>, claim: &str, why: &'static str) -> Result<Option<&'a str>, Denial> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Member::Text(text)) => Ok(Some(text)),
        // A claim of the wrong type is an error, not an absent claim.
        Some(Member::Number(_) | Member::Array(_) | Member::Other) => Err(Denial::BadClaim(why)),
    }
}

fn name<'a>(claims: &'a Members<'_>, claim: &str, why: &'static str) -> Result<Option<&'a str>, Denial> {
    match word(claims, claim, why)? {
        Some(text) if !is_name(text) => Err(Denial::BadClaim(why)),
        found => Ok(found),
    }
}

/// A NumericDate (RFC 7519 §2): seconds, possibly with a fraction.
fn time(claims: &Members<'_>, claim: &str, why: &'static str) -> Result<Option<Timestamp>, Denial> {
    let number = match claims.get(claim) {
        None => return Ok(None),
        Some(Member::Number(number)) => number,
        Some(Member::Text(_) | Member::Array(_) | Member::Other) => return Err(Denial::BadClaim(why)),
    };
    let time = match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) if seconds <= LAST_SECOND => Timestamp::from_secs(seconds),
        // The bounds make the conversion exact to the millisecond. Rounding down is safe for `exp`.
        (None, Some(seconds)) if (0.0..=LAST_SECOND as f64).contains(&seconds) => {
            Timestamp::from_millis((seconds * 1000.0) as u64)
        }
        _ => return Err(Denial::BadClaim(why)),
    };
    Ok(Some(time))
}

/// Most tokens have the audience of their issuer's rules, and share that allocation.
fn audience(claims: &Members<'_>, rules: &IssuerRules) -> Result<Arc<[Box<str>]>, Denial> {
    const WHY: Denial = Denial::BadClaim("aud must be a string or an array of strings");
    let entry = |member: &Member<'_>| match member {
        Member::Text(text) if !text.is_empty() => Ok(Box::from(&**text)),
        Member::Text(_) | Member::Number(_) | Member::Array(_) | Member::Other => Err(WHY),
    };
    let usual = |text: &str| !text.is_empty() && matches!(&*rules.audience, [one] if **one == *text);
    match claims.get("aud") {
        Some(Member::Text(text)) if usual(text) => Ok(Arc::clone(&rules.audience)),
        Some(one @ Member::Text(_)) => Ok([entry(one)?].into()),
        Some(Member::Array(several)) if !several.is_empty() => several.iter().map(entry).collect(),
        Some(Member::Number(_) | Member::Array(_) | Member::Other) => Err(WHY),
        None => Err(Denial::BadClaim("no aud")),
    }
}

/// Both or neither: a session without a generation could not be revoked by generation.
fn session(sid: Option<&str>, generation: Option<&Member<'_>>) -> Result<Option<(SessionId, Generation)>, Denial> {
    match (sid, generation) {
        (None, None) => Ok(None),
        (Some(sid), Some(generation)) => {
            let sid = SessionId::parse(sid).ok_or(Denial::BadClaim("sid is not one of ours"))?;
            let generation = match generation {
                Member::Number(number) => number.as_u64().map(Generation::new).filter(|it| *it >= Generation::FIRST),
                Member::Text(_) | Member::Array(_) | Member::Other => None,
            };
            let generation = generation.ok_or(Denial::BadClaim("gen must be a count"))?;
            Ok(Some((sid, generation)))
        }
        (Some(_), None) | (None, Some(_)) => Err(Denial::BadClaim("sid and gen go together")),
    }
}
