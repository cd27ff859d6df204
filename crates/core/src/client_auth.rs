//! Authenticates the gate as a client of another server, with signed assertions (RFC 7523 §2.2). The audience comes
//! from the configuration, not from the other server's metadata. Otherwise a malicious server could use the assertion
//! at a third server (CVE-2025-27370).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::json;

use crate::clock::{SystemTime, TimeSource};
use crate::http_client::ClientAssertions;
use crate::token::algorithm::{Algorithm, Family};
use crate::token::keyring::error::KeyError;
use crate::token::keyring::{KeyMaterial, SigningKey};

const LIFETIME: Duration = Duration::from_secs(60);
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
    /// Loads a client's private key from PKCS #8 in PEM. By default, `kid` is the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    /// The string is not a key, or the key does not fit the algorithm.
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
        // Some servers refuse the type `client-authentication+jwt`.
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
