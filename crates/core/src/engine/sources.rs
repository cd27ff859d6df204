//! Prevents a user of one source from getting a subject that belongs to another source. The configured rules were
//! already checked at the start.

use std::sync::Arc;

use super::Engine;
use crate::session::VouchedBy;
use crate::token::verify::SubjectSources;

impl Engine {
    /// Sets the verifier's sources of subjects. Must be called before the verifier is used.
    pub fn set_sources(&self, sources: Arc<SubjectSources>) {
        self.sources.store(sources);
    }

    // Requirement I67.
    pub(super) fn is_of_issuer(&self, subject: &str, issuer: &str) -> bool {
        self.sources.load().issuer_of(subject).is_some_and(|known| **known == *issuer)
    }

    /// A subject of another issuer is allowed only if that issuer authenticated the user.
    // Requirement I67.
    pub(super) fn may_be_own(&self, subject: &str, vouched_by: Option<&VouchedBy>) -> bool {
        let sources = self.sources.load();
        let is_its = |issuer: &Arc<str>| vouched_by.is_some_and(|by| *by.issuer == **issuer);
        sources.issuer_of(subject).is_none_or(is_its)
    }
}
