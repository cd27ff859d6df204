//! The meaning of a denial for the credential: refused forever, refused for this request, or not examined.

use super::Denial;

/// The meaning of a denial for the presented credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The credential is refused forever, everywhere at this gate.
    Dead,
    /// The credential is refused for this request. Other requests with the credential may still pass.
    Refused,
    /// The gate did not examine the credential. The same request may pass later.
    Undecided,
}

/// The decision that a credential is invalid. An undecided denial is not a decision and never becomes a `NotGood`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Requirement R15.
pub struct NotGood(Denial);

impl NotGood {
    /// Converts a denial to a decision.
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
    /// Returns whether the credential is refused forever, everywhere at this gate. Only then should a client discard
    /// the credential.
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

    /// Returns whether the credential was not examined, so that the same request may pass later.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }
}
