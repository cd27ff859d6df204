//! What the developer or operator of a gate should hear once, not with each request that shows it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Mistakes around a gate that a request gives away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// An upgrade on a route that passes none.
    Upgrade,
    /// Nobody says from which address a request comes.
    NoPeer,
    /// A peer that is no trusted proxy says for whom it speaks.
    UntrustedProxy,
    /// Another gate stands in front, and took the credential.
    OtherGate,
    /// `require().audience(…)` behind a layer that asks for the gate's own audience first.
    Audience,
    /// A handler behind a layer that leaves the audience to `require()`, and no `require()` there.
    Unjudged,
    /// The layer stands in a nest, where the path is a part of the whole.
    #[cfg(feature = "axum")]
    Nested,
}

/// Which of them were given.
#[derive(Debug, Default)]
pub(super) struct Notices([AtomicBool; 7]);

impl Notices {
    /// Is this the first time?
    pub(super) fn first(&self, notice: Notice) -> bool {
        self.0
            .get(notice as usize)
            .is_some_and(|given| !given.load(Ordering::Relaxed) && !given.swap(true, Ordering::Relaxed))
    }
}
