//! The findings of a check about the server of a shared store.

use std::time::Duration;

use crate::clock::{SystemTime, TimeSource};
use crate::fault::StoreError;

/// How often a round trip is measured. The shortest measurement is used, because longer ones include other delays.
const MEASURED: u32 = 5;

/// The kind of a server, and its round-trip time.
#[derive(Clone, Debug)]
pub struct InspectedServer {
    /// A description of the server, for people.
    pub found: String,
    /// The shortest of a few measured round trips.
    pub round_trip: Duration,
}

/// Measures the round-trip time: the shortest of several successive requests.
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
