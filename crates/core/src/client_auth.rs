//! Authentication of the gate as a client of another server, with assertions that the gate signs (RFC 7523 §2.2). The
//! gate proves that it has a key instead of sending a secret.
//!
//! The audience comes from the configuration, never from the other server's metadata. A malicious server could
//! otherwise name a third server in its metadata, and use the assertion at that server (CVE-2025-27370).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::json;

use crate::clock::{SystemTime, TimeSource};
use crate::http_client::ClientAssertions;
use crate::token::algorithm::{Algorithm, Family};
use crate::token::keyring::{KeyError, KeyMaterial, SigningKey};

/// The lifetime of an assertion. Each assertion is used for only one request.
const LIFETIME: Duration = Duration::from_secs(60);
/// The algorithms that are tried for a key file if the configuration does not name an algorithm.
const KINDS: [Algorithm; 4] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256];

/// The key with which the gate authenticates at another server.
pub struct ClientKey {
    client: Box<str>,
    audience: Box<str>,
    key: SigningKey,
    header: String,
}

crate::debug_with!(ClientKey { client, audience });

impl ClientKey {
    /// Loads the private key of the client with this id from PKCS #8 in PEM. By default, `kid` is the key's thumbprint
    /// (RFC 7638), and the algorithm is the usual one for this kind of key.
    ///
    /// # Errors
    /// The string is not a key, or the key does not fit the algorithm. A shared secret is never accepted.
    pub fn new(
        client: &str,
        audience: &str,
        pem: &KeyMaterial,
        (algorithm, kid): (Option<Algorithm>, Option<&str>),
    ) -> Result<Self, KeyError> {
        let load = |algorithm| match kid {
            Some(kid) => SigningKey::from_material_named(algorithm, pem, kid),
            None => SigningKey::from_material(algorithm, pem),
        };
        let key = match algorithm.filter(|algorithm| algorithm.family() != Family::Hmac) {
            Some(algorithm) => load(algorithm)?,
            None => {
                let mut tried = KINDS.into_iter().map(load);
                let first = tried.next().unwrap_or(Err(KeyError::Random));
                tried.fold(first, |found, other| found.or(other))?
            }
        };
        // `JWT` is the most widely accepted type. Some servers refuse the specific type for client assertions.
        let header = json!({ "alg": key.algorithm().name(), "typ": "JWT", "kid": key.kid() }).to_string();
        Ok(Self { client: client.into(), audience: audience.into(), key, header: URL_SAFE_NO_PAD.encode(header) })
    }
}

impl ClientAssertions for ClientKey {
    // Requirement D24.
    fn assertion(&self) -> Option<SecretString> {
        let now = SystemTime::new().wall();
        let claims = json!({
            "iss": self.client,
            "sub": self.client,
            "aud": self.audience,
            "iat": now.as_secs(),
            "exp": now.plus(LIFETIME).as_secs(),
            "jti": uuid::Builder::from_random_bytes(*crate::random::random().ok()?).into_uuid(),
        });
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes())?;
        Some(SecretString::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::clock::Timestamp;
    use crate::token::verify::{IssuerKeys, Keys, SentClientAssertion};

    #[test]
    fn d24_an_assertion_of_the_gate_is_one_that_the_gate_takes() {
        for algorithm in KINDS {
            let pem = KeyMaterial::generate(algorithm).unwrap();
            let key = ClientKey::new("gate", "https://idp.test", &pem, (None, None)).unwrap();
            let jwks = json!({ "keys": [key.key.verifying_key().published().unwrap()] }).to_string();
            let keys = Keys::Live(IssuerKeys::from_jwks(jwks.as_bytes(), None).unwrap().into());
            let sent = |audience: &str, token: &SecretString| {
                let sent = SentClientAssertion {
                    client: "gate",
                    keys: &keys,
                    audience: &[audience],
                    token: token.expose_secret(),
                    leeway: Duration::ZERO,
                };
                let now = SystemTime::new().wall();
                sent.verify(Timestamp::ZERO, now).map(|once| (once.id, once.until.since(now) <= LIFETIME))
            };
            let (one, other) = (key.assertion().unwrap(), key.assertion().unwrap());
            let (first, second) = (sent("https://idp.test", &one).unwrap(), sent("https://idp.test", &other).unwrap());
            assert!(first.1 && first.0 != second.0, "{algorithm}");
            assert!(sent("https://other.test", &one).is_err());
        }
        let secret = KeyMaterial::generate(Algorithm::Hs256).unwrap();
        assert!(ClientKey::new("gate", "x", &secret, (Some(Algorithm::Hs256), None)).is_err());
    }
}
