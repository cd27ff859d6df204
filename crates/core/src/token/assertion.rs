//! Signed assertions about a caller, which an upstream can verify independently of the request's route through the
//! network. An assertion is not an access token, and the gate never accepts it as an access token.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::claims::AccessToken;
use super::keyring::{Keyring, SigningKey};
use super::mint::{MintError, signed};
use super::text::TokenText;
use crate::clock::Timestamp;
use crate::random::random;
use crate::session::Scope;

/// The `typ` of an assertion.
// Requirement N58.
pub const ASSERTION_TYP: &str = "identity+jwt";
/// The `typ` of a transaction token.
pub const TRANSACTION_TYP: &str = "txntoken+jwt";

/// Is this the `typ`, without `application/`, of a text that the gate signs for services? Such a text is not an access
/// token.
pub fn is_assertion_typ(typ: &str) -> bool {
    [ASSERTION_TYP, TRANSACTION_TYP].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

/// The longest assertion, in bytes.
const MAX_ASSERTION: usize = 2048;
/// The shortest and the longest lifetime of an assertion.
pub const ASSERTION_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

/// The claims of an assertion about the caller with this token.
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
        // The issuer that vouches for the subject: two issuers may have users with the same name.
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

/// An assertion as a header value, and its expiry.
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
    // The assertion does not outlive the token. After the token's `exp`, the assertion ends with the leeway.
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
    Ok((sent(&signed(key, &key.assertion_header, &payload)?, MAX_ASSERTION)?, expires))
}

/// The header of a transaction token (draft-ietf-oauth-transaction-tokens §8.1).
pub const TRANSACTION_HEADER: HeaderName = HeaderName::from_static("txn-token");
/// The longest transaction token, in bytes.
pub(crate) const MAX_TRANSACTION: usize = 4096;
/// The lifetime of a transaction token.
const TRANSACTION_TTL: Duration = Duration::from_secs(60);

/// The content of a transaction token.
#[derive(Debug)]
pub struct Transaction<'a> {
    /// The trust domain, which is the audience.
    pub domain: &'a str,
    /// `tctx`.
    pub context: Option<TransactionContext<'a>>,
    /// The client that asks for it. `None`: that of the caller's token.
    pub workload: Option<&'a str>,
    /// The scopes of the token that the transaction needs.
    pub scope: Scope,
    /// The address of the client.
    pub client: Option<IpAddr>,
}

/// What the token says of the request.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum TransactionContext<'a> {
    /// The request at this gate that the transaction begins with.
    Request(TransactionRequest<'a>),
    /// What the client says that gets the token by an exchange, byte for byte: a number keeps all its digits.
    Details(&'a RawValue),
}

/// The request that a transaction begins with.
#[derive(Debug, Serialize)]
pub struct TransactionRequest<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The name of the route.
    pub route: &'a str,
    /// The parameters of the path in the pattern of the route.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct TransactionClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Cow<'a, str>,
    iat: u64,
    exp: u64,
    txn: uuid::Uuid,
    scope: &'a Scope,
    req_wl: &'a str,
    rctx: RequesterContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tctx: Option<&'a TransactionContext<'a>>,
}

#[derive(Serialize)]
struct RequesterContext<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    req_ip: Option<IpAddr>,
    /// How the caller authenticated: with an access token of OAuth 2.0.
    authn: &'static str,
    origin_iss: &'a str,
}

/// A transaction token for the caller with this token, and its end.
///
/// # Errors
/// The token would be longer than 4 KiB, or the signature failed.
// Requirement D28.
pub(crate) fn transaction(
    keyring: &Keyring,
    issuer: &str,
    token: &AccessToken,
    about: &Transaction<'_>,
    now: Timestamp,
) -> Result<(TokenText, Timestamp), MintError> {
    let id = random::<16>().map_err(|_| MintError::Signing)?;
    let end = if token.expires > now { token.expires } else { token.refused_from() };
    let expires = now.plus(TRANSACTION_TTL).min(end);
    let claims = TransactionClaims {
        iss: issuer,
        aud: about.domain,
        sub: token.header_subject(),
        iat: now.as_secs(),
        exp: expires.as_secs(),
        txn: uuid::Builder::from_random_bytes(*id).into_uuid(),
        scope: &about.scope,
        req_wl: about.workload.or(token.client.as_deref()).unwrap_or(issuer),
        rctx: RequesterContext {
            req_ip: about.client,
            authn: "urn:ietf:rfc:6749",
            origin_iss: token.vouched_by().map_or(&**token.issuer(), |by| &by.issuer),
        },
        tctx: about.context.as_ref(),
    };
    let payload = serde_json::to_string(&claims).map_err(|_| MintError::Signing)?;
    let key = keyring.signer();
    let text = signed(key, &key.transaction_header, &payload)?;
    if text.len() > MAX_TRANSACTION {
        return Err(MintError::TooLong);
    }
    Ok((TokenText::new(text), expires))
}

/// The value of a header, which no log shows.
pub(crate) fn sent(text: &str, longest: usize) -> Result<HeaderValue, MintError> {
    if text.len() > longest {
        return Err(MintError::TooLong);
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| MintError::Signing)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Can the holders of the published keys verify signatures of this algorithm?
pub fn can_sign_assertions(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
}
