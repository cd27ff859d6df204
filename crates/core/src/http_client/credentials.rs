//! The gate's credentials at other servers (RFC 6749 §2.3.1).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The gate as a client of a provider.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The id of the client.
    pub id: String,
    /// The client's secret, and the part of a request that contains the secret.
    pub secret: Option<(SecretString, SecretPlace)>,
    /// Creates the assertions that replace the secret (RFC 7523 §2.2).
    pub assertions: Option<Arc<dyn ClientAssertions>>,
}

/// Creates the assertions with which the gate authenticates (RFC 7523 §2.2).
pub trait ClientAssertions: fmt::Debug + Send + Sync {
    /// Returns a new assertion, or `None` if the key cannot sign.
    fn assertion(&self) -> Option<SecretString>;
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where a request carries the client's secret (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretPlace {
    /// The secret is sent in the header `Authorization`, as HTTP Basic credentials.
    #[default]
    Basic,
    /// The secret is sent in the form, as the parameter `client_secret`.
    Form,
}

impl ClientCredentials {
    /// Creates a client without a secret.
    pub fn public(id: impl Into<String>) -> Self {
        Self { id: id.into(), secret: None, assertions: None }
    }

    /// Whether the client's id is sent in the form instead of in a header.
    pub fn is_in_form(&self) -> bool {
        self.assertions.is_some() || !matches!(self.secret, Some((_, SecretPlace::Basic)))
    }

    /// Adds the credentials to a request with a form. `None` if the credentials cannot be encoded, or the key cannot
    /// sign.
    pub fn add_to(&self, headers: &mut HeaderMap, body: &mut Zeroizing<Vec<u8>>) -> Option<()> {
        let mut pairs = Vec::new();
        let assertion = match &self.assertions {
            Some(assertions) => Some(assertions.assertion()?),
            None => None,
        };
        match (&assertion, &self.secret) {
            (Some(assertion), _) => pairs.extend([
                ("client_id", self.id.as_str()),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", assertion.expose_secret()),
            ]),
            (None, Some((secret, SecretPlace::Basic))) => {
                headers.insert(AUTHORIZATION, basic(&self.id, secret)?);
            }
            (None, Some((secret, SecretPlace::Form))) => {
                pairs.extend([("client_id", self.id.as_str()), ("client_secret", secret.expose_secret())]);
            }
            (None, None) => pairs.push(("client_id", self.id.as_str())),
        }
        if !pairs.is_empty() {
            let added = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            let added = Zeroizing::new(added);
            // Reserve the whole capacity, because a reallocation would leave a copy of the secret in memory.
            let mut whole = Zeroizing::new(Vec::with_capacity(body.len() + 1 + added.len()));
            whole.extend_from_slice(body);
            whole.push(b'&');
            whole.extend_from_slice(added.as_bytes());
            *body = whole;
        }
        Some(())
    }
}

/// The value of `Authorization` for HTTP Basic. Both parts are form-encoded, because either may contain a colon.
pub fn basic(id: &str, secret: &SecretString) -> Option<HeaderValue> {
    let encoded = |text: &str| Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    let pair = Zeroizing::new(format!("{}:{}", *encoded(id), *encoded(secret.expose_secret())));
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
