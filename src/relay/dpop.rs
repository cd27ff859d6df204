//! DPoP proofs (RFC 9449 §4.3). The provider verifies every proof that reaches it. The relay must verify proofs as
//! well, because a replayed reply is sent without contacting the provider.

use std::time::Duration;

use rotogate_core::bounds::MAX_RELAYED_PROOF;
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::ProofFlaw;
use rotogate_core::dpop::memory::{NotRecorded, ProofId, ProofMemory, once_in_store};
use rotogate_core::dpop::proof::{DPOP, Form, SignedProof};
use rotogate_core::fault::Error;
use rotogate_core::store::SharedStore;
use rotogate_core::token::Algorithm;

/// The form of a proof that the relay accepts. The provider may have further requirements.
const FORM: Form = Form {
    typ: DPOP,
    max_length: MAX_RELAYED_PROOF,
    algorithms: &[
        Algorithm::EdDsa,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ],
};
/// The maximum difference between a proof's `iat` and the gate's clock.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a used proof is remembered. A gate could accept the proof for two windows, and two clocks may differ by one
/// window.
const COUNTS_FOR: Duration = Duration::from_secs(3 * WINDOW.as_secs());
/// The maximum number of remembered proofs.
const MAX_SEEN: u64 = 100_000;
/// How long a client waits before a retry, if no further proof can be remembered.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(30);

/// The proofs of requests whose reply contained tokens. A proof is remembered as long as it could be accepted. Proofs
/// of other requests are not remembered, so a client without a valid token cannot fill this memory.
pub(super) struct Proofs {
    seen: ProofMemory,
}

/// A valid proof that has not been used before.
pub(super) struct GoodProof {
    /// The thumbprint of the proof's key.
    pub(super) jkt: String,
    id: ProofId,
}

impl Proofs {
    pub(super) fn new() -> Self {
        Self { seen: ProofMemory::new("proof for a provider", MAX_SEEN, WINDOW) }
    }

    /// Checks that a proof is valid for a POST to `url` and has not been used before. Does not mark the proof as
    /// used.
    pub(super) fn check(&self, proof: &str, url: &str, now: Timestamp) -> Result<GoodProof, ProofFlaw> {
        let proof = SignedProof::read(proof, FORM)?;
        if proof.method() != Some("POST") {
            return Err(ProofFlaw::Method);
        }
        let without_query = proof.url().and_then(|htu| htu.split(['?', '#']).next());
        if without_query != Some(url) {
            return Err(ProofFlaw::Url);
        }
        let issued_at = proof.issued_at().ok_or(ProofFlaw::Time)?;
        if issued_at.since(now).max(now.since(issued_at)) > WINDOW {
            return Err(ProofFlaw::Time);
        }
        let id = self.seen.name(&proof.key, proof.id().ok_or(ProofFlaw::Id)?, issued_at);
        if self.seen.has(&id) {
            return Err(ProofFlaw::Replayed);
        }
        Ok(GoodProof { jkt: proof.key.to_string(), id })
    }

    /// Marks a proof as used. If several requests have the same proof, this succeeds for only one of them.
    pub(super) fn use_once(&self, proof: &GoodProof, now: Timestamp) -> Result<(), NotRecorded> {
        self.seen.record(&proof.id, now)
    }

    /// Like [`Self::use_once`], but marks the proof as used for all gates that share the store.
    pub(super) async fn use_in_store(&self, proof: &GoodProof, store: &dyn SharedStore) -> Result<(), Error> {
        once_in_store(store, proof.id.name(), COUNTS_FOR).await
    }
}

#[cfg(test)]
pub(super) mod tests;
