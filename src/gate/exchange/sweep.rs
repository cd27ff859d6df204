use std::sync::Arc;

use crate::gate::Inner;
use rotogate_core::verify_cache::Verified;

impl Inner {
    /// Drops expired tokens and the tokens of revoked callers, even if there are no further exchanges.
    // Requirement D15.
    pub(in crate::gate) fn sweep_exchanges(&self) {
        let now = self.engine.clock().now();
        let is_over = |caller: &Arc<Verified>| self.checker.check_known(Arc::clone(caller), &mut ()).is_err();
        let mut state = self.running.exchanges.state.lock();
        state.swept = now;
        state.table.sweep(|entry| now >= entry.until || is_over(&entry.caller));
    }
}
