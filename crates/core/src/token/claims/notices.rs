//! The names by which a token's issuer identifies its user in notices and in ID tokens.

use super::AccessToken;
use crate::session::VouchedBy;

impl AccessToken {
    /// The user and the session as the token's issuer names them.
    pub(crate) fn voucher(&self) -> VouchedBy {
        let (issuer, session) = ((&**self.issuer()).into(), self.issuer_session().map(Box::from));
        VouchedBy { issuer, subject: self.notice_subject().into(), session }
    }

    /// `sub`, if the subject is in another claim.
    pub(crate) fn other_sub(&self) -> Option<&str> {
        self.rare.as_deref()?.sub.as_deref()
    }

    /// Returns whether `sub` is the only claim by which the issuer names its users.
    pub(crate) fn has_sub_as_subject(&self) -> bool {
        self.issued_by.mapping.has_sub_as_subject()
    }

    /// The user's name in the issuer's notices and ID tokens. It is `sub`, whichever claim contains the subject.
    // Requirement S31.
    pub(crate) fn notice_subject(&self) -> &str {
        self.other_sub().unwrap_or_else(|| self.token_subject())
    }
}
