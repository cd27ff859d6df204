//! Reading of published JWK sets. An unusable key does not affect the other keys.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use serde_json::Value;

use super::{
    Ignored, IgnoredCause, IssuerKeys, RulesError, algorithm_of, bound, entries, is_same, public_key, shown_kid,
};
pub use crate::bounds::MAX_KEYS;
use crate::token::algorithm::{Algorithm, Family};
use crate::token::keyring::VerifyingKey;

/// Members that only private keys have (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl IssuerKeys {
    /// Reads the usable keys of a published JWK set. A key without `alg` gets its algorithm from the key type. RSA keys
    /// without `alg` get the first RSA algorithm in `algorithms`, or RS256. A non-empty `algorithms` excludes keys for
    /// other algorithms.
    ///
    /// ```
    /// use rotogate::token::IssuerKeys;
    ///
    /// // Entra publishes its keys in this form, without `alg`.
    /// let set = br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
    ///     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    /// assert_eq!(IssuerKeys::from_published_jwks(set, &[])?.len(), 1);
    /// # Ok::<(), rotogate::token::RulesError>(())
    /// ```
    ///
    /// # Errors
    /// The input is not a JWK set, or it has more than 100 keys or no usable key.
    pub fn from_published_jwks(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, RulesError> {
        let entries = entries(text)?;
        if entries.len() > MAX_KEYS {
            return Err(RulesError::TooManyKeys(entries.len()));
        }
        let mut ignored = Vec::new();
        let mut usable: Vec<VerifyingKey> = Vec::new();
        for entry in entries {
            let kid = shown_kid(&entry);
            match published_key(entry, algorithms) {
                // A repeated entry for the same key is skipped.
                Ok(key) if usable.iter().any(|known| is_same(known, &key)) => {}
                Ok(key) => usable.push(key),
                Err((cause, why)) => ignored.push(Ignored { kid, cause, why }),
            }
        }
        let usable = without_ambiguous(usable, &mut ignored);
        Self::from_usable(usable, ignored)
    }
}

#[doc(hidden)]
impl IssuerKeys {
    /// The name and the algorithm of each key, for logs.
    pub fn describe(&self) -> Vec<String> {
        let kid = |key: &VerifyingKey| key.kid().unwrap_or("without kid").to_owned();
        let mut all: Vec<_> = self.all().map(|key| format!("{} ({})", kid(key), key.algorithm())).collect();
        all.sort();
        all
    }

    /// Returns the keys as a JWK set that [`IssuerKeys::from_published_jwks`] can read.
    pub fn to_jwks(&self) -> Value {
        serde_json::json!({ "keys": self.all().filter_map(VerifyingKey::published).collect::<Vec<_>>() })
    }
}

/// Drops all keys that share their name and algorithm with another key. Unnamed keys are kept.
fn without_ambiguous(usable: Vec<VerifyingKey>, ignored: &mut Vec<Ignored>) -> Vec<VerifyingKey> {
    let mut count: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let id = |key: &VerifyingKey| key.kid().map(|kid| (kid.to_owned(), key.algorithm().name()));
    for id in usable.iter().filter_map(id) {
        *count.entry(id).or_default() += 1;
    }
    let (kept, ambiguous): (Vec<_>, Vec<_>) =
        usable.into_iter().partition(|key| id(key).is_none_or(|id| count.get(&id) == Some(&1)));
    ignored.extend(ambiguous.iter().map(|key| Ignored {
        kid: key.kid().map(|kid| kid.chars().take(64).collect()),
        cause: IgnoredCause::Ambiguous,
        why: "another key has the same `kid` and algorithm, so neither key is used",
    }));
    kept
}

fn published_key(entry: Value, algorithms: &[Algorithm]) -> Result<VerifyingKey, (IgnoredCause, &'static str)> {
    let Some(members) = entry.as_object() else { return Err((IgnoredCause::Kind, "it is not an object")) };
    if members.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err((
            IgnoredCause::Secret,
            "it is a secret (`kty` is `oct`), but the set must contain only public keys",
        ));
    }
    if PRIVATE.iter().any(|name| members.contains_key(*name)) {
        return Err((IgnoredCause::Private, "it is a private key, but the set must contain only public keys"));
    }
    // A provider may publish key types that the library does not support yet.
    if let Some((cause, why)) = unknown_kind(members) {
        return Err((cause, why));
    }
    let malformed = |(cause, why)| match cause {
        IgnoredCause::Kind => (IgnoredCause::Unusable, "malformed"),
        _ => (cause, why),
    };
    let jwk = public_key(entry).map_err(malformed)?;
    let algorithm = match algorithm_of(&jwk)? {
        Some(given) => given,
        None => algorithm_by_kind(&jwk, algorithms).ok_or((IgnoredCause::Kind, "its key type is not supported"))?,
    };
    if !algorithms.is_empty() && !algorithms.contains(&algorithm) {
        return Err((IgnoredCause::Algorithm, "its algorithm differs from the configured algorithm"));
    }
    bound(&jwk, algorithm)
}

fn unknown_kind(members: &serde_json::Map<String, Value>) -> Option<(IgnoredCause, &'static str)> {
    let text = |name| members.get(name).and_then(Value::as_str);
    match (text("kty"), text("crv")) {
        // An encryption key is reported as such even if its type is unknown.
        _ if text("use").is_some_and(|usage| usage != "sig") => {
            Some((IgnoredCause::Use, "its `use` does not allow signatures"))
        }
        (Some("RSA"), _) | (Some("EC"), Some("P-256" | "P-384")) | (Some("OKP"), Some("Ed25519")) => None,
        _ => Some((IgnoredCause::Kind, "its key type or curve is not supported")),
    }
}

/// The algorithm for a key without `alg`. Each key has exactly one algorithm (J1).
fn algorithm_by_kind(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Algorithm> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            let rsa = algorithms.iter().find(|algorithm| algorithm.family() == Family::Rsa);
            Some(rsa.copied().unwrap_or(Algorithm::Rs256))
        }
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Some(Algorithm::Es256),
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P384 => Some(Algorithm::Es384),
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => Some(Algorithm::EdDsa),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
