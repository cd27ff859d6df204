//! Verifies messages of other issuers: notices, and requests to end everything of a user.

use super::TokenChecker;
use crate::denial::Denial;
use crate::token::verify::{AskedRevocation, Reported, SentGlobalRevocation, SentNotice};

impl TokenChecker {
    /// Verifies a notice of another issuer, and returns its report.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`], [`Denial::KeysUnavailable`].
    pub fn verify_notice(&self, notice: SentNotice<'_>) -> Result<Reported, Denial> {
        self.keys.load().verifier.reported(notice, self.clock.now(), self.clock.wall())
    }

    /// Verifies a request of another issuer to end all sessions and tokens of a user.
    ///
    /// # Errors
    /// As [`Self::verify_notice`].
    pub fn verify_global_revocation(&self, sent: SentGlobalRevocation<'_>) -> Result<AskedRevocation, Denial> {
        self.keys.load().verifier.asked_revocation(sent, self.clock.now(), self.clock.wall())
    }

    /// Notes the members of a complex subject that the transmitter of an issuer calls critical. False if there is no issuer
    /// of this name.
    pub fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>) -> bool {
        self.keys.load().verifier.note_critical_members(issuer, members)
    }
}
