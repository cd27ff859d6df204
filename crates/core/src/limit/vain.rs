//! What a check in vain costs.

use std::num::NonZeroU32;

/// The length of a text that counts as one token, in bytes.
const UNIT: usize = 8 << 10;

/// How a text was checked in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    /// Its signature is bad.
    Forged,
    /// Its signature is good, or was not checked.
    Refused,
    /// The gate lacks its key.
    Undecided,
}

impl Vain {
    /// The cost of trying `keys` on a text, in tokens: one for each key and each [`UNIT`] that was begun.
    pub(crate) fn cost(text: &str, keys: usize) -> NonZeroU32 {
        let units = text.len().div_ceil(UNIT).saturating_mul(keys);
        NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    /// The cost of a text that was read, and whose signature was not checked: up to one [`UNIT`] it costs nothing.
    pub(crate) fn cost_unchecked(text: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(Self::cost(text, 1).get() - 1)
    }
}
