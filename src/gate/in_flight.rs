//! Counts the concurrent requests of each caller.

use std::sync::Arc;

use super::Inner;
use crate::overload::{PoolPermit, Refusal};
use crate::verify_cache::Verified;

/// One request of a caller, counted from its admission to the last byte of its reply.
pub(super) struct InFlightSlot {
    caller: Arc<Verified>,
    /// The buffer permit of the request body, if the gate buffers it.
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
