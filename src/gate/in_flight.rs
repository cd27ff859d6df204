//! A request that is counted among those of its caller.

use std::sync::Arc;

use super::Inner;
use crate::overload::{PoolPermit, Refusal};
use crate::verify_cache::Verified;

/// See the module; from the decision on it to the last byte of its reply.
pub(super) struct InFlightSlot {
    caller: Arc<Verified>,
    /// The room that the body takes, where the gate keeps one.
    room: Option<Box<PoolPermit>>,
}

impl std::fmt::Debug for InFlightSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlightSlot(…)")
    }
}

impl InFlightSlot {
    pub(super) fn enter(gate: &Inner, caller: &Arc<Verified>) -> Result<Self, Refusal> {
        if gate.checker.callers().enter(caller.holder(), 1) {
            Ok(Self { caller: Arc::clone(caller), room: None })
        } else {
            Err(Refusal::Caller)
        }
    }

    /// With the room that its body takes, until it is answered.
    pub(super) fn keeping(mut self, room: Option<PoolPermit>) -> Self {
        self.room = room.map(Box::new);
        self
    }

    /// Whoever answers has read the body.
    pub(super) fn answered(&mut self) {
        self.room = None;
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.caller.left();
    }
}
