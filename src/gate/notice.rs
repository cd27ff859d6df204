//! Setup mistakes, each logged only once.

use std::sync::atomic::{AtomicBool, Ordering};

/// A mistake in the setup around a gate.
#[derive(Clone, Copy, Debug)]
pub(super) enum SetupNotice {
    /// An upgrade on a route that does not allow upgrades.
    Upgrade,
    /// The request has no `Peer`.
    NoPeer,
    /// A peer that is not a trusted proxy sends forwarding headers.
    UntrustedProxy,
    /// Another gate in front removed the credential.
    OtherGate,
    /// `require().audience(…)` is behind a layer that checks the gate's own audience first.
    Audience,
    /// A handler without `require()` is behind a layer that defers the audience check.
    Unjudged,
    /// The layer is inside an axum `Router::nest`, where it sees only a part of the path.
    #[cfg(feature = "axum")]
    Nested,
}

#[derive(Debug, Default)]
pub(super) struct Notices([AtomicBool; 7]);

impl Notices {
    pub(super) fn first(&self, notice: SetupNotice) -> bool {
        self.0
            .get(notice as usize)
            .is_some_and(|given| !given.load(Ordering::Relaxed) && !given.swap(true, Ordering::Relaxed))
    }
}
