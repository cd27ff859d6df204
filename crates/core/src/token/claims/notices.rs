//! How a token's issuer names the user in notices and ID tokens.

use super::AccessToken;
use crate::session::VouchedBy;

impl AccessToken {
    pub(crate) fn voucher(&self) -> VouchedBy {
        let (issuer, session) = ((&**self.issuer()).into(), self.issuer_session().map(Box::from));
        VouchedBy { issuer, subject: self.notice_subject().into(), session }
    }

    /// Returns `sub` if another claim contains the subject.
    pub(crate) fn other_sub(&self) -> Option<&str> {
        self.rare.as_deref()?.sub.as_deref()
    }

    pub(crate) fn has_sub_as_subject(&self) -> bool {
        self.issued_by.mapping.has_sub_as_subject()
    }

    /// Notices use `sub`, even if another claim contains the subject.
    // Requirement S31.
    pub(crate) fn notice_subject(&self) -> &str {
        self.other_sub().unwrap_or_else(|| self.token_subject())
    }
}
