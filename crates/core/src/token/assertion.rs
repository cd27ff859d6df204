//! Signed assertions about a caller for upstreams to verify. The gate never accepts assertions as access tokens.

use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::algorithm::Algorithm;
use super::claims::AccessToken;
use super::keyring::{Keyring, SigningKey};
use super::mint::{MintError, signed};
use crate::clock::Timestamp;
use crate::random::random;

const MAX_ASSERTION: usize = 2048;
/// The allowed lifetimes.
pub const ASSERTION_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

struct AssertionClaims<'a> {
    issuer: &'a str,
    audience: &'a str,
    token: &'a AccessToken,
    issued_at: Timestamp,
    expires: Timestamp,
    id: uuid::Uuid,
    with_roles: bool,
}

impl Serialize for AssertionClaims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let token = self.token;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iss", self.issuer)?;
        map.serialize_entry("aud", self.audience)?;
        map.serialize_entry("sub", &token.header_subject())?;
        map.serialize_entry("iat", &self.issued_at.as_secs())?;
        map.serialize_entry("exp", &self.expires.as_secs())?;
        map.serialize_entry("jti", &self.id)?;
        // Two issuers may have users with the same name.
        let origin = token.vouched_by().map_or(&**token.issuer(), |by| &by.issuer);
        map.serialize_entry("origin_iss", origin)?;
        if let Some(client) = &token.client {
            map.serialize_entry("client_id", client)?;
        }
        if let Some((session, _)) = token.session {
            map.serialize_entry("sid", &session.to_string())?;
        }
        if !token.scope.is_empty() {
            map.serialize_entry("scope", &token.scope)?;
        }
        if let Some(account) = token.account() {
            map.serialize_entry("account", account)?;
        }
        if let Some(delegation) = token.delegation() {
            map.serialize_entry("act", delegation)?;
        }
        if self.with_roles {
            map.serialize_entry("roles", token.roles().names())?;
        }
        map.end()
    }
}

/// Returns the header value and the expiry.
///
/// # Errors
/// The assertion would be longer than 2 KiB, or the signature failed.
pub(crate) fn assertion(
    keyring: &Keyring,
    issuer: &str,
    audience: &str,
    token: &AccessToken,
    now: Timestamp,
    ttl: Duration,
) -> Result<(HeaderValue, Timestamp), MintError> {
    let id = random::<16>().map_err(|_| MintError::Signing)?;
    // The assertion expires with the token, or at the end of the leeway if the token has already expired.
    let end = if token.expires > now { token.expires } else { token.refused_from() };
    let expires = now.plus(ttl).min(end);
    let claims = AssertionClaims {
        issuer,
        audience,
        token,
        issued_at: now,
        expires,
        id: uuid::Builder::from_random_bytes(*id).into_uuid(),
        with_roles: !token.roles().are_left_out() && !token.roles().names().is_empty(),
    };
    let payload = serde_json::to_string(&claims).map_err(|_| MintError::Signing)?;
    let key: &SigningKey = keyring.signer();
    Ok((sent(&signed(key, &key.assertion_header, &payload)?)?, expires))
}

/// Makes a sensitive header value.
fn sent(text: &str) -> Result<HeaderValue, MintError> {
    if text.len() > MAX_ASSERTION {
        return Err(MintError::TooLong);
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| MintError::Signing)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns whether public keys can verify signatures with this algorithm.
pub fn can_sign_assertions(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
}
