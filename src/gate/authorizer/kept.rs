//! A small cache, for each thread, of encoded responses for permitted requests. The gate uses the cache only after it
//! has permitted a request. A response depends only on the caller's token and the route, unless headers of the request
//! must be removed.
//!
//! The pointers to the token and the route select the slot. A cached response keeps both alive, so their addresses
//! cannot be reused.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use rotogate_core::route::Route;
use rotogate_core::verify_cache::Verified;

const SLOTS: usize = 1024;
/// The cached responses of a thread take at most 2 MiB.
const MAX_ANSWER_BYTES: usize = 2048;

thread_local! {
    static KEPT: RefCell<Vec<Option<Slot>>> = const { RefCell::new(Vec::new()) };
}

struct Slot {
    caller: Weak<Verified>,
    route: Weak<Route>,
    answer: Bytes,
}

impl Slot {
    fn is_of(&self, caller: &Arc<Verified>, route: &Arc<Route>) -> bool {
        Weak::as_ptr(&self.caller) == Arc::as_ptr(caller) && Weak::as_ptr(&self.route) == Arc::as_ptr(route)
    }
}

/// Each thread has its own cache.
pub(super) fn find(caller: &Arc<Verified>, route: &Arc<Route>) -> Option<Bytes> {
    KEPT.with_borrow(|slots| {
        let slot = slots.get(slot_of(caller, route))?.as_ref()?;
        slot.is_of(caller, route).then(|| slot.answer.clone())
    })
}

pub(super) fn keep(caller: &Arc<Verified>, route: &Arc<Route>, answer: &Bytes) {
    if answer.len() > MAX_ANSWER_BYTES {
        return;
    }
    let slot = Slot { caller: Arc::downgrade(caller), route: Arc::downgrade(route), answer: answer.clone() };
    KEPT.with_borrow_mut(|slots| {
        if slots.is_empty() {
            slots.resize_with(SLOTS, || None);
        }
        if let Some(place) = slots.get_mut(slot_of(caller, route)) {
            *place = Some(slot);
        }
    });
}

fn slot_of(caller: &Arc<Verified>, route: &Arc<Route>) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let addresses = Arc::as_ptr(caller).addr() ^ Arc::as_ptr(route).addr().rotate_left(16);
    let spread = u64::try_from(addresses).unwrap_or_default().wrapping_mul(ODD);
    usize::try_from(spread >> 48).unwrap_or_default() % SLOTS
}
