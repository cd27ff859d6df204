//! The cost of checking tokens and messages that are then not accepted.

use std::num::NonZeroU32;

/// The length that counts as one token, in bytes.
const UNIT: usize = 8 << 10;

/// Why a token or message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    /// The signature is invalid.
    Forged,
    /// The signature is valid, or was not checked.
    Refused,
    /// The gate does not have the key that is needed to check the signature.
    Undecided,
}

impl Vain {
    /// The cost of trying `keys` keys on a string, in tokens. Each started [`UNIT`] of the string costs one token for
    /// each key.
    pub(crate) fn cost(text: &str, keys: usize) -> NonZeroU32 {
        let units = text.len().div_ceil(UNIT).saturating_mul(keys);
        NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    /// The cost of a string that was read but whose signature was not checked. The first [`UNIT`] costs nothing.
    pub(crate) fn cost_unchecked(text: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(Self::cost(text, 1).get() - 1)
    }
}
