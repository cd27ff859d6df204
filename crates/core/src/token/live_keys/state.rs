//! How long a set of keys counts, and in which state that leaves it.

use crate::clock::Timestamp;

/// How long a set of keys counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on another set should have been fetched.
    pub fresh_until: Timestamp,
    /// From then on the set is not used any more.
    pub usable_until: Timestamp,
}

impl Validity {
    /// For keys that are never fetched.
    pub const ENDLESS: Self = Self { fresh_until: Timestamp::MAX, usable_until: Timestamp::MAX };
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerKeyState {
    /// There are none, and there were none.
    Empty,
    /// They are up to date.
    Fresh,
    /// Another set is due, or could not be fetched. The present one is used.
    Aging,
    /// They are too old to be used.
    Stale,
}

impl IssuerKeyState {
    /// The word for logs and readiness.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Aging => "aging",
            Self::Stale => "stale",
        }
    }
}
