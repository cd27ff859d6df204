//! The names by which the issuer of a token speaks of its user: in notices, and in ID tokens.

use super::AccessToken;
use crate::session::VouchedBy;

impl AccessToken {
    /// The user and the session that the token's issuer names.
    pub(crate) fn voucher(&self) -> VouchedBy {
        let (issuer, session) = ((&**self.issuer()).into(), self.issuer_session().map(Box::from));
        VouchedBy { issuer, subject: self.notice_subject().into(), session }
    }

    /// `sub`, if the subject is another claim.
    pub(crate) fn other_sub(&self) -> Option<&str> {
        self.rare.as_deref()?.sub.as_deref()
    }

    /// Does the issuer name its users by `sub` alone?
    pub(crate) fn has_sub_as_subject(&self) -> bool {
        self.issued_by.mapping.has_sub_as_subject()
    }

    /// The user as notices of the token's issuer and its ID tokens name it: `sub`, whatever claim is the subject.
    // Requirement S31.
    pub(crate) fn notice_subject(&self) -> &str {
        self.other_sub().unwrap_or_else(|| self.token_subject())
    }
}
