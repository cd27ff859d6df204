//! Signatures through the traits of `jsonwebtoken`, [`JwtSigner`] and [`JwtVerifier`], with keys that are parsed once.
//!
//! The library's own implementations cannot be kept with a key: they are not `Send`, and those for RSA and for public
//! keys parse the key again for each signature: a new RS256 token then costs 22.2 us instead of 16.6 (`cargo bench
//! --bench layer`). Both use aws-lc-rs. These types are not registered as the provider of the process, because all
//! users of `jsonwebtoken` share the provider: the library's own provider is installed for key formats and thumbprints,
//! unless the application has installed a provider.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, ParsedPublicKey, RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
};
use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::signature::{Error, Signer, Verifier};

use super::Algorithm;

/// Verifies signatures of one algorithm with one key.
pub(super) type KeyVerifier = Arc<dyn JwtVerifier + Send + Sync>;
/// Signs with one key in one algorithm.
pub(super) type KeySigner = Box<dyn JwtSigner + Send + Sync>;

/// A public key.
struct PublicKey(ParsedPublicKey, Algorithm);

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Error> {
        self.0.verify_sig(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.1.jwt()
    }
}

/// A shared secret, which signs and verifies.
#[derive(Clone)]
struct Secret(hmac::Key, Algorithm);

impl Verifier<Vec<u8>> for Secret {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Secret {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.1.jwt()
    }
}

impl Signer<Vec<u8>> for Secret {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for Secret {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.1.jwt()
    }
}

/// A pair of keys.
enum Pair {
    Edwards(Ed25519KeyPair),
    /// An ECDSA key pair, whose signatures have a fixed length (RFC 7518 §3.4).
    Ecdsa(EcdsaKeyPair),
    /// A pair with its padding.
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

struct PrivateKey(Pair, Algorithm);

impl Signer<Vec<u8>> for PrivateKey {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.0 {
            Pair::Edwards(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &SystemRandom::new(), message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| Error::new())
    }
}

impl JwtSigner for PrivateKey {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.1.jwt()
    }
}

/// A public RSA key from its modulus and exponent. `None` unless the key has 2048 to 8192 bits.
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
    Some(Arc::new(PublicKey(key, algorithm)))
}

/// A public key of ECDSA, as an uncompressed point, or of Ed25519. `None` if it is not a point of the curve.
pub(super) fn point_verifier(algorithm: Algorithm, point: &[u8]) -> Option<KeyVerifier> {
    let key = match algorithm {
        Algorithm::Es256 => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point),
        Algorithm::Es384 => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point),
        Algorithm::EdDsa => ParsedPublicKey::new(&signature::ED25519, point),
        _ => return None,
    };
    Some(Arc::new(PublicKey(key.ok()?, algorithm)))
}

/// An HMAC secret. `None` for another algorithm.
pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Option<(KeySigner, KeyVerifier)> {
    let hash = match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    };
    let secret = Secret(hmac::Key::new(hash, secret), algorithm);
    Some((Box::new(secret.clone()), Arc::new(secret)))
}

pub(super) fn edwards_signer(pair: Ed25519KeyPair) -> KeySigner {
    Box::new(PrivateKey(Pair::Edwards(pair), Algorithm::EdDsa))
}

pub(super) fn ecdsa_signer(algorithm: Algorithm, pair: EcdsaKeyPair) -> KeySigner {
    Box::new(PrivateKey(Pair::Ecdsa(pair), algorithm))
}

pub(super) fn rsa_signer(algorithm: Algorithm, pair: RsaKeyPair, padding: &'static dyn RsaEncoding) -> KeySigner {
    Box::new(PrivateKey(Pair::Rsa(pair, padding), algorithm))
}
