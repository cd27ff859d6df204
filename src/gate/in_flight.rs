//! Counts the concurrent requests of each caller.

use std::sync::Arc;

use super::Inner;
use rotogate_core::overload::{Holder, Lent, PoolPermit, Refusal};
use rotogate_core::verify_cache::Verified;

/// One request of a caller, counted from its admission to the last byte of its reply.
pub(super) struct InFlightSlot {
    caller: Arc<Verified>,
    /// Set for a caller beyond its share, which uses spare capacity. The slot is not charged to the caller's address,
    /// so that other callers at the address keep their share.
    #[expect(dead_code, reason = "held, not read")]
    lent: Option<Lent>,
    /// The buffer permit of the request body, if the gate buffers it.
    room: Option<Box<PoolPermit>>,
}

rotogate_core::debug_with!(InFlightSlot);

impl InFlightSlot {
    /// `address` is called only for a caller beyond its share: it returns the holder that the request was counted for.
    pub(super) fn enter(
        gate: &Inner,
        caller: &Arc<Verified>,
        address: impl FnOnce() -> Option<Holder>,
    ) -> Result<Self, Refusal> {
        let (callers, requests) = (gate.checker.callers(), &gate.running.overload.requests);
        let each = callers.each();
        let before = callers.enter(caller.holder(), 1, each, requests.usage_by_others()).ok_or(Refusal::Caller)?;
        let lent = if before < each { None } else { address().map(|address| requests.lend(address)) };
        Ok(Self { caller: Arc::clone(caller), lent, room: None })
    }

    /// Keeps the buffer permit of the request body until the reply begins.
    pub(super) fn keeping(mut self, room: Option<PoolPermit>) -> Self {
        self.room = room.map(Box::new);
        self
    }

    /// Releases the buffer permit: the service has read the body by the time it answers.
    pub(super) fn answered(&mut self) {
        self.room = None;
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.caller.left();
    }
}
