//! Makes a start wait for the end of a store failover, just as a running gate does.

use std::time::Duration;

use rotogate_core::fault::Chain;
use rotogate_core::store::{StoreError, WriteOutcome};
use tokio::time::Instant;

/// How long a start waits for a store during a failover (requirement C44). Failovers usually take less time.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// The attempts of one start.
pub(crate) struct StartWait {
    begun: Instant,
    is_said: bool,
}

impl StartWait {
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), is_said: false }
    }

    /// Waits before the next attempt. Logs the reason at the first call. Returns false at once if another attempt is
    /// useless, because an operator must act or the waiting time has passed.
    pub(crate) async fn pause(&mut self, error: &StoreError) -> bool {
        // The server refuses the gate, so only an operator can correct the cause.
        if error.is_for_operator() || error.outcome() == WriteOutcome::Refused || self.begun.elapsed() >= PATIENCE {
            return false;
        }
        if !std::mem::replace(&mut self.is_said, true) {
            tracing::warn!(
                error = ?Chain(error),
                "the store does not respond yet; the gate tries again for at most 15 s"
            );
        }
        tokio::time::sleep(PAUSE).await;
        true
    }
}

/// Connects to the store. During a failover it retries until the store is available, the store refuses the gate, or the
/// waiting time has passed.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) async fn once_it_is_there<T, C>(mut connect: impl FnMut() -> C) -> Result<T, StoreError>
where
    C: Future<Output = Result<T, StoreError>>,
{
    let mut wait = StartWait::begin();
    loop {
        let error = match connect().await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if !wait.pause(&error).await {
            return Err(error);
        }
    }
}
