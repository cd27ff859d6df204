//! Another issuer, whose tokens are made here.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

pub(crate) const URL: &str = "https://idp.test/";

/// The issuer, with its key.
pub(crate) struct Issuer(SigningKey);

impl Issuer {
    pub(crate) fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    /// The public key, as JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.0.verifying_key().as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig" })
    }

    /// The public key, as PEM (RFC 8410).
    pub(crate) fn pem(&self) -> String {
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend(self.0.verifying_key().as_bytes());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// The private key, as PEM (RFC 8410).
    pub(crate) fn private_pem(&self) -> String {
        let mut der =
            vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        der.extend(self.0.to_bytes());
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    /// Signs any header and claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// Signs any bytes, even if they are not JSON.
    pub(crate) fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of an assertion that the gate signed with this key, for `audience`: it lasts a minute (A4).
    pub(crate) fn proved(&self, assertion: &str, client: &str, audience: &str) -> Value {
        let parts: Vec<_> = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(self.sign_bytes(&parts[0], &parts[1]), assertion, "another key signed it");
        let said: Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!([&said["iss"], &said["sub"], &said["aud"]], [client, client, audience], "{said}");
        assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 60, "{said}");
        said
    }

    /// A token that is good, with some claims changed (`null` takes one away).
    pub(crate) fn token(&self, changes: &Value) -> String {
        self.sign(&header(), &claims(changes))
    }
}

pub(crate) fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k1" })
}

/// Good claims, with changes.
pub(crate) fn claims(changes: &Value) -> Value {
    #[expect(clippy::disallowed_methods, reason = "another issuer has a clock of its own")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": URL, "aud": "api", "sub": "user-1", "jti": "t-1", "iat": now, "exp": now + 600,
        "client_id": "their-client", "scope": "read write",
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}
