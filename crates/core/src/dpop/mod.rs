//! Proofs of possession (DPoP, RFC 9449). A token that is bound to a key is accepted only with a proof that is signed
//! with this key. A proof must pass these checks, in this order:
//!
//! | # | check | flaw |
//! |---|---|---|
//! | 1 | one `DPoP` header with one strict JWT of at most 4 KiB | `Missing`, `Malformed` |
//! | 2 | `typ` is `dpop+jwt` | `Type` |
//! | 3 | `alg` is ES256, EdDSA, Ed25519, ES384, RS256 or PS256 | `Algorithm` |
//! | 4 | `jwk` is a public key that fits `alg` | `Key` |
//! | 5 | signature | `Signature` |
//! | 6 | `htm` is the method | `Method` |
//! | 7 | `htu` is the URL, as the client sees it | `Url` |
//! | 8 | `iat` is close to now, and not before the start of this process | `Time`, `BeforeStart` |
//! | 9 | `nonce` was issued by the gate, if a nonce is required | `Nonce` |
//! | 10 | `ath` is the hash of the token | `Token` |
//! | 11 | the proof's key is the key to which the token is bound | [`Denial::OtherKey`] |
//! | 12 | `jti` was not used before at any gate on the same store (recorded last) | `Id`, `Replayed` |
//!
//! `Dpop::check` performs checks 1 to 11. `Dpop::use_once` performs check 12, but only if the request is otherwise
//! permitted. Clients without a valid credential therefore cannot fill the memory. `Dpop::use_in_store` repeats check
//! 12 in the shared store.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use crate::clock::Timestamp;
use crate::denial::{Denial, ProofFlaw};
use crate::fault::Error;
use crate::store::{SharedStore, Store};
use crate::thumbprint::KeyThumbprint;
use crate::token::keyring::RefreshKeys;

pub mod device;
mod known;
pub mod memory;
mod nonce;
pub mod proof;
mod target;

use known::KnownKeys;
use memory::{NotRecorded, ProofId, ProofMemory, ProofName, once_in_store};
pub use proof::ALGORITHM_NAMES;
use proof::{OURS, SignedProof};
pub use target::{HttpScheme, TargetUri};

/// The header that contains a proof (RFC 9449 §4.1).
pub static PROOF: HeaderName = HeaderName::from_static("dpop");
/// The header that contains a nonce (RFC 9449 §8.1).
pub static NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// How far a client's clock may be ahead of ours, in addition to the leeway.
const AHEAD: Duration = Duration::from_secs(5);
/// The value of `Retry-After` if the memory is full.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// The rules for proofs.
///
/// ```
/// use std::time::Duration;
/// use rotogate::dpop::DpopSettings;
///
/// let settings = DpopSettings { max_age: Duration::from_secs(30), ..DpopSettings::default() };
/// let builder = rotogate::Gate::builder().dpop(settings);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpopSettings {
    /// Whether a proof needs a nonce from the last five minutes (RFC 9449 §8).
    pub needs_nonce: bool,
    /// The maximum age of a proof, in addition to the leeway.
    pub max_age: Duration,
    /// The maximum number of remembered proofs. At this maximum, requests with proofs get 503.
    pub max_proofs: u64,
    /// Whether all gates on the same store together accept a proof only once. The check costs a round trip to the store
    /// for each proof. Otherwise each gate accepts the proof once.
    pub counted_in_store: bool,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self { needs_nonce: false, max_age: Duration::from_secs(60), max_proofs: 1_000_000, counted_in_store: true }
    }
}

impl DpopSettings {
    pub(crate) fn shared<'a>(&self, store: &'a dyn Store) -> Option<&'a dyn SharedStore> {
        if self.counted_in_store { store.shared() } else { None }
    }
}

/// Checks proofs, and remembers the used ones.
pub struct Dpop {
    settings: DpopSettings,
    leeway: Duration,
    started: Timestamp,
    memory: ProofMemory,
    known: KnownKeys,
}

crate::debug_with!(Dpop { settings });

/// A proof's expected values.
pub struct Expected<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The URL as the client sees it, or `None` if the gate does not serve the host.
    pub target: Option<TargetUri>,
    /// The token's hash (`ath`) and the thumbprint of its key.
    pub token: Option<(&'a str, KeyThumbprint)>,
}

/// A proof that has passed checks 1 to 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedProof {
    pub(crate) key: KeyThumbprint,
    id: ProofId,
    renews_nonce: bool,
}

/// The result of recording a proof.
#[derive(Clone, Debug)]
pub struct UsedProof {
    /// Whether the response must contain a new nonce.
    pub renews_nonce: bool,
    /// The name of a proof that the shared store must also record.
    pub owed: Option<ProofName>,
}

impl CheckedProof {
    /// Returns whether the response must contain a new nonce.
    pub const fn renews_nonce(&self) -> bool {
        self.renews_nonce
    }
}

/// A checked proof, and the memory in which it will be recorded.
#[derive(Clone, Copy, Debug)]
pub struct OnceProof<'a> {
    /// The memory of used proofs.
    pub dpop: &'a Dpop,
    /// The proof.
    pub proof: CheckedProof,
}

impl OnceProof<'_> {
    /// The key that signed the proof.
    pub fn key(&self) -> KeyThumbprint {
        self.proof.key
    }

    pub(crate) async fn use_once(&self, now: Timestamp, store: &dyn Store) -> Result<(), Error> {
        match self.dpop.use_once(&self.proof, now, store)? {
            Some(name) => self.dpop.use_in_store(name, store).await,
            None => Ok(()),
        }
    }
}

impl Dpop {
    /// Creates an empty memory for a process that began at `started`.
    pub fn new(settings: DpopSettings, leeway: Duration, started: Timestamp) -> Self {
        let passes_for = settings.max_age.saturating_add(leeway);
        let memory = ProofMemory::new("proof for a gate", settings.max_proofs, passes_for);
        Self { settings, leeway, started, memory, known: KnownKeys::default() }
    }

    /// Makes checks 1 to 11.
    ///
    /// # Errors
    /// The first check that the proof fails.
    pub fn check(
        &self,
        headers: &HeaderMap,
        expected: &Expected<'_>,
        keys: &RefreshKeys,
        now: Timestamp,
    ) -> Result<CheckedProof, Denial> {
        let text = the_one(headers)?;
        let proof = SignedProof::read_with(text, OURS, |header| self.known.get(header))?;
        if proof.method() != Some(expected.method.as_str()) {
            return Err(ProofFlaw::Method.into());
        }
        if !expected.target.as_ref().zip(proof.url()).is_some_and(|(target, htu)| target.is_in(htu)) {
            return Err(ProofFlaw::Url.into());
        }
        let issued_at = proof.issued_at().ok_or(ProofFlaw::Time)?;
        let (oldest, latest) = (self.settings.max_age.saturating_add(self.leeway), AHEAD.saturating_add(self.leeway));
        if now.since(issued_at) > oldest || issued_at.since(now) > latest {
            return Err(ProofFlaw::Time.into());
        }
        let renews_nonce = match self.settings.needs_nonce {
            // The process does not know which proofs were used before its start.
            false if issued_at < self.started => return Err(ProofFlaw::BeforeStart.into()),
            false => false,
            true => {
                let issued = proof.nonce().and_then(|nonce| nonce::issued_at(keys, nonce, now, self.leeway));
                // A proof whose nonce is newer than the process start cannot have been used before the start.
                let issued = issued.filter(|issued| *issued >= self.started).ok_or(ProofFlaw::Nonce)?;
                nonce::is_old(issued, now)
            }
        };
        if let Some((hash, key)) = expected.token {
            if proof.token_hash() != Some(hash) {
                return Err(ProofFlaw::Token.into());
            }
            if proof.key != key {
                return Err(Denial::OtherKey);
            }
            if let Some((header, key)) = &proof.read {
                self.known.insert(header, Arc::clone(key));
            }
        }
        let id = self.memory.name(&proof.key, proof.id().ok_or(ProofFlaw::Id)?, issued_at);
        Ok(CheckedProof { key: proof.key, id, renews_nonce })
    }

    /// Performs check 12 at this gate and records the proof. If this returns a name,
    /// [`use_in_store`](Self::use_in_store) must also record the proof.
    ///
    /// # Errors
    /// The proof was already used, or cannot be recorded.
    pub fn use_once(
        &self,
        proof: &CheckedProof,
        now: Timestamp,
        store: &dyn Store,
    ) -> Result<Option<ProofName>, Denial> {
        self.memory.record(&proof.id, now).map_err(|why| match why {
            NotRecorded::Seen => ProofFlaw::Replayed.into(),
            NotRecorded::KeyIsFull => Denial::RateLimited("proofs_per_key", TRY_AGAIN),
            NotRecorded::Full => Denial::ProofsFull(TRY_AGAIN),
        })?;
        Ok(self.settings.shared(store).map(|_| proof.id.name()))
    }

    /// Performs check 12 for all gates that share the store.
    ///
    /// # Errors
    /// The proof was used at another gate. After a fault, the proof may have been recorded.
    pub async fn use_in_store(&self, name: ProofName, store: &dyn Store) -> Result<(), Error> {
        match self.settings.shared(store) {
            Some(shared) => once_in_store(shared, name, self.counts_for()).await,
            None => Ok(()),
        }
    }

    /// How long the shared store must remember a used proof.
    fn counts_for(&self) -> Duration {
        self.settings.max_age.saturating_add((AHEAD + self.leeway) * 2).saturating_add(self.leeway)
    }

    /// Performs check 12 at this gate without recording the proof.
    ///
    /// # Errors
    /// The proof was already used.
    pub fn was_used(&self, proof: &CheckedProof) -> Result<(), Denial> {
        if self.memory.has(&proof.id) { Err(ProofFlaw::Replayed.into()) } else { Ok(()) }
    }

    /// A new nonce for a client, or `None` if proofs do not need nonces.
    pub fn nonce(&self, keys: &RefreshKeys, now: Timestamp) -> Option<HeaderValue> {
        let issued = self.settings.needs_nonce.then(|| nonce::issue(keys, now)).flatten();
        issued.and_then(|nonce| HeaderValue::try_from(nonce).ok())
    }
}

/// The content of a proof.
#[derive(Debug)]
pub struct ExaminedProof {
    /// The thumbprint of the proof's key.
    pub key: KeyThumbprint,
    /// The `htm` claim.
    pub method: Option<String>,
    /// The `htu` claim.
    pub url: Option<String>,
    /// The `iat` claim.
    pub issued_at: Option<Timestamp>,
    /// The `jti` claim.
    pub id: Option<String>,
}

/// Performs checks 1 to 5, which do not depend on the request.
///
/// # Errors
/// The first check that the proof fails.
pub fn examine(proof: &str) -> Result<ExaminedProof, ProofFlaw> {
    let proof = SignedProof::read(proof, OURS)?;
    let text = |text: Option<&str>| text.map(str::to_owned);
    Ok(ExaminedProof {
        key: proof.key,
        method: text(proof.method()),
        url: text(proof.url()),
        issued_at: proof.issued_at(),
        id: text(proof.id()),
    })
}

/// Returns whether a request has a `DPoP` header.
pub fn is_offered(headers: &HeaderMap) -> bool {
    headers.contains_key(&PROOF)
}

fn the_one(headers: &HeaderMap) -> Result<&str, ProofFlaw> {
    let mut values = headers.get_all(&PROOF).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(ProofFlaw::Missing),
        (Some(_), Some(_)) => Err(ProofFlaw::Malformed("more than one DPoP header was sent")),
        (Some(one), None) => one.to_str().map_err(|_| ProofFlaw::Malformed("the proof is not ASCII")),
    }
}

pub(crate) fn algorithms() -> String {
    ALGORITHM_NAMES.join(" ")
}

#[cfg(test)]
mod tests;
