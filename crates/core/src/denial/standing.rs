//! The meaning of a denial for the credential: refused for all time, refused for this request, or not examined.

use super::Denial;

/// The meaning of a denial for the presented credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The credential is refused everywhere at this gate, for all time.
    Dead,
    /// The credential is refused for this request. The gate decided nothing further about the credential.
    Refused,
    /// The gate did not examine the credential. The same request may pass later.
    Undecided,
}

/// The decision that a credential is bad. An undecided denial is not a decision and never becomes a `NotGood`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Requirement R15.
pub struct NotGood(Denial);

impl NotGood {
    /// The decision in a denial.
    ///
    /// # Errors
    /// The denial itself, if it is undecided.
    pub const fn from_denial(denial: Denial) -> Result<Self, Denial> {
        match denial.standing() {
            Standing::Dead | Standing::Refused => Ok(Self(denial)),
            Standing::Undecided => Err(denial),
        }
    }

    /// The rule that refuses the credential.
    pub const fn denial(self) -> Denial {
        self.0
    }
}

impl Denial {
    /// Is the credential refused everywhere at this gate, for all time? Only then a client discards the credential.
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

    /// Was the credential not examined? Then the same request may pass later.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }
}
