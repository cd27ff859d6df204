//! A start in the middle of a failover waits, as a gate that runs does.

use std::time::Duration;

use rotogate::store::{StoreError, WriteOutcome};
use tokio::time::Instant;

/// How long a start waits for a store that is in the middle of a failover (requirement C44): as long as one takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// May a start that failed by this error succeed soon? What an operator must mend is refused by the server.
pub(super) fn may_pass(error: &StoreError, begun: Instant) -> bool {
    error.outcome() != WriteOutcome::Refused && begun.elapsed() < PATIENCE
}

/// Says why a start waits.
pub(super) fn say(error: &StoreError) {
    tracing::warn!(error = ?rotogate::fault::Chain(error), "the store is not there yet: the start tries again, for 15 s at most");
}

/// Tries until the store is there, or is refused, or does not come.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) async fn once_it_is_there<T, C>(mut connect: impl FnMut() -> C) -> Result<T, StoreError>
where
    C: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    let mut is_said = false;
    loop {
        match connect().await {
            Err(error) if may_pass(&error, begun) => {
                if !is_said {
                    say(&error);
                }
                is_said = true;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
