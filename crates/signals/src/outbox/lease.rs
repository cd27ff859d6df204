//! The lease by which one gate sends to a receiver.

use std::pin::pin;
use std::sync::Arc;

use super::super::record::{RENEW, StreamRecord};
use super::super::{ReceiverGate, StreamError};
use super::Sent;
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;

pub(super) struct Lease {
    gate: Arc<dyn ReceiverGate>,
    record: StreamRecord<Sent>,
    held_at: Timestamp,
    /// The adoption of the store's data since which this gate sends.
    pub(super) adopted: Timestamp,
}

impl Lease {
    pub(super) fn new(gate: Arc<dyn ReceiverGate>, record: StreamRecord<Sent>) -> Self {
        Self { gate, record, held_at: Timestamp::ZERO, adopted: Timestamp::ZERO }
    }

    /// Takes the lease, unless another gate has it. Returns the stored progress.
    pub(super) async fn take(&mut self) -> Result<Option<Sent>, StreamError> {
        (self.held_at, self.adopted) = (self.gate.now(), self.gate.adopted());
        let (known, is_held) = self.record.hold().await?;
        Ok(is_held.then_some(known))
    }

    /// Whether no other gate has sent since this gate took the lease, and positions from then have a meaning. The
    /// record decides, and not the time: a gate that stood still while no other gate took over goes on.
    pub(super) async fn renew(&mut self) -> Result<bool, StreamError> {
        let now = self.gate.now();
        if now >= self.held_at.plus(RENEW) {
            if !self.record.renew().await? {
                return Ok(false);
            }
            self.held_at = now;
        }
        Ok(self.adopted == self.gate.adopted())
    }

    /// Reads from the store, and renews the lease meanwhile. `None` if another gate has taken over.
    pub(super) async fn during<T>(
        &mut self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>, StreamError> {
        let mut reading = pin!(reading);
        loop {
            tokio::select! {
                read = &mut reading => {
                    let read = read?;
                    return Ok(self.renew().await?.then_some(read));
                }
                () = tokio::time::sleep(RENEW) => if !self.renew().await? { return Ok(None) },
            }
        }
    }
}
