//! Keys of providers, and their signatures. The test makes both without the library, so the tokens do not come from the
//! judge itself.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key of a provider's kind.
pub(crate) enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

/// The signature of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// With the algorithm of the key: RS256 or ES256.
    AsDocumented,
    /// PS256: the same RSA key, another padding.
    Pss,
    /// HS256, whose secret is the public key.
    WithPublicKey,
    /// No signature.
    Not,
}

impl Key {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn p256() -> Self {
        Self::P256(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }

    /// Another key of the same kind.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Rsa(_) => Self::rsa(),
            Self::P256(_) => Self::p256(),
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
        }
    }

    /// The public key as a JWK with all that most providers write.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": encoded(&public.n), "e": encoded(&public.e) })
            }
            Self::P256(pair) => {
                // 0x04, and the two coordinates.
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) })
            }
        };
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk["kid"] = json!(kid);
        jwk
    }

    /// A token. The `alg` of its header matches the signature.
    pub(crate) fn token(&self, signed: Signed, mut header: Value, claims: &Value) -> String {
        header["alg"] = match (signed, self) {
            (Signed::AsDocumented, key) => json!(key.algorithm()),
            (Signed::Pss, _) => json!("PS256"),
            (Signed::WithPublicKey, _) => json!("HS256"),
            (Signed::Not, _) => json!("none"),
        };
        let text = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.sign(signed, text.as_bytes());
        format!("{text}.{}", encoded(&signature))
    }

    fn sign(&self, signed: Signed, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match (signed, self) {
            (Signed::Not, _) => Vec::new(),
            (Signed::WithPublicKey, _) => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, self.jwk("k").to_string().as_bytes());
                hmac::sign(&secret, text).as_ref().to_vec()
            }
            (_, Self::Rsa(pair)) => {
                let padding: &'static dyn RsaEncoding = match signed {
                    Signed::Pss => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, text, &mut signature).unwrap();
                signature
            }
            (_, Self::P256(pair)) => pair.sign(&random, text).unwrap().as_ref().to_vec(),
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
