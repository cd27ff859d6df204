//! Whether a decision on a request has effects. An explanation takes the path of a request without them: it counts, notes,
//! keeps, fetches and logs nothing. Both are compiled from the same code, so that they cannot decide differently, and a
//! request pays nothing for it.

/// Whether effects are wanted.
pub(crate) trait Effects {
    /// They are. A constant, so that the other half is compiled away.
    const ARE_WANTED: bool;
}

/// A request.
#[derive(Debug)]
pub(crate) enum WithEffects {}

/// An explanation.
#[derive(Debug)]
pub(crate) enum WithoutEffects {}

impl Effects for WithEffects {
    const ARE_WANTED: bool = true;
}

impl Effects for WithoutEffects {
    const ARE_WANTED: bool = false;
}
