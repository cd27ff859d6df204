//! The result of checking a shared store's server.

use std::time::Duration;

use crate::clock::{SystemTime, TimeSource};
use crate::fault::StoreError;

/// Longer measurements include other delays, so only the shortest counts.
const MEASURED: u32 = 5;

/// The description and the round-trip time of a server.
#[derive(Clone, Debug)]
pub struct InspectedServer {
    /// A human-readable description.
    pub found: String,
    /// The shortest measured round trip.
    pub round_trip: Duration,
}

/// Measures the shortest round trip of several requests.
///
/// # Errors
/// A request fails.
pub async fn round_trip<T, A>(mut ask: impl FnMut() -> A) -> Result<Duration, StoreError>
where
    A: Future<Output = Result<T, StoreError>>,
{
    let time = SystemTime::new();
    let mut shortest = Duration::MAX;
    for _ in 0..MEASURED {
        let asked = time.monotonic();
        ask().await?;
        shortest = shortest.min(time.monotonic().saturating_sub(asked));
    }
    Ok(shortest)
}
