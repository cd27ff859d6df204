//! The tokens of a Kuzzle server, verified with the server's own secret.

use async_trait::async_trait;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rotogate_core::introspection::{IntrospectionFault, Introspector};
use rotogate_core::random::parts_digest;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::super::INACTIVE;
use super::{active, described};

/// The minimum length of the secret, in bytes (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;

/// Verifies the tokens of a Kuzzle server. The secret is used for nothing else, because everybody who has it can issue
/// tokens.
pub struct KuzzleSecret {
    key: DecodingKey,
    validation: Validation,
    identity: Box<[u8]>,
}

rotogate_core::debug_with!(KuzzleSecret);

impl KuzzleSecret {
    /// Creates a verifier from the server's secret.
    ///
    /// # Errors
    /// The secret has fewer than 32 bytes.
    pub fn new(secret: &SecretString) -> Result<Self, &'static str> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < MIN_SECRET {
            return Err("is too short; expected at least 32 bytes");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        // The gate checks the times of every introspected token. Kuzzle's tokens have no audience, and may have no end.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let identity = parts_digest(&[b"kuzzle-secret", secret]).into();
        Ok(Self { key: DecodingKey::from_secret(secret), validation, identity })
    }

    fn verified(&self, token: &str) -> Option<Bytes> {
        let jwt = token.strip_prefix("kauth-").or_else(|| token.strip_prefix("kapikey-"))?;
        let claims = decode::<Value>(jwt, &self.key, &self.validation).ok()?.claims;
        let kuid = claims.get("_id")?.as_str()?;
        let expires = match claims.get("exp") {
            None => None,
            Some(expires) => Some(expires.as_u64()?),
        };
        active(kuid, expires, claims.get("iat").and_then(Value::as_u64))
    }
}

#[async_trait]
impl Introspector for KuzzleSecret {
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault> {
        Ok(self.verified(token).unwrap_or(Bytes::from_static(INACTIVE)))
    }

    fn covers(&self, token: &str) -> bool {
        super::is_kuzzles(token)
    }

    fn described(&self, token: &str) -> Option<Bytes> {
        described(token)
    }

    fn identity(&self) -> Box<[u8]> {
        self.identity.clone()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of at least 32 bytes ...";

    fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn i77_only_a_token_that_the_secret_signed_is_active() {
        let own = KuzzleSecret::new(&SecretString::from(SECRET)).unwrap();
        let read = |token: &str| own.verified(token).map(|body| String::from_utf8(body.to_vec()).unwrap());
        let claims = json!({ "_id": "ada", "iat": 1_699_999_999, "exp": 1_700_000_000 });
        let active = r#"{"active":true,"exp":1700000000,"iat":1699999999,"sub":"ada"}"#;
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let jwt = signed(algorithm, SECRET, &claims);
            assert_eq!(read(&format!("kauth-{jwt}")).as_deref(), Some(active), "{algorithm:?}");
            assert_eq!(read(&jwt), None, "without a prefix");
            let other = signed(algorithm, "another secret of at least 32 bytes", &claims);
            assert_eq!(read(&format!("kauth-{other}")), None, "{algorithm:?}");
        }
        let endless = signed(Algorithm::HS256, SECRET, &json!({ "_id": "ada", "iat": 1_699_999_999 }));
        assert!(read(&format!("kapikey-{endless}")).is_some());
        let unsigned = ["eyJhbGciOiJub25lIn0", endless.split('.').nth(1).unwrap(), ""].join(".");
        for other in [
            unsigned,
            signed(Algorithm::HS256, SECRET, &json!({ "sub": "ada" })),
            signed(Algorithm::HS256, SECRET, &json!({ "_id": "-1" })),
            signed(Algorithm::HS256, SECRET, &json!({ "_id": "ada", "exp": "never" })),
            "x".to_owned(),
        ] {
            assert_eq!(read(&format!("kauth-{other}")), None, "{other}");
        }
        assert!(KuzzleSecret::new(&SecretString::from("a short secret of only 31 bytes")).is_err());
    }
}
