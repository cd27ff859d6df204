//! The key that signs security event tokens (RFC 8417) for receivers. The key is not in the key ring, so the gate
//! accepts no token that this key signed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::algorithm::Algorithm;
use super::keyring::{KeyError, KeyMaterial, SigningKey};
use super::mint::signed;

/// The RSA key of a transmitter.
pub struct EventKey {
    key: SigningKey,
    header: String,
}

crate::debug_with!(EventKey { key.kid() });

impl EventKey {
    /// The RSA key in this text (PKCS #8 in PEM): the interoperability profile of CAEP asks for RS256. The key's `kid`
    /// is its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// The text is not an RSA key.
    // Requirement S27.
    pub fn new(pem: &KeyMaterial) -> Result<Self, KeyError> {
        let key = SigningKey::from_material(Algorithm::Rs256, pem)?;
        let header = json!({ "alg": key.algorithm().name(), "typ": "secevent+jwt", "kid": key.kid() }).to_string();
        Ok(Self { key, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// A signed token of these claims. `None` if the cryptographic library fails.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        signed(&self.key, &self.header, &claims.to_string()).ok().map(|token| token.to_string())
    }

    /// The name of the key.
    pub fn kid(&self) -> &str {
        self.key.kid()
    }

    /// The public half, for a JWK set.
    pub fn published(&self) -> Value {
        serde_json::to_value(self.key.verifying_key().published()).unwrap_or_default()
    }
}
