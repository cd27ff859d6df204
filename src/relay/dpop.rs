//! DPoP proofs (RFC 9449 §4.3). The provider verifies a proof that it gets; the relay verifies one because an answer may
//! be given again, and then no provider sees the proof.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::denial::ProofFlaw;
use crate::dpop::proof::{Form, SignedProof};
use crate::token::Algorithm;

/// The longest proof, in bytes. An RSA key of 8192 bits and its signature fit.
const MAX_PROOF: usize = 8 << 10;
/// What a provider may accept: the relay leaves the choice to it.
const FORM: Form = Form {
    max_length: MAX_PROOF,
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
/// How far a proof's `iat` may be from our time.
const WINDOW: Duration = Duration::from_secs(60);
/// How many proofs are remembered.
const MAX_SEEN: u64 = 100_000;

/// The proofs that were seen.
pub(super) struct Proofs {
    seen: moka::sync::Cache<(String, Box<str>), ()>,
}

impl Default for Proofs {
    fn default() -> Self {
        // Longer than a proof is good, at either end of the window.
        let seen = moka::sync::Cache::builder().max_capacity(MAX_SEEN).time_to_live(4 * WINDOW).build();
        Self { seen }
    }
}

impl Proofs {
    /// The thumbprint of the key of a good proof for a POST to `url`, which was not seen before.
    pub(super) fn check(&self, proof: &str, url: &str, now: Timestamp) -> Result<String, ProofFlaw> {
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
        let jkt = proof.key.to_string();
        let id = Box::from(proof.id().ok_or(ProofFlaw::Id)?);
        let is_new = self.seen.entry((jkt.clone(), id)).or_insert(()).is_fresh();
        if is_new { Ok(jkt) } else { Err(ProofFlaw::Replayed) }
    }
}

#[cfg(test)]
mod tests;
