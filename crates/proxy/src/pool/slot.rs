//! Slots of requests in flight.

use std::sync::Arc;

use super::{Pool, RequestHolders};
use crate::address::Address;

/// A request in flight, which counts toward the limits until this value is dropped.
pub(crate) struct InFlightSlot {
    pub(super) pool: Arc<Pool>,
    pub(super) holders: RequestHolders,
    pub(crate) address: Arc<Address>,
}

impl InFlightSlot {
    pub(crate) fn record_failure(&self, reason: &str) {
        // The only address of an upstream is never ejected.
        let pool = &self.pool;
        if pool.all().len() < 2 {
            return self.address.record_failure_alone();
        }
        if let Some(time) = self.address.record_failure(&pool.upstream) {
            let time = pool.upstream.health.is_none().then_some(time);
            pool.eject(&self.address, reason, time);
        }
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        // The order matters: a waiter that sees the free slot must also see that the holders have left.
        self.pool.leave(self.holders);
        self.address.leave();
        // Avoids a write to memory that all workers share.
        if !self.pool.queue.is_empty() {
            self.pool.serve_waiting();
        }
    }
}

rotogate_core::debug_with!(InFlightSlot { address });
