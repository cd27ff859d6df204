//! The keys that verify an issuer's tokens, from a JWK set or a PEM file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde_json::Value;

use super::TokenRefusal;
use super::rules::{IssuerRules, RulesError};
use super::shape::TokenParts;
pub use crate::bounds::{MAX_JWKS, MAX_TRIED};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::strict_json;
use crate::token::algorithm::Algorithm;
use crate::token::keyring::error::KeyError;
use crate::token::keyring::{KeyPrint, Keyring, VerifyingKey};
use crate::token::live_keys::{LiveKeys, PresentKeys};

mod newer;
mod published;

pub(super) use newer::NewerKeys;

pub use published::MAX_KEYS;

type KeysByName = HashMap<Box<str>, VerifyingKey, foldhash::quality::RandomState>;

/// A key of a JWK set that the gate does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ignored {
    /// The truncated and escaped `kid` of the key, for logs.
    pub kid: Option<String>,
    /// The kind of reason.
    pub cause: IgnoredCause,
    /// The reason, in words.
    pub why: &'static str,
}

/// Why a key is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum IgnoredCause {
    /// The key is not for signatures, according to its `use` or `key_ops`.
    Use,
    /// The key is a shared secret (`kty` is `oct`).
    Secret,
    /// The key has private members.
    Private,
    /// The key type or curve is not supported, or the entry is not a key.
    Kind,
    /// The algorithm is not supported, or not accepted from this issuer.
    Algorithm,
    /// The key is malformed, too weak or too large.
    Unusable,
    /// Another key in the set has the same `kid` and algorithm.
    Ambiguous,
}

impl IgnoredCause {
    /// Every cause.
    pub const ALL: [Self; 7] =
        [Self::Use, Self::Secret, Self::Private, Self::Kind, Self::Algorithm, Self::Unusable, Self::Ambiguous];

    /// The cause as one word, for metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Secret => "secret",
            Self::Private => "private",
            Self::Kind => "kind",
            Self::Algorithm => "algorithm",
            Self::Unusable => "unusable",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// Returns whether the set exposes a secret or private key.
    pub const fn is_leak(self) -> bool {
        matches!(self, Self::Secret | Self::Private)
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key {kid}: {}", self.why),
            None => write!(f, "a key without kid: {}", self.why),
        }
    }
}

/// The keys of one issuer, each bound to one algorithm.
///
/// ```
/// use rotogate::token::IssuerKeys;
///
/// # let jwks = rotogate::token::Keyring::ephemeral()?.jwks().to_string();
/// // The JWK set that another issuer publishes.
/// let keys = IssuerKeys::from_jwks(jwks.as_bytes(), None)?;
/// assert_eq!((keys.len(), keys.ignored()), (1, &[][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    named: KeysByName,
    /// Keys without a `kid`, and keys whose `kid` is already in `named` for another algorithm.
    further: Vec<VerifyingKey>,
    /// The only key, if it has no `kid`.
    unnamed: Option<VerifyingKey>,
    ignored: Vec<Ignored>,
}

impl IssuerKeys {
    /// The keys of the gate's own key ring.
    pub fn own(keyring: &Keyring) -> Self {
        let named = keyring.signing_keys().map(|k| (k.kid().into(), k.verifying_key().clone())).collect();
        Self { named, ..Self::unknown() }
    }

    /// Reads the usable keys of a JWK set (RFC 7517 §5). The algorithm of each key comes from `alg` or `algorithm`. If
    /// both are given, they must agree.
    ///
    /// # Errors
    /// The input is not a JWK set, has no usable key, or repeats a `kid`.
    pub fn from_jwks(text: &[u8], algorithm: Option<Algorithm>) -> Result<Self, RulesError> {
        let entries = entries(text)?;
        let mut ignored = Vec::new();
        let mut usable = Vec::new();
        for entry in entries {
            let kid = shown_kid(&entry);
            match usable_key(entry, algorithm) {
                Ok(key) => usable.push(key),
                Err((cause, why)) => ignored.push(Ignored { kid, cause, why }),
            }
        }
        let mut names = HashSet::new();
        if let Some(kid) = usable.iter().filter_map(VerifyingKey::kid).find(|kid| !names.insert(*kid)) {
            return Err(RulesError::Ambiguous(kid.into()));
        }
        Self::from_usable(usable, ignored)
    }

    fn from_usable(usable: Vec<VerifyingKey>, ignored: Vec<Ignored>) -> Result<Self, RulesError> {
        let mut keys = Self { ignored, ..Self::unknown() };
        let is_alone = usable.len() == 1;
        for key in usable {
            match key.kid() {
                Some(kid) if !keys.named.contains_key(kid) => {
                    keys.named.insert(kid.into(), key);
                }
                None if is_alone => keys.unnamed = Some(key),
                Some(_) | None => keys.further.push(key),
            }
        }
        if keys.is_empty() { Err(RulesError::no_usable_key(&keys.ignored)) } else { Ok(keys) }
    }

    /// Creates an empty set, for keys that are not yet known. Until `Gate::set_trusted` provides keys, requests with
    /// the issuer's tokens get status 503.
    ///
    /// ```
    /// use rotogate::token::{IssuerKeys, IssuerRules};
    ///
    /// let rules = IssuerRules::external("https://idp.example.com", vec!["api".into()], IssuerKeys::unknown());
    /// # let _ = rules;
    /// ```
    pub fn unknown() -> Self {
        Self { named: KeysByName::default(), further: Vec::new(), unnamed: None, ignored: Vec::new() }
    }

    /// Reads a public key in PEM form and binds it to `algorithm`. A token's `kid` is not compared.
    ///
    /// # Errors
    /// The input is not a public key, the key does not match `algorithm`, or `algorithm` is HMAC.
    pub fn from_public_pem(text: &[u8], algorithm: Algorithm) -> Result<Self, RulesError> {
        let key = VerifyingKey::from_public_pem(text, algorithm)?;
        Ok(Self { unnamed: Some(key), ..Self::unknown() })
    }

    /// The ignored keys of the JWK set.
    #[doc(hidden)]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.named.len() + self.further.len() + usize::from(self.unnamed.is_some())
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(in crate::token) fn holds(&self, key: &KeyPrint) -> bool {
        self.all().any(|held| held.print() == *key)
    }

    pub(in crate::token) fn prints(&self) -> impl Iterator<Item = (Option<&str>, KeyPrint)> {
        self.all().map(|key| (key.kid(), key.print()))
    }

    fn all(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.named.values().chain(&self.further).chain(&self.unnamed)
    }

    pub(in crate::token) fn equals(&self, other: &Self) -> bool {
        let is_in = |key: &VerifyingKey| other.all().any(|held| is_same(held, key));
        self.len() == other.len() && self.unnamed.is_some() == other.unnamed.is_some() && self.all().all(is_in)
    }

    /// Finds the keys that may have signed a token. If the token has a `kid`, only the key with that name qualifies. A
    /// single key without a `kid` is used for every token.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: &str) -> Result<Candidates<'_>, NoKey> {
        let fits = |key: &&VerifyingKey| key.algorithm().is_named(algorithm);
        let only = match (kid, &self.unnamed) {
            (_, Some(only)) => Some(only),
            (Some(kid), None) => {
                let first = self.named.get(kid).ok_or(NoKey::Missing)?;
                Some(self.further.iter().find(|key| fits(key) && key.kid() == Some(kid)).unwrap_or(first))
            }
            (None, None) if self.len() == 1 => self.named.values().next(),
            (None, None) => None,
        };
        if let Some(key) = only {
            let others = [None; MAX_TRIED - 1];
            return if fits(&key) { Ok(Candidates { first: key, others }) } else { Err(NoKey::OtherAlgorithm) };
        }
        let mut fitting = self.all().filter(fits);
        let first = fitting.next().ok_or(NoKey::Missing)?;
        let others = std::array::from_fn(|_| fitting.next());
        if fitting.next().is_some() { Err(NoKey::TooMany) } else { Ok(Candidates { first, others }) }
    }
}

fn is_same(a: &VerifyingKey, b: &VerifyingKey) -> bool {
    a.kid() == b.kid() && a.print() == b.print()
}

#[derive(Clone, Copy)]
pub(super) struct Candidates<'k> {
    pub(super) first: &'k VerifyingKey,
    others: [Option<&'k VerifyingKey>; MAX_TRIED - 1],
}

impl<'k> Candidates<'k> {
    /// Returns the key that verifies the signature, or the number of keys that were tried.
    // Requirement J30.
    pub(super) fn signer(
        self,
        parts: &TokenParts<'_>,
        mut holds: impl FnMut(&VerifyingKey) -> bool,
    ) -> Result<&'k VerifyingKey, usize> {
        let mut tried = 0;
        let fits = |key: &&VerifyingKey| key.signature_len() == parts.signature.len();
        let signed = |key: &&VerifyingKey| {
            tried += 1;
            holds(key)
        };
        std::iter::once(self.first).chain(self.others.into_iter().flatten()).filter(fits).find(signed).ok_or(tried)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    Missing,
    OtherAlgorithm,
    TooMany,
}

fn entries(text: &[u8]) -> Result<Vec<Value>, RulesError> {
    if text.len() > MAX_JWKS {
        return Err(RulesError::NotJwks("too long"));
    }
    match strict_json::object(text).map_err(RulesError::NotJwks)?.remove("keys") {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err(RulesError::NotJwks("`keys` must be an array")),
    }
}

/// Returns the `kid` in a form that is safe for logs.
fn shown_kid(entry: &Value) -> Option<String> {
    let kid = entry.get("kid").and_then(Value::as_str)?;
    Some(kid.chars().take(64).flat_map(char::escape_default).take(64).collect())
}

/// The source of the keys that verify an issuer's tokens.
#[derive(Clone, Debug)]
pub enum Keys {
    /// The keys of the gate's own key ring, which do not change.
    Own(Arc<IssuerKeys>),
    /// The keys of another issuer, which may change at any time.
    Live(Arc<LiveKeys>),
}

pub(super) enum KeysNow<'a> {
    Own(&'a IssuerKeys),
    Live(Option<PresentKeys>),
}

impl KeysNow<'_> {
    pub(super) fn set(&self) -> Option<&IssuerKeys> {
        match self {
            Self::Own(keys) => Some(keys),
            Self::Live(keys) => keys.as_ref()?.get(),
        }
    }

    pub(super) fn find(&self, kid: Option<&str>, algorithm: &str) -> Result<Candidates<'_>, NoKey> {
        self.set().ok_or(NoKey::Missing)?.find(kid, algorithm)
    }

    /// Returns the denial for a token without a key. May start a fetch of newer keys.
    pub(super) fn refusal(&self, no_key: NoKey, kid: Option<&str>, newer: NewerKeys<'_>) -> Denial {
        match no_key {
            NoKey::OtherAlgorithm => Denial::WrongAlgorithm,
            NoKey::TooMany => Denial::TooManyKeys,
            // A token without `kid` needs newer keys only if the current set is empty.
            NoKey::Missing if kid.is_none() && self.set().is_some_and(|set| !set.is_empty()) => Denial::UnknownKey,
            NoKey::Missing => newer.missing(),
        }
    }
}

impl Keys {
    pub(super) fn none() -> Self {
        Self::Own(Arc::new(IssuerKeys::unknown()))
    }

    pub(super) fn now(&self, engine_now: Timestamp) -> KeysNow<'_> {
        match self {
            Self::Own(keys) => KeysNow::Own(keys),
            Self::Live(keys) => KeysNow::Live(keys.usable(engine_now)),
        }
    }

    /// The keys of another issuer.
    pub fn live(&self) -> Option<&Arc<LiveKeys>> {
        match self {
            Self::Own(_) => None,
            Self::Live(keys) => Some(keys),
        }
    }

    /// Checks that the set contains this key.
    ///
    /// # Errors
    /// The key is not in the set, or the keys are currently unavailable.
    pub(super) fn holds(&self, key: &KeyPrint, engine_now: Timestamp) -> Result<(), Denial> {
        match self {
            Self::Own(keys) if keys.holds(key) => Ok(()),
            Self::Own(_) => Err(Denial::UnknownKey),
            Self::Live(keys) => keys.holds(key, engine_now),
        }
    }

    /// The ignored keys of the current set.
    pub fn ignored(&self) -> Vec<Ignored> {
        match self {
            Self::Own(keys) => keys.ignored().to_vec(),
            Self::Live(keys) => keys.present().get().map(|keys| keys.ignored().to_vec()).unwrap_or_default(),
        }
    }

    pub(crate) fn equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(own), Self::Own(other)) => own.equals(other),
            (Self::Live(own), Self::Live(other)) => own.equals(other),
            (Self::Own(_), Self::Live(_)) | (Self::Live(_), Self::Own(_)) => false,
        }
    }

    pub(crate) fn are_missing(&self) -> bool {
        match self {
            Self::Own(keys) => keys.is_empty(),
            Self::Live(_) => false,
        }
    }
}

fn usable_key(entry: Value, configured: Option<Algorithm>) -> Result<VerifyingKey, (IgnoredCause, &'static str)> {
    let jwk = public_key(entry)?;
    let given = algorithm_of(&jwk)?;
    let algorithm = match (given, configured) {
        (Some(given), Some(configured)) if given != configured => {
            return Err((IgnoredCause::Algorithm, "its algorithm differs from the configured algorithm"));
        }
        (Some(algorithm), _) | (None, Some(algorithm)) => algorithm,
        (None, None) => return Err((IgnoredCause::Algorithm, "it has no `alg`, and no algorithm is configured")),
    };
    bound(&jwk, algorithm)
}

fn public_key(mut entry: Value) -> Result<Jwk, (IgnoredCause, &'static str)> {
    // The library knows only one name for each algorithm, so aliases are replaced.
    if let Some(alg) = entry.get_mut("alg")
        && let Some(known) = alg.as_str().and_then(|name| name.parse::<Algorithm>().ok())
    {
        *alg = known.name().into();
    }
    // The library accepts an unknown `alg` but rejects an `alg` that is not a string. The gate refuses both.
    let jwk: Jwk = serde_json::from_value(entry).map_err(|_| (IgnoredCause::Unusable, "malformed"))?;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => {}
        AlgorithmParameters::OctetKey(_) => {
            return Err((
                IgnoredCause::Secret,
                "it is a secret (`kty` is `oct`), but the set must contain only public keys",
            ));
        }
        _ => return Err((IgnoredCause::Kind, "it is malformed, or its kind is unknown")),
    }
    match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => {}
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => {
            return Err((IgnoredCause::Use, "its `use` does not allow signatures"));
        }
    }
    if jwk.common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
        return Err((IgnoredCause::Use, "its `key_ops` do not allow verification"));
    }
    Ok(jwk)
}

fn algorithm_of(jwk: &Jwk) -> Result<Option<Algorithm>, (IgnoredCause, &'static str)> {
    let of = |name: KeyAlgorithm| name.to_string().parse();
    let unknown = |_| (IgnoredCause::Algorithm, "its algorithm is not supported");
    jwk.common.key_algorithm.map(of).transpose().map_err(unknown)
}

fn bound(jwk: &Jwk, algorithm: Algorithm) -> Result<VerifyingKey, (IgnoredCause, &'static str)> {
    let why = |error| match error {
        KeyError::Unusable { why, .. } => why,
        KeyError::PublicAsSecret(_) => "a public key cannot be used as an HMAC secret",
        KeyError::BadKid => "its `kid` does not have 1 to 128 visible ASCII characters",
        KeyError::Algorithm(_)
        | KeyError::ShortSecret { .. }
        | KeyError::BadSet(_)
        | KeyError::Random
        | KeyError::Io { .. }
        | KeyError::Refused(_)
        | KeyError::File { .. } => "not usable",
    };
    VerifyingKey::from_jwk(jwk, algorithm).map_err(|error| (IgnoredCause::Unusable, why(error)))
}
