//! The cost of failed checks of tokens and messages.

use std::num::NonZeroU32;

/// The number of bytes that counts as one token.
const UNIT: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    Forged,
    /// The token was refused, but its signature is valid or was not checked.
    Refused,
    Undecided,
}

impl Vain {
    /// Counts one token for each key and each started [`UNIT`].
    pub(crate) fn cost(text: &str, keys: usize) -> NonZeroU32 {
        let units = text.len().div_ceil(UNIT).saturating_mul(keys);
        NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    /// The cost of the text without its first [`UNIT`], or `None` if the text is not longer.
    pub(crate) fn cost_unchecked(text: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(Self::cost(text, 1).get() - 1)
    }
}
