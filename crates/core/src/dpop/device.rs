//! Proofs of a browser's device (Device Bound Session Credentials). A proof is a JWT of the type `dbsc+jwt` whose `jti`
//! is a challenge of the gate. The first proof contains the public key. Later proofs are signed with the recorded key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, Jwk,
    RSAKeyParameters, RSAKeyType,
};
use serde_json::Value;

use super::proof::{Form, MAX_PROOF, ProofKey, REFUSED, SignedProof, object};
use crate::denial::ProofFlaw;
use crate::session::{DeviceBinding, DeviceKey};
use crate::thumbprint::KeyThumbprint;
use crate::token::Algorithm;
use crate::token::keyring::VerifyingKey;

/// The accepted algorithms.
pub const ALGORITHMS: &str = "ES256 RS256";
const FORM: Form = Form { typ: "dbsc+jwt", max_length: MAX_PROOF, algorithms: &[Algorithm::Es256, Algorithm::Rs256] };
const MAX_RSA: usize = 290;

/// The content of a proof that contains its key.
#[derive(Debug)]
pub struct Registration {
    /// The public key.
    pub key: DeviceKey,
    /// The thumbprint of the public key.
    pub thumbprint: KeyThumbprint,
    /// The challenge in the proof.
    pub challenge: String,
}

/// Parses a string. Chromium sends the value without quotes.
pub fn sent_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let text = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';');
    (!text.is_empty() && text.bytes().all(is_plain)).then_some(text)
}

/// Verifies a proof that contains its key.
///
/// # Errors
/// The first check that the proof fails.
// Requirement B47.
pub fn read_registration(proof: &str) -> Result<Registration, ProofFlaw> {
    let signed = SignedProof::read(proof, FORM)?;
    let verifying = signed.read.as_ref().map(|(_, key)| &key.verifying);
    let key = verifying.and_then(VerifyingKey::jwk).and_then(key_of).ok_or(ProofFlaw::Key)?;
    let challenge = signed.id().ok_or(ProofFlaw::Id)?.to_owned();
    Ok(Registration { key, thumbprint: signed.key, challenge })
}

/// Verifies a later proof with the recorded key, and returns the challenge in the proof. The proof must not contain a
/// key.
///
/// # Errors
/// The first check that the proof fails.
// Requirement B49.
pub fn read_refresh(proof: &str, device: &DeviceBinding) -> Result<String, ProofFlaw> {
    if proof.len() > FORM.max_length {
        return Err(ProofFlaw::Malformed("the proof is too long"));
    }
    let header = object(proof.split('.').next().unwrap_or_default())?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let (algorithm, jwk) = jwk_of(&device.key);
    if text("typ") != Some(FORM.typ) {
        return Err(ProofFlaw::Type);
    }
    if text("alg") != Some(algorithm.name()) {
        return Err(ProofFlaw::Algorithm);
    }
    if header.contains_key("jwk") || REFUSED.iter().any(|name| header.contains_key(*name)) {
        return Err(ProofFlaw::Key);
    }
    let verifying = VerifyingKey::from_jwk(&jwk, algorithm).map_err(|_| ProofFlaw::Key)?;
    let key = Arc::new(ProofKey { verifying, thumbprint: device.thumbprint });
    let signed = SignedProof::read_with(proof, FORM, |_| Some(key))?;
    signed.id().map(str::to_owned).ok_or(ProofFlaw::Id)
}

/// Returns `None` if the key is too long for a record.
fn key_of(jwk: &Jwk) -> Option<DeviceKey> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(point) => {
            Some(DeviceKey::Es256 { x: decode(&point.x)?.try_into().ok()?, y: decode(&point.y)?.try_into().ok()? })
        }
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (decode(&rsa.n)?, decode(&rsa.e)?);
            (n.len() + e.len() <= MAX_RSA).then(|| DeviceKey::Rs256 { n: n.into(), e: e.into() })
        }
        _ => None,
    }
}

fn jwk_of(key: &DeviceKey) -> (Algorithm, Jwk) {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (named, algorithm) = match key {
        DeviceKey::Es256 { x, y } => {
            let (key_type, curve) = (EllipticCurveKeyType::EC, EllipticCurve::P256);
            let point = EllipticCurveKeyParameters { key_type, curve, x: encode(x), y: encode(y) };
            (Algorithm::Es256, AlgorithmParameters::EllipticCurve(point))
        }
        DeviceKey::Rs256 { n, e } => {
            let rsa = RSAKeyParameters { key_type: RSAKeyType::RSA, n: encode(n), e: encode(e) };
            (Algorithm::Rs256, AlgorithmParameters::RSA(rsa))
        }
    };
    (named, Jwk { common: CommonParameters::default(), algorithm })
}
