//! A clock for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{TimeSource, Timestamp, millis};

/// A clock that stands still until a test moves it.
///
/// ```
/// use std::time::Duration;
/// use rotogate::clock::{ManualTime, TimeSource, Timestamp};
///
/// let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
/// let builder = rotogate::Gate::builder().time(time.clone());
/// # let _ = builder;
/// time.advance(Duration::from_secs(600));
/// assert_eq!(time.wall(), Timestamp::from_secs(1_800_000_600));
/// ```
#[derive(Debug)]
pub struct ManualTime {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualTime {
    /// Creates a clock at `wall`.
    pub fn at(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(wall.0), monotonic: AtomicU64::new(0) })
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets only the wall clock.
    pub fn set_wall(&self, to: Timestamp) {
        self.wall.store(to.0, Ordering::SeqCst);
    }
}

impl TimeSource for ManualTime {
    fn wall(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
    }
}
