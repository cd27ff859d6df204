//! Performs checks 1 to 5 of the parent module (RFC 9449 §4.2).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Map, Value};

pub(crate) use crate::bounds::MAX_PROOF;
use crate::clock::Timestamp;
use crate::denial::ProofFlaw;
use crate::strict_json;
use crate::thumbprint::KeyThumbprint;
use crate::token::Algorithm;
use crate::token::keyring::VerifyingKey;

const MAX_JTI: usize = 256;
pub(crate) const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Es384, Algorithm::Rs256, Algorithm::Ps256];
/// The names of the accepted algorithms. `Ed25519` is another name for EdDSA with this curve (RFC 9864).
pub const ALGORITHM_NAMES: [&str; 6] = ["ES256", "EdDSA", ED25519, "ES384", "RS256", "PS256"];
const ED25519: &str = "Ed25519";
/// The public members of a JWK (RFC 7638 §3.2).
const PUBLIC: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// These header members change the signed content or encrypt the payload.
pub(super) const REFUSED: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// The requirements for a proof.
#[derive(Clone, Copy)]
pub struct Form {
    /// The `typ` in the header.
    pub typ: &'static str,
    /// The maximum length, in bytes.
    pub max_length: usize,
    /// The accepted algorithms, without HMAC.
    pub algorithms: &'static [Algorithm],
}

/// The `typ` of a DPoP proof.
pub const DPOP: &str = "dpop+jwt";

pub(crate) const OURS: Form = Form { typ: DPOP, max_length: MAX_PROOF, algorithms: &ALGORITHMS };

pub(super) struct ProofKey {
    pub(super) verifying: VerifyingKey,
    pub(super) thumbprint: KeyThumbprint,
}

enum ProofHeader {
    Known(Arc<ProofKey>),
    Read(Map<String, Value>),
}

impl ProofKey {
    fn from_header(mut header: Map<String, Value>, form: Form) -> Result<Self, ProofFlaw> {
        // 2. `typ`.
        if header.get("typ").and_then(Value::as_str) != Some(form.typ) {
            return Err(ProofFlaw::Type);
        }
        // 3. `alg`. No header member may change what is signed.
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return Err(ProofFlaw::Malformed("the header of the proof contains `crit`, `b64`, `zip` or `enc`"));
        }
        let named = header.get("alg").and_then(Value::as_str).and_then(|name| match name {
            ED25519 => Some(Algorithm::EdDsa),
            name => name.parse().ok(),
        });
        let algorithm = named.filter(|algorithm| form.algorithms.contains(algorithm)).ok_or(ProofFlaw::Algorithm)?;
        // 4. The key. `kid`, `x5c` and `jku` are ignored.
        let Some(Value::Object(mut jwk)) = header.remove("jwk") else { return Err(ProofFlaw::Key) };
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(ProofFlaw::Key);
        }
        jwk.retain(|name, _| PUBLIC.contains(&name.as_str()));
        let jwk: Jwk = serde_json::from_value(Value::Object(jwk)).map_err(|_| ProofFlaw::Key)?;
        let (verifying, thumbprint) = VerifyingKey::with_thumbprint(&jwk, algorithm).map_err(|_| ProofFlaw::Key)?;
        let thumbprint = KeyThumbprint::parse(&thumbprint).ok_or(ProofFlaw::Key)?;
        Ok(Self { verifying, thumbprint })
    }
}

/// A proof with a valid signature.
pub struct SignedProof<'a> {
    /// The thumbprint of the key.
    pub key: KeyThumbprint,
    /// The encoded header and its key, or `None` if the key was cached.
    pub(super) read: Option<(&'a str, Arc<ProofKey>)>,
    claims: Map<String, Value>,
}

impl<'a> SignedProof<'a> {
    /// Parses a proof, and then verifies its signature.
    ///
    /// # Errors
    /// The first failed check.
    pub fn read(proof: &'a str, form: Form) -> Result<Self, ProofFlaw> {
        Self::read_with(proof, form, |_| None)
    }

    /// `known` returns the cached key of a header that was already checked.
    ///
    /// # Errors
    /// The first failed check.
    pub(super) fn read_with(
        proof: &'a str,
        form: Form,
        known: impl FnOnce(&str) -> Option<Arc<ProofKey>>,
    ) -> Result<Self, ProofFlaw> {
        // 1. A compact JWT, parsed as strictly as a token.
        if proof.len() > form.max_length {
            return Err(ProofFlaw::Malformed("the proof is too long"));
        }
        let (message, signature) = proof.rsplit_once('.').ok_or(NOT_THREE)?;
        let (header, claims) = message.split_once('.').ok_or(NOT_THREE)?;
        if claims.contains('.') {
            return Err(NOT_THREE);
        }
        let header_of = match known(header) {
            Some(key) => ProofHeader::Known(key),
            None => ProofHeader::Read(object(header)?),
        };
        let (claims, signature) = (object(claims)?, decode(signature)?);
        // 2 to 4.
        let (key, read) = match header_of {
            ProofHeader::Known(key) => (key, None),
            ProofHeader::Read(members) => {
                let key = Arc::new(ProofKey::from_header(members, form)?);
                (Arc::clone(&key), Some((header, key)))
            }
        };
        // 5. The signature.
        let ProofKey { verifying, thumbprint } = &*key;
        if signature.len() != verifying.signature_len() || !verifying.verifies(message.as_bytes(), &signature) {
            return Err(ProofFlaw::Signature);
        }
        Ok(Self { key: *thumbprint, read, claims })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// The `htm` claim.
    pub fn method(&self) -> Option<&str> {
        self.text("htm")
    }

    /// The `htu` claim.
    pub fn url(&self) -> Option<&str> {
        self.text("htu")
    }

    /// The `iat` claim.
    pub fn issued_at(&self) -> Option<Timestamp> {
        match self.claims.get("iat")? {
            Value::Number(number) => Timestamp::from_numeric_date(number),
            _ => None,
        }
    }

    pub(crate) fn nonce(&self) -> Option<&str> {
        self.text("nonce")
    }

    pub(crate) fn token_hash(&self) -> Option<&str> {
        self.text("ath")
    }

    /// The `jti` claim, if it is a string of 1 to 256 bytes.
    pub fn id(&self) -> Option<&str> {
        self.text("jti").filter(|id| (1..=MAX_JTI).contains(&id.len()))
    }
}

const NOT_THREE: ProofFlaw = ProofFlaw::Malformed("the proof is not a JWT in compact form");

fn decode(part: &str) -> Result<Vec<u8>, ProofFlaw> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| ProofFlaw::Malformed("a part of the proof is not base64url"))
}

pub(super) fn object(part: &str) -> Result<Map<String, Value>, ProofFlaw> {
    strict_json::object(&decode(part)?)
        .map_err(|_| ProofFlaw::Malformed("a part of the proof is not a strict JSON object"))
}
