//! Keys that sign. A key is parsed once, not for each signature.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use zeroize::{Zeroize, Zeroizing};

use super::super::algorithm::Family;
use super::super::typ::{ASSERTION_TYP, TYP};
use super::signature::KeySigner;
use super::{Algorithm, KeyError, VerifyingKey, encode, hmac_secret};
use crate::random::random;

/// The content of a key file: PKCS #8 in PEM, or an HMAC secret in base64url. Hidden from `Debug`, and zeroised
/// when dropped.
pub struct KeyMaterial(Zeroizing<Vec<u8>>);

crate::debug_with!(KeyMaterial);

impl KeyMaterial {
    /// Wraps the content of a key file.
    pub fn new(text: Vec<u8>) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Generates a random key. RSA keys have 2048 bits.
    ///
    /// # Errors
    /// The random source or the generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pkcs8 = match algorithm.family() {
            Family::Hmac => {
                let secret = random::<64>()?;
                let text = encode(secret.get(..algorithm.hash_len()).unwrap_or(secret.as_slice()));
                return Ok(Self::new(text.as_bytes().to_vec()));
            }
            Family::Edwards => Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())
                .map(|document| document.as_ref().to_vec())
                .map_err(|_| KeyError::Random)?,
            Family::Ecdsa => EcdsaKeyPair::generate_pkcs8(curve(algorithm), &SystemRandom::new())
                .map(|document| document.as_ref().to_vec())
                .map_err(|_| KeyError::Random)?,
            Family::Rsa => {
                let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).map_err(|_| KeyError::Random)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Random)?;
                der.as_ref().to_vec()
            }
        };
        let document = pem::Pem::new("PRIVATE KEY", pkcs8);
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&document, config).into_bytes();
        document.into_contents().zeroize();
        Ok(Self::new(text))
    }

    /// The private content.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A private key or secret of the gate, bound to one algorithm. Hidden from `Debug`, and erased when dropped.
pub struct SigningKey {
    signer: KeySigner,
    verifying: VerifyingKey,
    kid: Box<str>,
    pub(in crate::token) header: Box<str>,
    pub(in crate::token) assertion_header: Box<str>,
}

crate::debug_with!(SigningKey { kid, algorithm() });

impl SigningKey {
    /// Generates a key, with a `kid` as in [`SigningKey::from_material`].
    ///
    /// # Errors
    /// The random source or the generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        Self::from_material(algorithm, &KeyMaterial::generate(algorithm)?)
    }

    /// Parses the content of a key file. The `kid` is the JWK thumbprint (RFC 7638). For a secret it is random, because
    /// a thumbprint would reveal information.
    ///
    /// # Errors
    /// The content is not a key, or the key does not fit `algorithm`.
    pub fn from_material(algorithm: Algorithm, material: &KeyMaterial) -> Result<Self, KeyError> {
        let (signer, verifying) = parse(algorithm, material)?;
        let kid = match verifying.thumbprint() {
            Some(thumbprint) => thumbprint,
            None => URL_SAFE_NO_PAD.encode(random::<16>()?.as_slice()),
        };
        Self::assemble(signer, verifying, &kid)
    }

    /// Like [`SigningKey::from_material`], with this `kid`.
    ///
    /// # Errors
    /// The errors of [`SigningKey::from_material`], or a `kid` that is not 1 to 128 visible ASCII characters.
    pub fn from_material_named(algorithm: Algorithm, material: &KeyMaterial, kid: &str) -> Result<Self, KeyError> {
        let (signer, verifying) = parse(algorithm, material)?;
        Self::assemble(signer, verifying, kid)
    }

    fn assemble(signer: KeySigner, verifying: VerifyingKey, kid: &str) -> Result<Self, KeyError> {
        let verifying = verifying.named(kid)?;
        // The order of the members must never change. Only the `kid` needs JSON escapes.
        let algorithm = verifying.algorithm();
        let header = |typ| {
            let kid = serde_json::Value::from(kid);
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"{typ}","kid":{kid}}}"#)).into()
        };
        let [header, assertion_header] = [TYP, ASSERTION_TYP].map(header);
        Ok(Self { signer, verifying, kid: kid.into(), header, assertion_header })
    }

    /// The `kid` of the key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm()
    }

    /// The key that verifies this key's signatures.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Returns `None` if the cryptographic library fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.signer.sign(message)
    }
}

fn curve(algorithm: Algorithm) -> &'static EcdsaSigningAlgorithm {
    if algorithm == Algorithm::Es384 { &ECDSA_P384_SHA384_FIXED_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING }
}

fn parse(algorithm: Algorithm, material: &KeyMaterial) -> Result<(KeySigner, VerifyingKey), KeyError> {
    let padding: &'static dyn RsaEncoding = match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
            return VerifyingKey::from_secret(&hmac_secret::decode(algorithm, material.expose())?, algorithm);
        }
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8(&pkcs8(algorithm, material)?).map_err(|_| other_kind(algorithm))?;
            let public = DecodingKey::from_ed_der(pair.public_key().as_ref());
            return Ok((KeySigner::Edwards(pair), VerifyingKey::from_decoding(&public, algorithm)?));
        }
        Algorithm::Es256 | Algorithm::Es384 => {
            let pair = EcdsaKeyPair::from_pkcs8(curve(algorithm), &pkcs8(algorithm, material)?)
                .map_err(|_| other_kind(algorithm))?;
            let public = DecodingKey::from_ec_der(pair.public_key().as_ref());
            return Ok((KeySigner::Ecdsa(pair), VerifyingKey::from_decoding(&public, algorithm)?));
        }
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
    };
    let pair = RsaKeyPair::from_pkcs8(&pkcs8(algorithm, material)?).map_err(|_| KeyError::Unusable {
        algorithm,
        why: "the file contains a key of another kind, or an RSA key outside 2048 to 8192 bits",
    })?;
    let public = DecodingKey::from_rsa_der(pair.public_key().as_ref());
    Ok((KeySigner::Rsa(pair, padding), VerifyingKey::from_decoding(&public, algorithm)?))
}

fn other_kind(algorithm: Algorithm) -> KeyError {
    KeyError::Unusable { algorithm, why: "the file contains a key of another kind" }
}

fn pkcs8(algorithm: Algorithm, material: &KeyMaterial) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let refuse = |why| KeyError::Unusable { algorithm, why };
    let parts = pem::parse_many(material.expose()).map_err(|_| refuse("not a PEM file"))?;
    let [part]: [pem::Pem; 1] =
        parts.try_into().map_err(|_| refuse("a PEM file with one private key (PKCS #8) is needed"))?;
    let tag = part.tag().to_owned();
    let contents = Zeroizing::new(part.into_contents());
    match tag.as_str() {
        "PRIVATE KEY" => Ok(contents),
        "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
            Err(refuse("it is not in PKCS #8; convert it: openssl pkcs8 -topk8 -nocrypt -in FILE"))
        }
        "ENCRYPTED PRIVATE KEY" => Err(refuse("it is encrypted; decrypt it: openssl pkcs8 -in FILE")),
        _ => Err(refuse("not a private key")),
    }
}
