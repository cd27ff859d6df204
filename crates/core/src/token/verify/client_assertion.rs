//! Client authentication with `private_key_jwt` (RFC 7523 §2.2, with the rules of its revision).
//!
//! `aud` must be exactly this gate's issuer, not the URL of the token endpoint. Otherwise a malicious server could name
//! another server's endpoint as its own and collect valid assertions (CVE-2025-27370).

use std::time::Duration;

use super::Keys;
use super::genuine::{Genuine, NotGenuine, genuine};
use super::judge::TokenTimes;
use super::names::is_name;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::strict_json::{Member, Members};

/// The required value of `client_assertion_type`.
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Assertions with a generic `typ`, or without `typ`, are also accepted.
const TYP: &str = "client-authentication+jwt";
/// The maximum remaining lifetime of an assertion.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// An assertion to verify.
#[derive(Clone, Copy)]
pub struct SentClientAssertion<'a> {
    /// The client in the request.
    pub client: &'a str,
    /// The keys of the client.
    pub keys: &'a Keys,
    /// The accepted values of `aud`.
    pub audience: &'a [&'a str],
    /// The assertion.
    pub token: &'a str,
    /// The maximum accepted clock difference between client and gate.
    pub leeway: Duration,
}

/// A valid assertion, which is accepted only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableOnce {
    /// The purpose of the assertion. Used assertions are recorded separately for each purpose.
    pub kind: &'static str,
    /// `iss`.
    pub issuer: Box<str>,
    /// `jti`, or an id that is derived from the claims.
    pub id: Box<str>,
    /// The time from which every gate refuses the assertion as expired.
    pub until: Timestamp,
}

const fn refused(what: &'static str) -> Denial {
    Denial::ClientAssertion(what)
}

impl SentClientAssertion<'_> {
    /// Verifies the assertion. The caller must then refuse a second use.
    ///
    /// # Errors
    /// [`Denial::ClientAssertion`]; [`Denial::KeysUnavailable`].
    // Requirement D24.
    pub fn verify(self, engine_now: Timestamp, wall: Timestamp) -> Result<UsableOnce, Denial> {
        let Self { client, keys, audience, token, leeway } = self;
        let refuse = |flaw: NotGenuine| flaw.denial(refused, refused("it was not signed with a key of the client"));
        let read = |payload: &[u8]| {
            let claims = Members::read(payload).map_err(refused)?;
            let text = |name: &str| claims.get(name).and_then(Member::as_text);
            if text("iss") != Some(client) || text("sub") != Some(client) {
                return Err(refused("`iss` and `sub` must be the client's id"));
            }
            if !sole_audience(&claims).is_some_and(|sole| audience.contains(&sole)) {
                return Err(refused("`aud` must be the issuer of this gate, as its only value"));
            }
            let times = TokenTimes::read(&claims).map_err(|_| refused("`exp` is missing, or a time is malformed"))?;
            // Used assertions are recorded in engine time, so the expiry is also compared with that clock.
            if times.expires.plus(leeway) <= wall.max(engine_now) {
                return Err(refused("it has expired"));
            }
            if times.expires > wall.plus(MAX_LIFETIME).plus(leeway) {
                return Err(refused("`exp` is more than an hour ahead"));
            }
            if [times.not_before, times.issued_at].into_iter().flatten().any(|time| time > wall.plus(leeway)) {
                return Err(refused("it is not valid yet"));
            }
            let id = text("jti").filter(|id| is_name(id)).ok_or(refused("`jti` must have 1 to 256 bytes"))?;
            let until = times.expires.plus(leeway * 2);
            Ok(UsableOnce { kind: "client assertion", issuer: client.into(), id: id.into(), until })
        };
        let Genuine { claims, typ, .. } = genuine((keys, leeway), token, engine_now, read, refuse)?;
        match typ.as_deref() {
            None | Some("jwt" | TYP) => Ok(claims),
            Some(_) => Err(refused("`typ` is not the type of a client assertion")),
        }
    }
}

/// `aud` may be a string or an array with one string.
pub(super) fn sole_audience<'a>(claims: &'a Members<'_>) -> Option<&'a str> {
    match claims.get("aud")? {
        Member::Text(one) => Some(one),
        Member::Array(several) => match &**several {
            [one] => one.as_text(),
            _ => None,
        },
        _ => None,
    }
}
