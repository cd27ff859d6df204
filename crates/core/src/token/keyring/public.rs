//! Keys that verify signatures, of the gate and of trusted issuers.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};

use super::super::algorithm::Family;
use super::signature::{KeySigner, KeyVerifier, point_verifier, rsa_verifier, secret};
use super::{Algorithm, KeyError, hmac_secret, install_provider};
pub(crate) use crate::bounds::MAX_KID;

/// A key that verifies signatures of exactly one algorithm. Hidden from `Debug`.
#[derive(Clone)]
pub struct VerifyingKey {
    identity: Arc<KeyIdentity>,
    algorithm: Algorithm,
    verifier: KeyVerifier,
    signature_len: usize,
    /// A secret does not have a JWK.
    public: Option<Jwk>,
}

/// The identity of a key. All tokens that the key verified share one value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyIdentity {
    pub(crate) kid: Option<Box<str>>,
    pub(crate) print: KeyPrint,
}

/// A digest of a key and its algorithm, which identifies the key independently of its `kid`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPrint([u8; 32]);

impl KeyPrint {
    /// Introspected tokens have no key.
    pub(crate) const NONE: Self = Self([0; 32]);

    fn of_public(thumbprint: &str, algorithm: Algorithm) -> Self {
        Self::from_digest(&digest::digest(&digest::SHA256, format!("{algorithm} {thumbprint}").as_bytes()))
    }

    /// The HMAC of a string that is never a token. Its digest does not reveal the secret.
    fn of_secret(key: &KeySigner, algorithm: Algorithm) -> Option<Self> {
        let tag = key.sign(format!("rotogate: which key is this? {algorithm}").as_bytes())?;
        Some(Self::from_digest(&digest::digest(&digest::SHA256, &tag)))
    }

    fn from_digest(digest: &digest::Digest) -> Self {
        let mut print = [0; 32];
        print.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(print)
    }
}

crate::debug_with!(KeyPrint);

crate::debug_with!(VerifyingKey { identity.kid, algorithm });

impl VerifyingKey {
    /// Creates a key from a public JWK, bound to `algorithm`.
    ///
    /// # Errors
    /// The key does not fit the algorithm, is malformed, or is too weak. An RSA key must have at least 2048 bits. A
    /// point must be on the curve, and an Ed25519 key must not have a small order. `oct` keys are never accepted.
    pub fn from_jwk(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyError> {
        Self::with_thumbprint(jwk, algorithm).map(|(key, _)| key)
    }

    /// The key and its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// The errors of [`VerifyingKey::from_jwk`].
    pub(crate) fn with_thumbprint(jwk: &Jwk, algorithm: Algorithm) -> Result<(Self, String), KeyError> {
        install_provider();
        let refuse = |why| KeyError::Unusable { algorithm, why };
        let (verifier, signature_len) = parse(jwk, algorithm).map_err(refuse)?;
        let kid = jwk.common.key_id.as_deref().map(checked_kid).transpose()?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| refuse("a malformed JWK"))?;
        let print = KeyPrint::of_public(&thumbprint, algorithm);
        let identity = Arc::new(KeyIdentity { kid, print });
        Ok((Self { identity, algorithm, verifier, signature_len, public: Some(jwk.clone()) }, thumbprint))
    }

    /// Creates a key from a PEM public key (SubjectPublicKeyInfo, or PKCS #1 for RSA), bound to `algorithm`. The key
    /// has no `kid`.
    ///
    /// # Errors
    /// The errors of [`VerifyingKey::from_jwk`], or the PEM does not contain exactly one public key.
    pub fn from_public_pem(text: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        install_provider();
        let refuse = |why| KeyError::Unusable { algorithm, why };
        let parts = pem::parse_many(text).map_err(|_| refuse("not a PEM file"))?;
        let [part] = parts.as_slice() else { return Err(refuse("a PEM file with one public key is needed")) };
        match part.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            "CERTIFICATE" => {
                return Err(refuse(
                    "it is a certificate; extract its public key: openssl x509 -pubkey -noout -in FILE",
                ));
            }
            _ => return Err(refuse("not a public key")),
        }
        let key = match algorithm.family() {
            Family::Edwards => DecodingKey::from_ed_pem(text),
            Family::Ecdsa => DecodingKey::from_ec_pem(text),
            Family::Rsa => DecodingKey::from_rsa_pem(text),
            Family::Hmac => return Err(KeyError::PublicAsSecret("a PEM file")),
        }
        .map_err(|_| refuse("the PEM file contains a key of another kind"))?;
        Self::from_decoding(&key, algorithm)
    }

    pub(super) fn from_decoding(key: &DecodingKey, algorithm: Algorithm) -> Result<Self, KeyError> {
        install_provider();
        let jwk = Jwk::from_decoding_key(key, Some(algorithm.jwt()))
            .map_err(|_| KeyError::Unusable { algorithm, why: "a malformed public key" })?;
        Self::from_jwk(&jwk, algorithm)
    }

    pub(super) fn from_secret(text: &[u8], algorithm: Algorithm) -> Result<(KeySigner, Self), KeyError> {
        hmac_secret::check(algorithm, text)?;
        let refuse = |why| KeyError::Unusable { algorithm, why };
        let (signer, verifier) =
            secret(algorithm, text).ok_or_else(|| refuse("a secret can be used only with HMAC"))?;
        let print = KeyPrint::of_secret(&signer, algorithm)
            .ok_or_else(|| refuse("the cryptographic library cannot sign with it"))?;
        let signature_len = algorithm.hash_len();
        let identity = Arc::new(KeyIdentity { kid: None, print });
        Ok((signer, Self { identity, algorithm, verifier, signature_len, public: None }))
    }

    pub(super) fn named(mut self, kid: &str) -> Result<Self, KeyError> {
        self.identity = Arc::new(KeyIdentity { kid: Some(checked_kid(kid)?), print: self.identity.print });
        Ok(self)
    }

    /// The `kid` of the key.
    pub fn kid(&self) -> Option<&str> {
        self.identity.kid.as_deref()
    }

    pub(in crate::token) fn identity(&self) -> &Arc<KeyIdentity> {
        &self.identity
    }

    /// The fingerprint of the key.
    pub fn print(&self) -> KeyPrint {
        self.identity.print
    }

    /// The only algorithm that the key accepts.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn signature_len(&self) -> usize {
        self.signature_len
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier.verifies(message, signature)
    }

    /// Returns the SHA-256 thumbprint of RFC 7638, or `None` for a secret.
    pub(super) fn thumbprint(&self) -> Option<String> {
        self.public.as_ref()?.thumbprint(ThumbprintHash::SHA256).ok()
    }

    pub(crate) fn jwk(&self) -> Option<&Jwk> {
        self.public.as_ref()
    }

    pub(crate) fn published(&self) -> Option<Jwk> {
        let public = self.public.as_ref()?;
        let common = CommonParameters {
            public_key_use: Some(PublicKeyUse::Signature),
            key_algorithm: Some(self.algorithm.jwt().into()),
            key_id: self.kid().map(str::to_owned),
            ..CommonParameters::default()
        };
        Some(Jwk { common, algorithm: public.algorithm.clone() })
    }
}

fn checked_kid(kid: &str) -> Result<Box<str>, KeyError> {
    let fits = (1..=MAX_KID).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(kid.into()) } else { Err(KeyError::BadKid) }
}

fn parse(jwk: &Jwk, algorithm: Algorithm) -> Result<(KeyVerifier, usize), &'static str> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "a malformed JWK");
    match (algorithm.family(), &jwk.algorithm) {
        (Family::Rsa, AlgorithmParameters::RSA(p)) => {
            let (n, e) = (decode(&p.n)?, decode(&p.e)?);
            let n = n.get(n.iter().take_while(|b| **b == 0).count()..).unwrap_or_default();
            let bits = n.first().map_or(0, |b| n.len() * 8 - b.leading_zeros() as usize);
            if bits < 2048 {
                return Err("an RSA key must have at least 2048 bits");
            }
            let key = rsa_verifier(algorithm, n, &e).ok_or("not an RSA key of 2048 to 8192 bits")?;
            Ok((key, n.len()))
        }
        (Family::Ecdsa, AlgorithmParameters::EllipticCurve(p)) => {
            let (curve, len) = match algorithm {
                Algorithm::Es384 => (EllipticCurve::P384, 48),
                _ => (EllipticCurve::P256, 32),
            };
            if p.curve != curve {
                return Err(OF_ANOTHER_KIND);
            }
            let (x, y) = (decode(&p.x)?, decode(&p.y)?);
            if x.len() != len || y.len() != len {
                return Err("a coordinate of the wrong length");
            }
            let key =
                point_verifier(algorithm, &[&[4], x.as_slice(), &y].concat()).ok_or("not a point of the curve")?;
            Ok((key, 2 * len))
        }
        (Family::Edwards, AlgorithmParameters::OctetKeyPair(p)) if p.curve == EllipticCurve::Ed25519 => {
            let x: [u8; 32] = decode(&p.x)?.try_into().map_err(|_| "an Ed25519 key has 32 bytes")?;
            if is_small_order(&x) {
                // With such a key, one signature is valid for (nearly) every message.
                return Err("an Ed25519 key of small order");
            }
            Ok((point_verifier(algorithm, &x).ok_or("not a point of the curve")?, 64))
        }
        (Family::Hmac, _) => Err("a public key cannot be used as an HMAC secret"),
        (Family::Rsa | Family::Ecdsa | Family::Edwards, _) => Err(OF_ANOTHER_KIND),
    }
}

const OF_ANOTHER_KIND: &str = "the key is not of the kind that its algorithm requires";

/// Seven values of `y` encode the eight points of small order. RFC 8032 §5.1.7 does not require this check.
fn is_small_order(key: &[u8; 32]) -> bool {
    // 0, 1, two values of order 8, -1, and 0 and 1 plus the prime.
    const Y: [[u8; 32]; 7] = {
        const fn around_prime(first: u8) -> [u8; 32] {
            let mut y = [0xff; 32];
            y[0] = first;
            y[31] = 0x7f;
            y
        }
        let mut one = [0; 32];
        one[0] = 1;
        [
            [0; 32],
            one,
            *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
            *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
            around_prime(0xec),
            around_prime(0xed),
            around_prime(0xee),
        ]
    };
    let mut y = *key;
    y[31] &= 0x7f;
    Y.contains(&y)
}
