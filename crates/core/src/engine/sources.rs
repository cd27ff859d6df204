//! Checks subjects at run time, so that users of one source cannot get the subjects of another source. The configured
//! rules are already checked for such overlaps when the process starts.

use std::sync::Arc;

use super::Engine;
use crate::session::VouchedBy;
use crate::token::verify::SubjectSources;

impl Engine {
    /// Sets the sources of subjects to the verifier's sources. Must be called before the verifier is used.
    pub fn set_sources(&self, sources: Arc<SubjectSources>) {
        self.sources.store(sources);
    }

    /// Returns whether this subject belongs to users of this issuer.
    // Requirement I67.
    pub(super) fn is_of_issuer(&self, subject: &str, issuer: &str) -> bool {
        self.sources.load().issuer_of(subject).is_some_and(|known| **known == *issuer)
    }

    /// Returns whether a user of the gate itself may have this subject. If another issuer authenticated the user, the
    /// subject may also be one of that issuer's subjects.
    // Requirement I67.
    pub(super) fn may_be_own(&self, subject: &str, vouched_by: Option<&VouchedBy>) -> bool {
        let sources = self.sources.load();
        let is_its = |issuer: &Arc<str>| vouched_by.is_some_and(|by| *by.issuer == **issuer);
        sources.issuer_of(subject).is_none_or(is_its)
    }
}
