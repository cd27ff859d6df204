//! Our Token Status Lists (draft-ietf-oauth-status-list): a bit for each session, for other verifiers.
//!
//! The gates of a store take blocks of indices from its register of lists: one write per thousand logins. A keyed
//! permutation makes the index of a session from its number, so an index shows neither the order nor the number of
//! logins. No index is assigned twice. When the store may have been set back (a restored copy, lost writes), all lists
//! of the register are closed, and a new list begins.
//!
//! The bits follow from the records of the sessions, which outlive the last token: a gate that starts, and every other
//! gate, finds them there. A revocation has no place of its own. If the store may have lost records, the places of its
//! lists count the other way round: a place is valid only if a live record has it. So no end is lost with its record,
//! and a revocation of a session without a record needs no place.
//!
//! Our gates never read their own lists, because they know the revocations themselves, and earlier.

mod allocator;
mod bits;
mod permutation;
mod register;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::session::StatusPlace;
use crate::store::relay::RelayStore;
use allocator::Allocator;
use bits::{LivePlaces, PublishedLists, StatusBits};

pub use bits::PublishedList;
pub use register::{RegisteredList, lists_of_key};

/// The number of indices that a gate takes from the register at once.
pub const BLOCK: u32 = 1024;
/// How long a gate assigns the indices of a block.
pub const BLOCK_FOR: Duration = Duration::from_secs(24 * 3600);

/// How status lists are published.
///
/// ```
/// use rotogate::gate::{ListSize, StatusListSettings};
///
/// let settings = StatusListSettings { size: ListSize(18), ..StatusListSettings::default() };
/// assert_eq!((&*settings.path, settings.ttl.as_secs()), ("/status", 30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusListSettings {
    /// The path of all lists; `/{n}` behind it is list n.
    pub path: String,
    /// The number of bits of a list.
    pub size: ListSize,
    /// For how long a verifier may keep a list.
    pub ttl: Duration,
    /// The time after which a verifier must not use a list any more.
    pub expires: Duration,
}

/// The number of bits of a list, by its binary logarithm: 14 to 24.
///
/// ```
/// use rotogate::gate::ListSize;
///
/// assert!(ListSize(14) < ListSize(24));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListSize(pub u8);

impl StatusListSettings {
    /// The shortest and the longest `ttl`.
    pub const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);

    /// Checks that lists can be published with these settings.
    ///
    /// # Errors
    /// The problem of the settings.
    pub fn check(&self) -> Result<(), &'static str> {
        if !(14..=24).contains(&self.size.0) {
            return Err("size must be 2^14 to 2^24");
        }
        if !Self::TTL.contains(&self.ttl) {
            return Err("ttl must be 5s to 1h");
        }
        if self.expires < self.ttl * 2 || self.expires > Duration::from_secs(24 * 3600) {
            return Err("expires must be at least twice ttl, and at most 24h");
        }
        if !self.path.starts_with('/') || self.path.ends_with('/') || self.path.contains(['{', '}', '?', '#', '%']) {
            return Err("path must begin with a slash, end without one, and be literal");
        }
        Ok(())
    }
}

impl Default for StatusListSettings {
    fn default() -> Self {
        Self {
            path: "/status".to_owned(),
            size: ListSize(20),
            ttl: Duration::from_secs(30),
            expires: Duration::from_secs(300),
        }
    }
}

/// The lists of a gate.
#[derive(Debug)]
pub struct StatusLists {
    settings: StatusListSettings,
    /// The URL of all lists.
    base: Box<str>,
    /// The longest life of a session, in seconds.
    longest: AtomicU64,
    store: Arc<dyn RelayStore>,
    allocator: tokio::sync::Mutex<Allocator>,
    /// The lists of the register, as they were read last.
    registered: ArcSwap<Vec<RegisteredList>>,
    bits: Mutex<StatusBits>,
    live: Mutex<LivePlaces>,
    published: ArcSwap<PublishedLists>,
    /// Engine time in ms until which the published lists may be served.
    usable_until: AtomicU64,
    /// Engine time in ms up to which the lists contain all ended sessions.
    complete_at: AtomicU64,
    builds: AtomicU64,
}

impl StatusLists {
    /// The lists at `public_url`, with their register in `store`.
    pub fn new(settings: StatusListSettings, public_url: &str, store: Arc<dyn RelayStore>) -> Self {
        Self {
            base: format!("{}{}", public_url.trim_end_matches('/'), settings.path).into(),
            settings,
            longest: AtomicU64::new(0),
            store,
            allocator: Default::default(),
            registered: ArcSwap::default(),
            bits: Mutex::default(),
            live: Mutex::default(),
            published: ArcSwap::default(),
            usable_until: AtomicU64::new(0),
            complete_at: AtomicU64::new(0),
            builds: AtomicU64::new(0),
        }
    }

    /// Raises the longest life of a session. A list is kept for longer than its sessions live.
    pub fn raise_longest(&self, longest: Duration) {
        self.longest.fetch_max(longest.as_secs(), Ordering::Relaxed);
    }

    /// The settings of publication.
    pub fn settings(&self) -> &StatusListSettings {
        &self.settings
    }

    /// The URL of all lists.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The published list with this number.
    ///
    /// # Errors
    /// The lists are out of date, and must not be served now.
    // Requirement S6.
    pub fn published(&self, number: u32, now: Timestamp) -> Result<Option<Arc<PublishedList>>, StaleLists> {
        if now.as_millis() >= self.usable_until.load(Ordering::Acquire) {
            return Err(StaleLists);
        }
        Ok(self.published.load().get(&number).cloned())
    }

    /// The time since the lists last contained all ended sessions.
    pub fn lag(&self, now: Timestamp) -> Duration {
        match self.complete_at.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            at => now.since(Timestamp::from_millis(at)),
        }
    }

    /// How many lists were built.
    pub fn builds(&self) -> u64 {
        self.builds.load(Ordering::Relaxed)
    }

    /// Notes that the bits contain all sessions that had ended by `at`.
    pub(crate) fn complete(&self, at: Timestamp) {
        self.complete_at.fetch_max(at.as_millis(), Ordering::AcqRel);
    }

    /// Serves the published lists until this moment.
    pub(crate) fn serve_until(&self, until: Timestamp) {
        self.usable_until.fetch_max(until.as_millis(), Ordering::AcqRel);
    }

    /// Notes that the session with this place has ended.
    pub(crate) fn set(&self, place: StatusPlace) {
        self.bits.lock().set(place);
    }
}

/// The lists are out of date, so no list is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleLists;

#[cfg(test)]
mod tests;
