//! What a denial means for the credential.

use super::Denial;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The credential is permanently invalid.
    Dead,
    /// The gate refuses the credential for this request only.
    Refused,
    /// The gate did not examine the credential.
    Undecided,
}

/// A denial of a credential that the gate examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Requirement R15.
pub struct NotGood(Denial);

impl NotGood {
    /// Converts a denial.
    ///
    /// # Errors
    /// The denial itself, if it is undecided.
    pub const fn from_denial(denial: Denial) -> Result<Self, Denial> {
        match denial.standing() {
            Standing::Dead | Standing::Refused => Ok(Self(denial)),
            Standing::Undecided => Err(denial),
        }
    }

    /// The rule that refused the credential.
    pub const fn denial(self) -> Denial {
        self.0
    }
}

impl Denial {
    /// Returns whether the gate refuses the credential forever. Only in this case should a client discard the
    /// credential.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rotogate::denial::Denial;
    ///
    /// assert!(Denial::TokenRevoked.is_dead());
    /// assert!(!Denial::RateLimited("login_per_address", Duration::from_secs(1)).is_dead());
    /// ```
    pub const fn is_dead(&self) -> bool {
        matches!(self.standing(), Standing::Dead)
    }

    /// Returns whether the gate refused the request without examining the credential. A retry may succeed.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }
}
