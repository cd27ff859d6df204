//! The validity of an issuer's keys.

use crate::clock::Timestamp;

/// How long keys may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When the gate should fetch newer keys.
    pub fresh_until: Timestamp,
    /// When the keys become unusable.
    pub usable_until: Timestamp,
}

impl Validity {
    /// The validity of keys that are never fetched.
    pub const ENDLESS: Self = Self { fresh_until: Timestamp::MAX, usable_until: Timestamp::MAX };
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerKeyState {
    /// The keys are unknown.
    Empty,
    /// The keys are up to date.
    Fresh,
    /// The keys should be renewed, or a renewal failed. The current keys are still used.
    Aging,
    /// The keys are too old to be used.
    Stale,
}

impl IssuerKeyState {
    /// The state in logs and in the readiness probe.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Aging => "aging",
            Self::Stale => "stale",
        }
    }
}
