//! Warnings about setup mistakes, which are logged once instead of for each request that reveals them.

use std::sync::atomic::{AtomicBool, Ordering};

/// A mistake that a request reveals in the setup around a gate.
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
    /// A handler without `require()` is behind a layer that defers the audience.
    Unjudged,
    /// The layer is inside a nest, where it sees only a part of the path.
    #[cfg(feature = "axum")]
    Nested,
}

/// Which warnings were already logged.
#[derive(Debug, Default)]
pub(super) struct Notices([AtomicBool; 7]);

impl Notices {
    /// Returns whether this is the first notice of its kind.
    pub(super) fn first(&self, notice: SetupNotice) -> bool {
        self.0
            .get(notice as usize)
            .is_some_and(|given| !given.load(Ordering::Relaxed) && !given.swap(true, Ordering::Relaxed))
    }
}
