use std::sync::Arc;

use super::Inner;
use rotogate_core::overload::{Holder, Lent, PoolPermit, Refusal};
use rotogate_core::verify_cache::Verified;

pub(super) struct InFlightSlot {
    caller: Arc<Verified>,
    /// Set if the caller uses spare capacity beyond its share. The slot then does not count against the caller's
    /// address, so that other callers at that address keep their share.
    #[expect(dead_code, reason = "held, not read")]
    lent: Option<Lent>,
    /// Set if the gate buffers the request body.
    room: Option<Box<PoolPermit>>,
}

rotogate_core::debug_with!(InFlightSlot);

impl InFlightSlot {
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

    pub(super) fn keeping(mut self, room: Option<PoolPermit>) -> Self {
        self.room = room.map(Box::new);
        self
    }

    /// Releases the buffer permit, because a service that replies has read the body.
    pub(super) fn answered(&mut self) {
        self.room = None;
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.caller.left();
    }
}
