//! How long a set of keys may be used, and the resulting state.

use crate::clock::Timestamp;

/// How long a set of keys may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From this time on, a new set should already have been fetched.
    pub fresh_until: Timestamp,
    /// From this time on, the set must not be used.
    pub usable_until: Timestamp,
}

impl Validity {
    /// The validity of keys that are never fetched. They stay fresh and usable.
    pub const ENDLESS: Self = Self { fresh_until: Timestamp::MAX, usable_until: Timestamp::MAX };
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerKeyState {
    /// The set is empty, because the keys are not known.
    Empty,
    /// The keys are up to date.
    Fresh,
    /// A new set should be fetched, or could not be fetched. The present set is still used.
    Aging,
    /// The keys are too old to be used.
    Stale,
}

impl IssuerKeyState {
    /// The state as a word for logs and for the readiness probe.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Aging => "aging",
            Self::Stale => "stale",
        }
    }
}
