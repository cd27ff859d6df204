//! The time that the engine uses. Only this module reads the system clocks. **Engine time** starts at the wall clock or
//! at the last time in the store, whichever is later. It moves forward with the monotonic clock.
//!
//! A wall clock that steps back therefore does not extend any time limit. If the wall clock jumps ahead by more than an
//! hour, the engine does not follow it (see `ClockState`). If several gates share a store, engine time is the store's
//! time. The gate then only compares the wall clock with engine time.
//!
//! On Linux and Android, the monotonic clock includes suspensions of the machine (CLOCK_BOOTTIME). On other systems, a
//! suspension of more than an hour looks like a jump of the wall clock. Timeouts and pauses use tokio's clock, which
//! tests can control. Tokio's clock never decides whether a credential is valid. The expiry of our own tokens is
//! compared with the later of engine time and wall clock. A token therefore expires in time even if one of these clocks
//! is slow.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Number;

#[cfg(any(test, feature = "test-util"))]
mod test;
#[cfg(any(test, feature = "test-util"))]
pub use test::ManualTime;

/// The end of the year 9999, in seconds. Calculations up to this time cannot overflow.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// The largest step forward of the wall clock that the engine follows.
pub const MAX_JUMP: Duration = Duration::from_secs(3600);

/// A point in time, in milliseconds since the Unix epoch.
///
/// ```
/// use std::time::Duration;
/// use rotogate::clock::Timestamp;
///
/// let expires = Timestamp::from_secs(1_800_000_000);
/// let refresh_at = expires.minus(Duration::from_secs(30));
/// assert_eq!(refresh_at.as_secs(), 1_799_999_970);
/// assert_eq!(expires.plus(Duration::MAX), Timestamp::MAX, "arithmetic saturates");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// The latest timestamp, which means "never".
    pub const MAX: Self = Self(u64::MAX);

    /// Creates a timestamp from milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Converts a NumericDate (RFC 7519 §2). Returns `None` before 1970 and after the year 9999.
    pub(crate) fn from_numeric_date(number: &Number) -> Option<Self> {
        match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) if seconds <= LAST_SECOND => Some(Self::from_secs(seconds)),
            // Rounding down is safe for `exp`.
            (None, Some(seconds)) if (0.0..=LAST_SECOND as f64).contains(&seconds) => {
                Some(Self::from_millis((seconds * 1000.0) as u64))
            }
            _ => None,
        }
    }

    /// Creates a timestamp from seconds since the epoch, with saturation.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down, as in a JWT NumericDate (RFC 7519 §2).
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Whole seconds since the epoch, rounded up.
    pub const fn as_secs_rounded_up(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// Adds a duration. Saturates at [`Timestamp::MAX`].
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Subtracts a duration. Saturates at [`Timestamp::ZERO`].
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// The time since `earlier`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Formats the time as in RFC 3339, to the millisecond, for logs.
    pub fn rfc3339(self) -> impl fmt::Display {
        const LAST: u64 = 253_402_300_799_999;
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(self.0.min(LAST)))
    }
}

crate::debug_with!(Timestamp, |it, f| write!(f, "{}ms", it.0));

const fn millis(d: Duration) -> u64 {
    let ms = d.as_millis();
    if ms > u64::MAX as u128 { u64::MAX } else { ms as u64 }
}

/// A source of time.
///
/// ```
/// use std::time::Duration;
/// use rotogate::clock::{TimeSource, Timestamp};
///
/// /// A clock that stands still, for runs that can be repeated.
/// struct Fixed;
///
/// impl TimeSource for Fixed {
///     fn wall(&self) -> Timestamp { Timestamp::from_secs(1_800_000_000) }
///     fn monotonic(&self) -> Duration { Duration::ZERO }
/// }
/// let builder = rotogate::Gate::builder().time(std::sync::Arc::new(Fixed));
/// # let _ = builder;
/// ```
pub trait TimeSource: Send + Sync + 'static {
    /// The wall clock, which may step in either direction.
    fn wall(&self) -> Timestamp;
    /// The monotonic time since a fixed point of this process.
    fn monotonic(&self) -> Duration;
}

/// The wall clock in microseconds since 1970, only for logs.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemTime {
    start: Monotonic,
}

impl SystemTime {
    /// Creates a source with the system clocks. All sources have the same starting point, so their readings can be
    /// compared.
    pub fn new() -> Self {
        static START: OnceLock<Monotonic> = OnceLock::new();
        Self { start: *START.get_or_init(Monotonic::now) }
    }
}

/// This clock also counts while the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy, Debug)]
struct Monotonic(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn thread_cpu_time() -> Duration {
    let read = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (secs, nanos) = (u64::try_from(read.tv_sec).unwrap_or(0), u32::try_from(read.tv_nsec).unwrap_or(0));
    Duration::new(secs, nanos)
}

/// Falls back to the monotonic time.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn thread_cpu_time() -> Duration {
    static CLOCK: std::sync::LazyLock<SystemTime> = std::sync::LazyLock::new(SystemTime::new);
    CLOCK.monotonic()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Monotonic {
    fn now() -> Self {
        let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // The clock's fields are never negative.
        let (secs, nanos) = (u64::try_from(read.tv_sec).unwrap_or(0), u32::try_from(read.tv_nsec).unwrap_or(0));
        Self(Duration::new(secs, nanos))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// The system decides whether this clock counts suspensions.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy, Debug)]
struct Monotonic(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Monotonic {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn now() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl Default for SystemTime {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall = Timestamp(millis(since.unwrap_or_default()));
        #[cfg(feature = "failpoints")]
        let wall = Timestamp(crate::failpoint::shifted(wall.0));
        wall
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The state of the clocks, which determines what the engine may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// The clocks agree.
    Good,
    /// The wall clock or the shared store's clock jumped ahead by more than [`MAX_JUMP`]. The gate does not issue
    /// tokens until the clocks agree again. After a restart, the gate accepts the wall clock.
    Jumped,
    /// The last time in the store is ahead of the wall clock. The gate does not issue tokens until the wall clock
    /// reaches this time.
    Behind,
    /// The wall clock differs from the shared store's time by more than the leeway. The gate does not issue tokens
    /// until both times agree.
    Skewed,
}

/// The clock for engine time.
pub struct EngineClock {
    source: Arc<dyn TimeSource>,
    /// Engine time minus monotonic time, in ms. The offset only increases, except in [`Self::follow_store`].
    offset: AtomicU64,
    latest_offset: AtomicU64,
    /// The last stamp. A session's creation and a not-before need different milliseconds.
    last_stamp: AtomicU64,
    persisted_at_start: Timestamp,
    leeway: Duration,
    jumped: AtomicBool,
    follows_store: bool,
}

crate::debug_with!(EngineClock { now(), state() });

impl EngineClock {
    /// Starts a clock at the later of the wall clock and `persisted`, the last time in the store.
    pub fn start(source: Arc<dyn TimeSource>, persisted: Timestamp, leeway: Duration) -> Self {
        let begin = source.wall().max(persisted);
        let offset = begin.0.saturating_sub(millis(source.monotonic()));
        Self {
            source,
            offset: AtomicU64::new(offset),
            latest_offset: AtomicU64::new(offset),
            last_stamp: AtomicU64::new(0),
            persisted_at_start: persisted,
            leeway,
            jumped: AtomicBool::new(false),
            follows_store: false,
        }
    }

    /// Starts a clock that follows the time of a shared store. The store's time was read between `asked` and
    /// `answered`.
    pub fn start_with_store(
        source: Arc<dyn TimeSource>,
        (asked, answered): (Duration, Duration),
        store_time: Timestamp,
        leeway: Duration,
    ) -> Self {
        let clock = Self::start(source, Timestamp::ZERO, leeway);
        let offset = store_time.0.saturating_sub(millis((asked + answered) / 2));
        Self { offset: AtomicU64::new(offset), follows_store: true, ..clock }
    }

    /// Moves engine time to the store's time: forward at once, but back by at most a millisecond per call. If the
    /// store's time jumps ahead by more than [`MAX_JUMP`], engine time does not follow.
    pub(crate) fn follow_store(&self, (asked, answered): (Duration, Duration), store_time: Timestamp) {
        let heard = store_time.0.saturating_sub(millis((asked + answered) / 2));
        let known = self.offset.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
            let is_jump = heard > known.saturating_add(millis(MAX_JUMP));
            (!is_jump).then(|| heard.max(known.saturating_sub(1)))
        });
        self.jumped.store(known.is_err(), Ordering::Relaxed);
    }

    pub(crate) fn at(&self, monotonic: Duration) -> Timestamp {
        Timestamp(self.offset.load(Ordering::Relaxed).saturating_add(millis(monotonic)))
    }

    /// The time source of the clock.
    pub fn source(&self) -> Arc<dyn TimeSource> {
        Arc::clone(&self.source)
    }

    /// Engine time.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.offset.load(Ordering::Relaxed).saturating_add(millis(self.source.monotonic())))
    }

    /// The wall clock, for tokens of other issuers.
    pub fn wall(&self) -> Timestamp {
        self.source.wall()
    }

    /// Returns engine time, and the later of engine time and wall clock. The wall clock is estimated from the last
    /// [`tick`](Self::tick).
    pub(crate) fn now_and_latest(&self) -> (Timestamp, Timestamp) {
        let mono = millis(self.source.monotonic());
        let now = self.offset.load(Ordering::Relaxed).saturating_add(mono);
        let latest = self.latest_offset.load(Ordering::Relaxed).saturating_add(mono);
        (Timestamp(now), Timestamp(now.max(latest)))
    }

    /// The later of engine time and wall clock, for the `exp` of our own tokens.
    pub fn latest(&self) -> Timestamp {
        self.now_and_latest().1
    }

    /// Follows the wall clock forward, unless it jumped.
    pub fn tick(&self) -> ClockState {
        let mono = millis(self.source.monotonic());
        let wall = self.source.wall();
        let now = self.offset.load(Ordering::Relaxed).saturating_add(mono);
        let jumped = wall.0 > now.saturating_add(millis(MAX_JUMP));
        let wall_offset = wall.0.saturating_sub(mono);
        if !jumped && !self.follows_store {
            self.offset.fetch_max(wall_offset, Ordering::Relaxed);
        }
        self.latest_offset.store(wall.0.max(now).saturating_sub(mono), Ordering::Relaxed);
        if !self.follows_store {
            self.jumped.store(jumped, Ordering::Relaxed);
        }
        self.state()
    }

    /// The state of the clocks.
    pub fn state(&self) -> ClockState {
        if self.jumped.load(Ordering::Relaxed) {
            return ClockState::Jumped;
        }
        if self.follows_store {
            let (wall, now) = (self.source.wall(), self.now());
            let differs = wall > now.plus(self.leeway) || now > wall.plus(self.leeway);
            return if differs { ClockState::Skewed } else { ClockState::Good };
        }
        if self.persisted_at_start > self.source.wall().plus(self.leeway) {
            ClockState::Behind
        } else {
            ClockState::Good
        }
    }

    /// Returns whether engine time follows a shared store.
    pub fn follows_store(&self) -> bool {
        self.follows_store
    }

    /// The time that was read from the store at the start of this clock.
    pub fn persisted_at_start(&self) -> Timestamp {
        self.persisted_at_start
    }

    /// How far the wall clock is behind engine time, if the difference exceeds the leeway. After a restart, the gate
    /// waits for the wall clock (requirement C40).
    pub fn wall_is_behind(&self) -> Option<Duration> {
        let by = self.now().since(self.source.wall());
        (by > self.leeway).then_some(by)
    }

    /// Returns a creation time later than `after` and every not-before so far. Returns `None` if this time is ahead of
    /// engine time by more than the leeway.
    pub fn stamp_creation(&self, after: Timestamp) -> Option<Timestamp> {
        let now = self.now();
        let floor = if after == Timestamp::ZERO { 0 } else { after.0.saturating_add(1) };
        let mut stamp = 0;
        self.last_stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                stamp = now.0.max(last).max(floor);
                (stamp <= now.plus(self.leeway).0).then_some(stamp)
            })
            .is_ok()
            .then_some(Timestamp(stamp))
    }

    /// A not-before that ends all existing sessions, but no later session.
    pub fn stamp_not_before(&self) -> Timestamp {
        let now = self.now().0;
        let mut stamp = 0;
        let _ = self.last_stamp.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
            stamp = now.max(last);
            Some(stamp + 1)
        });
        Timestamp(stamp)
    }
}

/// A duration in the notation of the configuration, with days as the largest unit.
pub fn written(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    let days = duration.as_secs() / DAY;
    let rest = duration.saturating_sub(Duration::from_secs(days * DAY));
    match (days, rest.is_zero()) {
        (0, _) => humantime::format_duration(rest).to_string(),
        (_, true) => format!("{days}d"),
        (_, false) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

#[cfg(test)]
mod tests;
