//! Refuses access tokens that must be refreshed, although their sessions continue.

use super::{RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::{REFRESHED, REFRESHED_SESSION};
use crate::session::VouchedBy;

impl RevocationList {
    /// Returns whether the token's issuer, or the issuer that authenticated the user, requires a later `iat`.
    // Requirement S19.
    pub(super) fn is_to_be_refreshed(&self, facts: TokenFacts<'_>) -> bool {
        let of_token = self.refreshed_at(facts.issuer, facts.issuer_session, facts.subject);
        is_before(facts.issued_at, of_token.max(self.refreshed_by(facts.vouched_by)))
    }

    pub(crate) fn asks_for_another(
        &self,
        (issuer, subject): (&str, &str),
        vouched_by: Option<&VouchedBy>,
        issued_at: Timestamp,
    ) -> bool {
        let of_token = self.refreshed_at(issuer, None, subject);
        is_before(Some(issued_at), of_token.max(self.refreshed_by(vouched_by)))
    }

    fn refreshed_by(&self, by: Option<&VouchedBy>) -> Option<Timestamp> {
        by.and_then(|by| self.refreshed_at(&by.issuer, by.session.as_deref(), &by.subject))
    }

    fn refreshed_at(&self, issuer: &str, sid: Option<&str>, subject: &str) -> Option<Timestamp> {
        let of_session = sid.and_then(|sid| self.not_before_of(issuer, REFRESHED_SESSION, sid));
        self.not_before_of(issuer, REFRESHED, subject).max(of_session)
    }
}

/// A token without `iat` counts as old.
fn is_before(issued_at: Option<Timestamp>, moment: Option<Timestamp>) -> bool {
    moment.is_some_and(|at| issued_at.is_none_or(|issued| issued.as_secs() <= at.as_secs()))
}
