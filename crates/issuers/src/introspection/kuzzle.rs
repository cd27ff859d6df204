//! A Kuzzle server in the place of an introspection endpoint: the action `auth:checkToken`.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use rotogate_core::bounds::MAX_INTROSPECTION;
use rotogate_core::clock::LAST_SECOND;
use rotogate_core::http_client::{FetchTarget, HttpClient};
use rotogate_core::introspection::{IntrospectionFault, Introspector};
use rotogate_core::random::parts_digest;
use rotogate_core::token::verify::payload_of;
use serde_json::{Value, json};

use super::{INACTIVE, wait_of};

mod secret;

pub use secret::KuzzleSecret;

/// The prefixes of Kuzzle's tokens and API keys.
const PREFIXES: [&str; 2] = ["kauth-", "kapikey-"];
/// What both prefixes begin with.
pub const PREFIX: &str = "ka";
/// The id of the anonymous user.
const ANONYMOUS: &str = "-1";

/// A client of `auth:checkToken`, which needs no credentials.
pub struct KuzzleIntrospector {
    client: HttpClient,
    endpoint: FetchTarget,
}

rotogate_core::debug_with!(KuzzleIntrospector { endpoint });

impl KuzzleIntrospector {
    /// Creates an introspector from the URL of `/_checkToken`.
    pub fn new(client: HttpClient, endpoint: FetchTarget) -> Self {
        Self { client: client.with_max_size(MAX_INTROSPECTION), endpoint }
    }
}

/// The claims of a token, which are not verified.
fn claims(token: &str) -> Option<Value> {
    let jwt = token.strip_prefix("kauth-").or_else(|| token.strip_prefix("kapikey-"))?;
    serde_json::from_slice(&payload_of(jwt).ok()?).ok()
}

/// Returns the `iat` of a token that the server has accepted, so that a revocation does not refuse later tokens.
fn issued_at(token: &str) -> Option<u64> {
    claims(token)?.get("iat")?.as_u64()
}

/// Implements [`Introspector::described`].
fn described(token: &str) -> Option<Bytes> {
    let claims = claims(token)?;
    let number = |name: &str| claims.get(name).and_then(Value::as_u64);
    active(claims.get("_id")?.as_str()?, number("exp"), number("iat"))
}

fn is_kuzzles(token: &str) -> bool {
    PREFIXES.iter().any(|prefix| token.starts_with(prefix))
}

/// Returns the response of an introspection endpoint (RFC 7662 §2.2) with the same meaning.
fn introspected(token: &str, body: &[u8]) -> Option<Bytes> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let result = body.get("result")?;
    if !result.get("valid")?.as_bool()? {
        return Some(Bytes::from_static(INACTIVE));
    }
    let (kuid, expires) = (result.get("kuid")?.as_str()?, result.get("expiresAt")?.as_i64()?);
    // The time is in milliseconds. A token without an end has a negative number.
    let expires = u64::try_from(expires).ok().map(|expires| expires / 1000);
    Some(active(kuid, expires, issued_at(token)).unwrap_or(Bytes::from_static(INACTIVE)))
}

/// Returns the response for a valid token. Returns `None` for the anonymous user.
fn active(kuid: &str, expires: Option<u64>, issued_at: Option<u64>) -> Option<Bytes> {
    let expires = expires.unwrap_or(LAST_SECOND).min(LAST_SECOND);
    let response = json!({ "active": true, "sub": kuid, "exp": expires, "iat": issued_at });
    (kuid != ANONYMOUS).then(|| response.to_string().into())
}

#[async_trait]
impl Introspector for KuzzleIntrospector {
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault> {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let body = Bytes::from(json!({ "token": token }).to_string());
        let sent = self.client.send(&self.endpoint, Method::POST, headers, body).await;
        let (head, body) = sent.map_err(|error| IntrospectionFault::new(error.word(), error))?.into_parts();
        let host = self.endpoint.host();
        if head.status != StatusCode::OK {
            return Err(IntrospectionFault {
                retry_after: wait_of(&head.headers),
                ..IntrospectionFault::new("status", format!("{host}: returned {}", head.status))
            });
        }
        let malformed = || format!("{host}: the response is not one of Kuzzle's `auth:checkToken`");
        introspected(token, &body).ok_or_else(|| IntrospectionFault::new(IntrospectionFault::MALFORMED, malformed()))
    }

    fn covers(&self, token: &str) -> bool {
        is_kuzzles(token)
    }

    fn described(&self, token: &str) -> Option<Bytes> {
        described(token)
    }

    fn identity(&self) -> Box<[u8]> {
        parts_digest(&[b"kuzzle", self.endpoint.to_string().as_bytes()]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i77_each_answer_of_check_token_is_read_as_what_it_says() {
        // The payload is {"iat":1699999999}.
        let token = "kauth-eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjE2OTk5OTk5OTl9.c2ln";
        let read = |result: &str| {
            let body = introspected(token, format!(r#"{{"status":200,"error":null,"result":{result}}}"#).as_bytes());
            body.map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        let active = r#"{"active":true,"exp":1700000000,"iat":1699999999,"sub":"ada"}"#;
        assert_eq!(read(r#"{"valid":true,"kuid":"ada","expiresAt":1700000000999}"#).as_deref(), Some(active));
        let endless = read(r#"{"valid":true,"kuid":"ada","expiresAt":-1}"#).unwrap();
        assert!(endless.contains(&LAST_SECOND.to_string()), "{endless}");
        for inactive in [r#"{"valid":false,"state":"Invalid token."}"#, r#"{"valid":true,"kuid":"-1","expiresAt":-1}"#]
        {
            assert_eq!(read(inactive).unwrap().as_bytes(), INACTIVE, "{inactive}");
        }
        for other in ["null", "{}", r#"{"valid":true}"#, r#"{"valid":"yes"}"#, r#"{"valid":true,"kuid":7}"#] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(introspected(token, br#"{"active":true}"#), None);
        assert_eq!(introspected(token, b"<html>"), None);
        for other in ["kauth-x.y", "kapikey-", "", "kauth-e30.e30.c2ln"] {
            assert_eq!((issued_at(other), described(other)), (None, None), "{other}");
        }
        assert!(is_kuzzles(token) && is_kuzzles("kapikey-1"));
        for other in ["ka1", "kauth", "kapi-1", "", "xkauth-1"] {
            assert!(!is_kuzzles(other), "{other}");
        }
    }
}
