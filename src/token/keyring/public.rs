//! A key that verifies: ours, or one of an issuer that we trust.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};

use super::{Algorithm, KeyError, hmac_secret, install_provider};

/// The longest `kid` that we look up, in bytes (J3).
pub(crate) const MAX_KID: usize = 128;

/// A key that verifies signatures of exactly one algorithm. Does not print.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    signature_len: usize,
    /// `None` for a secret.
    public: Option<Jwk>,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// A public key in JWK form, bound to `algorithm`; its name is its `kid`, where it has one.
    ///
    /// # Errors
    /// The key is of another kind than the algorithm takes, is malformed or too weak: RSA under 2048 bits, a point that
    /// is not on the curve, an Ed25519 key of small order. `oct` keys never pass.
    pub fn from_jwk(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyError> {
        install_provider();
        let refuse = |why| KeyError::Unusable { algorithm, why };
        let signature_len = check(jwk, algorithm).map_err(refuse)?;
        let key = DecodingKey::from_jwk(jwk).map_err(|_| refuse("a malformed JWK"))?;
        let kid = jwk.common.key_id.as_deref().map(checked_kid).transpose()?;
        Ok(Self { kid, algorithm, key, signature_len, public: Some(jwk.clone()) })
    }

    /// A public key in PEM form (SubjectPublicKeyInfo, or PKCS #1 for RSA), bound to `algorithm`. It has no name.
    ///
    /// # Errors
    /// As [`VerifyingKey::from_jwk`]; and a PEM that holds something else, or more than one thing.
    pub fn from_public_pem(text: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        use super::super::algorithm::Family;
        install_provider();
        let refuse = |why| KeyError::Unusable { algorithm, why };
        let parts = pem::parse_many(text).map_err(|_| refuse("not a PEM file"))?;
        let [part] = parts.as_slice() else { return Err(refuse("a PEM file with one public key is needed")) };
        match part.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            "CERTIFICATE" => {
                return Err(refuse("a certificate; take the key out of it: openssl x509 -pubkey -noout -in FILE"));
            }
            _ => return Err(refuse("not a public key")),
        }
        let key = match algorithm.family() {
            Family::Edwards => DecodingKey::from_ed_pem(text),
            Family::Ecdsa => DecodingKey::from_ec_pem(text),
            Family::Rsa => DecodingKey::from_rsa_pem(text),
            Family::Hmac => return Err(KeyError::PublicAsSecret("a PEM file")),
        }
        .map_err(|_| refuse("the PEM file holds a key of another kind"))?;
        Self::from_decoding(&key, algorithm)
    }

    pub(super) fn from_decoding(key: &DecodingKey, algorithm: Algorithm) -> Result<Self, KeyError> {
        install_provider();
        let jwk = Jwk::from_decoding_key(key, Some(algorithm.jwt()))
            .map_err(|_| KeyError::Unusable { algorithm, why: "a malformed public key" })?;
        Self::from_jwk(&jwk, algorithm)
    }

    pub(super) fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        install_provider();
        hmac_secret::check(algorithm, secret)?;
        let key = DecodingKey::from_secret(secret);
        Ok(Self { kid: None, algorithm, key, signature_len: algorithm.hash_len(), public: None })
    }

    pub(super) fn named(mut self, kid: &str) -> Result<Self, KeyError> {
        self.kid = Some(checked_kid(kid)?);
        Ok(self)
    }

    /// Its name, where it has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm that it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many bytes each of its signatures has.
    pub(crate) fn signature_len(&self) -> usize {
        self.signature_len
    }

    /// Is `signature`, in base64url, one of this key over `message`?
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm.jwt()).unwrap_or(false)
    }

    /// The key's JWK thumbprint (RFC 7638, SHA-256); `None` for a secret.
    pub(super) fn thumbprint(&self) -> Option<String> {
        self.public.as_ref()?.thumbprint(ThumbprintHash::SHA256).ok()
    }

    /// The JWK that others may have; `None` for a secret.
    pub(in crate::token) fn published(&self) -> Option<Jwk> {
        let public = self.public.as_ref()?;
        let common = CommonParameters {
            public_key_use: Some(PublicKeyUse::Signature),
            key_algorithm: Some(self.algorithm.jwt().into()),
            key_id: self.kid.as_deref().map(str::to_owned),
            ..CommonParameters::default()
        };
        Some(Jwk { common, algorithm: public.algorithm.clone() })
    }
}

fn checked_kid(kid: &str) -> Result<Box<str>, KeyError> {
    let fits = (1..=MAX_KID).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(kid.into()) } else { Err(KeyError::BadKid) }
}

/// Checks key against algorithm; the length of a signature.
fn check(jwk: &Jwk, algorithm: Algorithm) -> Result<usize, &'static str> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "a malformed JWK");
    match (algorithm, &jwk.algorithm) {
        (Algorithm::EdDsa, AlgorithmParameters::OctetKeyPair(p)) if p.curve == EllipticCurve::Ed25519 => {
            let x: [u8; 32] = decode(&p.x)?.try_into().map_err(|_| "an Ed25519 key has 32 bytes")?;
            let point = ed25519_dalek::VerifyingKey::from_bytes(&x).map_err(|_| "not a point of the curve")?;
            // With such a key, one signature fits (nearly) every message.
            if point.is_weak() { Err("an Ed25519 key of small order") } else { Ok(64) }
        }
        (Algorithm::Es256, AlgorithmParameters::EllipticCurve(p)) if p.curve == EllipticCurve::P256 => {
            on_curve(&ECDSA_P256_SHA256_FIXED, &decode(&p.x)?, &decode(&p.y)?, 32)
        }
        (Algorithm::Es384, AlgorithmParameters::EllipticCurve(p)) if p.curve == EllipticCurve::P384 => {
            on_curve(&ECDSA_P384_SHA384_FIXED, &decode(&p.x)?, &decode(&p.y)?, 48)
        }
        (
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512,
            AlgorithmParameters::RSA(p),
        ) => {
            let (n, e) = (decode(&p.n)?, decode(&p.e)?);
            let n = n.get(n.iter().take_while(|b| **b == 0).count()..).unwrap_or_default();
            let bits = n.first().map_or(0, |b| n.len() * 8 - b.leading_zeros() as usize);
            if bits < 2048 {
                return Err("an RSA key must have at least 2048 bits");
            }
            RsaPublicKeyComponents { n, e: e.as_slice() }
                .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                .map_err(|_| "not an RSA key of 2048 to 8192 bits")?;
            Ok(n.len())
        }
        (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512, _) => Err("a public key is never an HMAC secret"),
        _ => Err("the key is of another kind than its algorithm takes"),
    }
}

fn on_curve(
    curve: &'static aws_lc_rs::signature::EcdsaVerificationAlgorithm,
    x: &[u8],
    y: &[u8],
    len: usize,
) -> Result<usize, &'static str> {
    if x.len() != len || y.len() != len {
        return Err("a coordinate of the wrong length");
    }
    ParsedPublicKey::new(curve, [&[4], x, y].concat()).map_err(|_| "not a point of the curve")?;
    Ok(2 * len)
}
