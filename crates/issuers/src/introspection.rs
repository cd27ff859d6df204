//! Requests to introspection endpoints (RFC 7662 §2.1).
//!
//! ```no_run
//! use rotogate_core::http_client::{Allowed, FetchTarget, HttpClient};
//! use rotogate_core::introspection::Introspection;
//! use rotogate_issuers::introspection::HttpIntrospector;
//! use rotogate::token::IssuerRules;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = FetchTarget::parse("https://idp.example.com/oauth2/introspect", Allowed::by_operator())?;
//! let secret = rotogate::SecretString::from("the secret of the gate at the issuer");
//! let introspector = HttpIntrospector::new(HttpClient::new()?, endpoint, "gate", &secret);
//! let rules = IssuerRules::introspected("https://idp.example.com", vec!["api".into()], Introspection::by(introspector));
//! let builder = rotogate::Gate::builder().trusted_issuer(rules);
//! # let _ = builder;
//! # Ok(()) }
//! ```

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use zeroize::Zeroizing;

use rotogate_core::bounds::MAX_INTROSPECTION;
use rotogate_core::http_client::{ClientCredentials, FetchTarget, HttpClient, SecretPlace, retry_after};
use rotogate_core::introspection::{IntrospectionFault, Introspector};
use rotogate_core::oauth_error::OAuthError;
use rotogate_core::random::parts_digest;

mod kuzzle;

pub use kuzzle::{KuzzleIntrospector, KuzzleSecret, PREFIX as KUZZLE_PREFIX};

const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An introspection client over HTTP. The gate authenticates as a client of the issuer (RFC 6749 §2.3.1).
pub struct HttpIntrospector {
    client: HttpClient,
    endpoint: FetchTarget,
    credentials: ClientCredentials,
    identity: Box<[u8]>,
}

rotogate_core::debug_with!(HttpIntrospector { endpoint });

impl HttpIntrospector {
    /// Creates an introspector that authenticates with a client id and secret.
    pub fn new(client: HttpClient, endpoint: FetchTarget, client_id: &str, secret: &SecretString) -> Self {
        let secret = Some((secret.clone(), SecretPlace::Basic));
        Self::by(client, endpoint, ClientCredentials { secret, ..ClientCredentials::public(client_id) })
    }

    /// Creates an introspector that authenticates with these credentials.
    pub fn by(client: HttpClient, endpoint: FetchTarget, credentials: ClientCredentials) -> Self {
        let identity = Self::identity_of(&endpoint, &credentials);
        Self { client: client.with_max_size(MAX_INTROSPECTION), endpoint, credentials, identity }
    }

    fn identity_of(endpoint: &FetchTarget, credentials: &ClientCredentials) -> Box<[u8]> {
        let ClientCredentials { id, secret, assertions } = credentials;
        let (secret, place) = match secret {
            Some((secret, SecretPlace::Basic)) => (secret.expose_secret(), "basic".to_owned()),
            Some((secret, SecretPlace::Form)) => (secret.expose_secret(), "form".to_owned()),
            None => ("", format!("{assertions:?}")),
        };
        let endpoint = endpoint.to_string();
        parts_digest(&[endpoint.as_bytes(), id.as_bytes(), secret.as_bytes(), place.as_bytes()]).into()
    }
}

fn form(token: &str) -> Zeroizing<Vec<u8>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token).append_pair("token_type_hint", "access_token");
    Zeroizing::new(form.finish().into_bytes())
}

/// Returns the OAuth error in a response (RFC 6749 §5.2).
fn error_of(body: &[u8]) -> Option<OAuthError> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer.get("error")?.as_str().map(OAuthError::read)
}

/// Used when a server returns an error for an invalid token.
const INACTIVE: &[u8] = br#"{"active":false}"#;

#[async_trait]
impl Introspector for HttpIntrospector {
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault> {
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let mut body = form(token);
        if self.credentials.add_to(&mut headers, &mut body).is_none() {
            let what = "the `client_id`, secret or assertion has a character that HTTP does not allow";
            return Err(IntrospectionFault::new(IntrospectionFault::CLIENT_REFUSED, what));
        }
        let body = Bytes::copy_from_slice(&body);
        let sent = self.client.send(&self.endpoint, Method::POST, headers, body).await;
        let (head, body) = sent.map_err(|error| IntrospectionFault::new(error.word(), error))?.into_parts();
        let host = self.endpoint.host();
        let error = error_of(&body);
        let is_refused = match head.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            StatusCode::BAD_REQUEST => error == Some(OAuthError::Client),
            _ => false,
        };
        match head.status {
            StatusCode::OK => Ok(body),
            StatusCode::BAD_REQUEST if error == Some(OAuthError::Grant) => Ok(Bytes::from_static(INACTIVE)),
            status if is_refused => Err(IntrospectionFault::new(
                IntrospectionFault::CLIENT_REFUSED,
                format!(
                    "{host}: returned {status}: the gate's `client_id`, secret or key is wrong, or the client may \
                     not introspect tokens"
                ),
            )),
            status => Err(IntrospectionFault {
                retry_after: wait_of(&head.headers),
                of_asker: status != StatusCode::SERVICE_UNAVAILABLE,
                ..IntrospectionFault::new("status", format!("{host}: returned {status}"))
            }),
        }
    }

    fn identity(&self) -> Box<[u8]> {
        self.identity.clone()
    }
}

fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    Some(retry_after(headers)?.clamp(Duration::from_secs(1), MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn i20_the_client_is_form_encoded_before_it_is_basic() {
        let secret = SecretString::from("p:q &ü%+");
        let value = rotogate_core::http_client::basic("the gate:1", &secret).unwrap();
        let pair = STANDARD.decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(pair).unwrap(), "the+gate%3A1:p%3Aq+%26%C3%BC%25%2B");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("Basic"), "it does not print");
    }

    #[test]
    fn i20_a_token_cannot_add_a_parameter() {
        let body = form("a&token_type_hint=x=%26+~");
        assert_eq!(body.as_slice(), b"token=a%26token_type_hint%3Dx%3D%2526%2B%7E&token_type_hint=access_token");
        let secret = Some((SecretString::from("p&q=ü"), SecretPlace::Form));
        let credentials = ClientCredentials { secret, ..ClientCredentials::public("the gate") };
        let (mut headers, mut body) = (HeaderMap::new(), form("t"));
        credentials.add_to(&mut headers, &mut body).unwrap();
        let expected = b"token=t&token_type_hint=access_token&client_id=the+gate&client_secret=p%26q%3D%C3%BC";
        assert_eq!(body.as_slice(), expected);
    }

    #[test]
    fn i20_an_error_about_the_client_is_told_from_one_about_the_request() {
        assert_eq!(error_of(br#"{"error":"invalid_client","error_description":"no"}"#), Some(OAuthError::Client));
        assert_eq!(error_of(br#"{"error":"unauthorized_client"}"#), Some(OAuthError::Client));
        assert_eq!(error_of(br#"{"error":"invalid_token"}"#), Some(OAuthError::Grant));
        for other in [&b"{}"[..], b"<html>", br#"{"error":1}"#] {
            assert_eq!(error_of(other), None);
        }
    }

    #[test]
    fn a_server_may_ask_for_a_minute_at_most() {
        let said = |value| wait_of(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]));
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("0"), Some(Duration::from_secs(1)));
        assert_eq!(said("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(said("soon"), None);
    }
}
