//! What one WebSocket holds whose messages the gate reads itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Holder, Pool, PoolPermit, Refusal};

/// The place of a WebSocket: among those of nobody known at first, and among the tunnels of its caller once a token was
/// good on it.
#[derive(Debug)]
pub struct SocketPermit {
    place: Mutex<(Option<PoolPermit>, Option<Holder>)>,
    is_known: AtomicBool,
    tunnels: Pool,
    buffered: Pool,
}

impl SocketPermit {
    pub(crate) fn new(overload: &super::Overload, address: Option<Holder>) -> Result<Self, Refusal> {
        let place = overload.sockets.enter(address).map_err(|_| Refusal::Sockets)?;
        Ok(Self {
            place: Mutex::new((Some(place), address)),
            is_known: AtomicBool::new(false),
            tunnels: overload.tunnels.clone(),
            buffered: overload.buffered.clone(),
        })
    }

    /// Was a token good on it?
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// A token of this caller's is good on it. The first one counts.
    pub(crate) fn know(&self, caller: Holder) -> Result<(), Refusal> {
        if self.is_known() {
            return Ok(());
        }
        let tunnel = self.tunnels.enter(Some(caller)).map_err(|_| Refusal::Tunnels)?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = (Some(tunnel), Some(caller));
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Room for so many bytes.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<PoolPermit, Refusal> {
        let holder = self.place.lock().unwrap_or_else(PoisonError::into_inner).1;
        self.buffered.take(holder, bytes).map_err(|_| Refusal::Buffered)
    }
}
