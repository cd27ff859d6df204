//! The cost of failed checks of tokens and messages.

use std::num::NonZeroU32;

/// The number of bytes that count as one token.
const UNIT: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    Forged,
    /// The token was refused, but its signature is valid or was not checked.
    Refused,
    Undecided,
}

impl Vain {
    /// The number of started [`UNIT`]s times the number of keys.
    pub(crate) fn cost(text: &str, keys: usize) -> NonZeroU32 {
        let units = text.len().div_ceil(UNIT).saturating_mul(keys);
        NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    /// The cost beyond the first [`UNIT`], or `None` for a short text.
    pub(crate) fn cost_unchecked(text: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(Self::cost(text, 1).get() - 1)
    }
}
