//! Permits for WebSockets whose messages the gate reads.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Holder, Pool, PoolPermit, Refusal};

/// The permit of a WebSocket. Until the first valid token, the WebSocket counts as anonymous. After that, the WebSocket
/// counts as a tunnel of the caller.
#[derive(Debug)]
pub struct SocketPermit {
    place: Mutex<(Option<PoolPermit>, Option<Holder>)>,
    is_known: AtomicBool,
    tunnels: Pool,
    buffered: Pool,
}

impl SocketPermit {
    /// Takes a permit for a socket.
    ///
    /// # Errors
    /// Too many anonymous sockets are open, in total or from this address.
    pub fn new(overload: &super::Overload, address: Option<Holder>) -> Result<Self, Refusal> {
        let place = overload.sockets.enter(address).map_err(|_| Refusal::Sockets)?;
        Ok(Self {
            place: Mutex::new((Some(place), address)),
            is_known: AtomicBool::new(false),
            tunnels: overload.tunnels.clone(),
            buffered: overload.buffered.clone(),
        })
    }

    /// Whether a valid token was presented on the socket.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Charges the permit to the caller who presented a valid token. Only the first call has an effect.
    pub fn know(&self, caller: Holder) -> Result<(), Refusal> {
        if self.is_known() {
            return Ok(());
        }
        let tunnel = self.tunnels.enter(Some(caller)).map_err(|_| Refusal::Tunnels)?;
        *self.place.lock() = (Some(tunnel), Some(caller));
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a permit for buffered bytes.
    pub fn buffer(&self, bytes: usize) -> Result<PoolPermit, Refusal> {
        let holder = self.place.lock().1;
        self.buffered.take(holder, bytes).map_err(|_| Refusal::Buffered)
    }
}
