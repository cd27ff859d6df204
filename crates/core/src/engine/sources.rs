//! The second check that no user gets the subject of another source: the first one is that of the rules, at the start.

use std::sync::Arc;

use super::Engine;
use crate::session::VouchedBy;
use crate::token::verify::SubjectSources;

impl Engine {
    /// Uses the sources of subjects of a verifier. Call it before the verifier is used.
    pub fn set_sources(&self, sources: Arc<SubjectSources>) {
        self.sources.store(sources);
    }

    /// Is this the subject of a user of this issuer?
    // Requirement I67.
    pub(super) fn is_of_issuer(&self, subject: &str, issuer: &str) -> bool {
        self.sources.load().issuer_of(subject).is_some_and(|known| **known == *issuer)
    }

    /// May a user of the gate itself have this subject? If another issuer vouches for the user, the subject may also be
    /// that issuer's.
    // Requirement I67.
    pub(super) fn may_be_own(&self, subject: &str, vouched_by: Option<&VouchedBy>) -> bool {
        let sources = self.sources.load();
        let is_its = |issuer: &Arc<str>| vouched_by.is_some_and(|by| *by.issuer == **issuer);
        sources.issuer_of(subject).is_none_or(is_its)
    }
}
