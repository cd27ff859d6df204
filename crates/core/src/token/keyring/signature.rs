//! Signatures by aws-lc-rs, with keys that are parsed only once.
//!
//! `jsonwebtoken` would parse the key for each signature, because its signers are not `Send` and cannot be stored. A
//! new RS256 token would cost 22.2 us instead of 16.6 (`cargo bench --bench layer`). The provider of `jsonwebtoken` is
//! installed only for key formats and thumbprints.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, ParsedPublicKey, RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
};

use super::Algorithm;

#[derive(Clone)]
pub(super) enum KeyVerifier {
    Public(Arc<ParsedPublicKey>),
    Secret(Arc<hmac::Key>),
}

impl KeyVerifier {
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

pub(super) enum KeySigner {
    Edwards(Ed25519KeyPair),
    /// The signatures have a fixed length (RFC 7518 §3.4).
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Secret(Arc<hmac::Key>),
}

impl KeySigner {
    /// Returns `None` if the cryptographic library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Edwards(pair) => pair.try_sign(message).ok().map(|signature| signature.as_ref().to_vec()),
            Self::Ecdsa(pair) => {
                pair.sign(&SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Self::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &SystemRandom::new(), message, &mut signature).ok().map(|()| signature)
            }
            Self::Secret(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
        }
    }
}

/// Returns `None` unless the key has 2048 to 8192 bits.
pub(super) fn rsa_verifier(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<KeyVerifier> {
    let parameters: &'static RsaParameters = match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    };
    let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()?;
    Some(KeyVerifier::Public(Arc::new(key)))
}

/// An ECDSA point must be uncompressed. Returns `None` if the key is invalid.
pub(super) fn point_verifier(algorithm: Algorithm, point: &[u8]) -> Option<KeyVerifier> {
    let key = match algorithm {
        Algorithm::Es256 => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point),
        Algorithm::Es384 => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point),
        Algorithm::EdDsa => ParsedPublicKey::new(&signature::ED25519, point),
        _ => return None,
    };
    Some(KeyVerifier::Public(Arc::new(key.ok()?)))
}

/// Returns `None` if the algorithm is not HMAC.
pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Option<(KeySigner, KeyVerifier)> {
    let hash = match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    };
    let secret = Arc::new(hmac::Key::new(hash, secret));
    Some((KeySigner::Secret(Arc::clone(&secret)), KeyVerifier::Secret(secret)))
}
