//! The current keys of another issuer.
//!
//! Requests read the keys without a lock. Either the task in `rotogate-issuers` or an application (`Gate::set_trusted`)
//! replaces the keys.
//!
//! Each changed set has a new generation number. A cached token stores the generation in which its key was last found.
//! A cache hit therefore costs an atomic load and a comparison.
//!
//! While the keys are unknown, the denial is [`Denial::KeysUnavailable`], so that clients keep the
//! token.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::keyring::KeyPrint;
use super::verify::keys::IssuerKeys;
use crate::clock::{EngineClock, Timestamp};
use crate::denial::Denial;

pub use change::KeyChange;
pub use state::{IssuerKeyState, Validity};

mod change;
mod mistaken;
mod state;

const MAX_WAITING: usize = 256;
/// The gate sends this `Retry-After` if no attempt is scheduled.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// An issuer's current keys.
pub struct LiveKeys {
    current: ArcSwapOption<FetchedKeys>,
    /// Each cache hit reads this number.
    generation: AtomicU64,
    /// The time in milliseconds at which the keys become too old. Each cache hit reads this value.
    usable_until: AtomicU64,
    /// `None` means that an application sets the keys.
    fetch: Option<FetchRules>,
    fetching: Mutex<Fetching>,
    ended: watch::Sender<u64>,
    wanted: Arc<Notify>,
    waiting: AtomicUsize,
    unknown_kids: AtomicU64,
    clock: OnceLock<Arc<EngineClock>>,
}

/// Limits on the key fetches that requests cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRules {
    /// The shortest time between two attempts for unknown key ids. Scheduled attempts do not count.
    pub cooldown: Duration,
    /// The time limit of an attempt, and of requests that wait for it.
    pub timeout: Duration,
}

struct FetchedKeys {
    keys: IssuerKeys,
    generation: u64,
}

#[derive(Default)]
struct Fetching {
    begun: u64,
    /// True if a token has triggered an attempt that has not begun.
    is_wanted: bool,
    /// True if a wrong signature under a known `kid` triggered the attempt.
    is_suspected: bool,
    is_under_way: bool,
    last: Option<LastAttempt>,
    /// The start of the last successful attempt, by the wall clock.
    answered: Option<Timestamp>,
    /// The start of the last attempt that a token triggered.
    last_wanted: Option<Timestamp>,
    /// The last attempt that a wrong signature triggered. Anyone can send a token with a wrong signature, so this must
    /// not delay an attempt for an unknown `kid`.
    last_suspected: Option<Timestamp>,
    fresh_until: Timestamp,
}

#[derive(Clone, Copy)]
struct LastAttempt {
    /// This is engine time. `began_wall` is wall-clock time, which tokens use.
    began: Timestamp,
    began_wall: Timestamp,
    result: AttemptResult,
}

#[derive(Clone, Copy, Debug)]
enum AttemptResult {
    Good,
    Failed { next: Timestamp },
}

/// An empty set means that the keys are unknown.
fn known(keys: IssuerKeys) -> Option<IssuerKeys> {
    (!keys.is_empty()).then_some(keys)
}

pub(crate) struct PresentKeys(Guard<Option<Arc<FetchedKeys>>>);

impl PresentKeys {
    pub(crate) fn get(&self) -> Option<&IssuerKeys> {
        self.0.as_ref().map(|set| &set.keys)
    }
}

impl LiveKeys {
    /// Creates an empty set whose keys are fetched.
    pub fn fetched(rules: FetchRules) -> Arc<Self> {
        Arc::new(Self::new(None, Some(rules)))
    }

    fn new(keys: Option<IssuerKeys>, fetch: Option<FetchRules>) -> Self {
        let usable_until = if keys.is_some() { Timestamp::MAX } else { Timestamp::ZERO };
        Self {
            current: ArcSwapOption::from_pointee(keys.map(|keys| FetchedKeys { keys, generation: 1 })),
            generation: AtomicU64::new(1),
            usable_until: AtomicU64::new(usable_until.as_millis()),
            fetch,
            fetching: Mutex::new(Fetching { fresh_until: usable_until, ..Fetching::default() }),
            ended: watch::Sender::new(0),
            wanted: Arc::default(),
            waiting: AtomicUsize::new(0),
            unknown_kids: AtomicU64::new(0),
            clock: OnceLock::new(),
        }
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock()
    }

    /// Replaces the keys. An empty set means that the keys are unknown.
    pub fn set(&self, keys: IssuerKeys, validity: Validity) -> KeyChange {
        let keys = known(keys);
        let mut fetching = self.fetching();
        let old = self.current.load();
        let change = KeyChange::between(old.as_ref().map(|set| &set.keys), keys.as_ref());
        let is_equal = match (old.as_ref(), keys.as_ref()) {
            (Some(old), Some(new)) => old.keys.equals(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !is_equal {
            self.replace(keys);
        }
        self.validate(&mut fetching, validity);
        change
    }

    /// Extends the time for which the keys may be used.
    pub fn renew(&self, validity: Validity) {
        self.validate(&mut self.fetching(), validity);
    }

    /// Removes all keys, so that the issuer's tokens are no longer accepted.
    pub fn clear(&self) {
        let mut fetching = self.fetching();
        self.replace(None);
        self.validate(&mut fetching, Validity { fresh_until: Timestamp::ZERO, usable_until: Timestamp::ZERO });
    }

    /// The caller must have locked `fetching`.
    fn replace(&self, keys: Option<IssuerKeys>) {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        self.current.store(keys.map(|keys| Arc::new(FetchedKeys { keys, generation })));
        // A request that reads the new generation must find the new keys.
        self.generation.store(generation, Ordering::Release);
    }

    fn validate(&self, fetching: &mut Fetching, validity: Validity) {
        fetching.fresh_until = validity.fresh_until;
        self.usable_until.store(validity.usable_until.as_millis(), Ordering::Release);
    }

    pub(crate) fn present(&self) -> PresentKeys {
        PresentKeys(self.current.load())
    }

    /// Returns `None` if the keys are too old.
    pub(crate) fn usable(&self, now: Timestamp) -> Option<PresentKeys> {
        self.are_usable(now).then(|| self.present())
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.present().get().map_or(0, IssuerKeys::len)
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_fetched(&self) -> bool {
        self.fetch.is_some()
    }

    /// Two different sets of fetched keys never count as equal.
    pub(crate) fn equals(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        if Arc::ptr_eq(self, other) {
            return true;
        }
        let (own, other_keys) = (self.present(), other.present());
        let are_equal = own.get().zip(other_keys.get()).is_some_and(|(own, other)| own.equals(other));
        !self.is_fetched() && !other.is_fetched() && are_equal
    }

    /// The current state of the keys.
    pub fn state(&self, now: Timestamp) -> IssuerKeyState {
        let fetching = self.fetching();
        let failed = fetching.last.is_some_and(|last| matches!(last.result, AttemptResult::Failed { .. }));
        match (self.is_empty(), self.are_usable(now)) {
            (true, _) => IssuerKeyState::Empty,
            (false, false) => IssuerKeyState::Stale,
            (false, true) if failed || now >= fetching.fresh_until => IssuerKeyState::Aging,
            (false, true) => IssuerKeyState::Fresh,
        }
    }

    fn are_usable(&self, now: Timestamp) -> bool {
        now.as_millis() < self.usable_until.load(Ordering::Acquire)
    }

    /// Checks that the key of a cached token still exists. `stamp` is the last generation that had the key, initially
    /// 0.
    ///
    /// # Errors
    /// The key no longer exists, or the keys are unknown at the moment.
    pub(crate) fn recheck(&self, key: &KeyPrint, stamp: &AtomicU64, now: Timestamp) -> Result<(), Denial> {
        if self.are_usable(now) && stamp.load(Ordering::Relaxed) == self.generation.load(Ordering::Acquire) {
            return Ok(());
        }
        stamp.store(self.generation_with(key, now)?, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that the key still exists.
    ///
    /// # Errors
    /// The key no longer exists, or the keys are unknown at the moment.
    pub fn holds(&self, key: &KeyPrint, now: Timestamp) -> Result<(), Denial> {
        self.generation_with(key, now).map(drop)
    }

    fn generation_with(&self, key: &KeyPrint, now: Timestamp) -> Result<u64, Denial> {
        let current = self.current.load();
        match current.as_ref() {
            Some(_) if !self.are_usable(now) => Err(self.unavailable(now)),
            Some(set) if set.keys.holds(key) => Ok(set.generation),
            Some(_) => Err(Denial::UnknownKey),
            None => Err(self.unavailable(now)),
        }
    }

    fn unavailable(&self, now: Timestamp) -> Denial {
        Denial::KeysUnavailable(self.fetching().next_try(now))
    }

    /// Returns the denial for a token whose key is missing. Requests a fetch of keys if the rules allow one.
    ///
    /// `issued_at` is the token's unverified `iat`, and `leeway` is the accepted difference between the clocks.
    pub fn missing(&self, now: Timestamp, issued_at: Option<Timestamp>, leeway: Duration) -> Denial {
        self.unknown_kids.fetch_add(1, Ordering::Relaxed);
        let mut fetching = self.fetching();
        let (denial, is_due) = self.judge_missing((&fetching, fetching.last_wanted), now, issued_at, leeway);
        self.ask_if(is_due, &mut fetching);
        denial
    }

    fn ask_if(&self, is_due: bool, fetching: &mut Fetching) {
        if is_due {
            fetching.is_wanted = true;
            self.wanted.notify_one();
        }
    }

    /// Works like [`Self::missing`], but without side effects.
    pub(crate) fn foresee_missing(&self, now: Timestamp, issued_at: Option<Timestamp>, leeway: Duration) -> Denial {
        let fetching = self.fetching();
        self.judge_missing((&fetching, fetching.last_wanted), now, issued_at, leeway).0
    }

    /// Also returns whether to begin a fetch.
    fn judge_missing(
        &self,
        (fetching, last_wanted): (&Fetching, Option<Timestamp>),
        now: Timestamp,
        issued_at: Option<Timestamp>,
        leeway: Duration,
    ) -> (Denial, bool) {
        let has_keys = !self.is_empty() && self.are_usable(now);
        let Some(rules) = self.fetch else {
            return (if has_keys { Denial::UnknownKey } else { Denial::KeysUnavailable(TRY_AGAIN) }, false);
        };
        if fetching.is_under_way || fetching.is_wanted {
            return (Denial::KeysUnavailable(TRY_AGAIN), false);
        }
        let Some(last) = &fetching.last else { return (Denial::KeysUnavailable(TRY_AGAIN), true) };
        match last.result {
            // The token may still be valid, but it cannot trigger an attempt before the scheduled retry.
            AttemptResult::Failed { .. } => (Denial::KeysUnavailable(fetching.next_try(now)), false),
            AttemptResult::Good => {
                // A scheduled attempt must not delay the use of a key that is published a second later (requirement
                // I51). A token without `iat` is refused if an attempt has just failed to find its key.
                let is_newer = issued_at.is_some_and(|issued_at| issued_at > last.began_wall.minus(leeway));
                let since = if is_newer || issued_at.is_none() { last_wanted } else { Some(last.began) };
                let rest = since.map_or(Duration::ZERO, |since| rules.cooldown.saturating_sub(now.since(since)));
                if rest.is_zero() {
                    return (Denial::KeysUnavailable(TRY_AGAIN), true);
                }
                let may_exist = is_newer || !has_keys;
                (if may_exist { Denial::KeysUnavailable(rest.max(TRY_AGAIN)) } else { Denial::UnknownKey }, false)
            }
        }
    }

    /// Returns a permit to wait for the requested or running attempt. Returns `None` if there is no such attempt, or if
    /// too many requests wait.
    pub fn join(self: &Arc<Self>) -> Option<KeysWait> {
        let rules = self.fetch?;
        let (attempt, begins_later) = {
            let fetching = self.fetching();
            match (fetching.is_under_way, fetching.is_wanted) {
                (true, _) => (fetching.begun, false),
                (false, true) => (fetching.begun + 1, true),
                (false, false) => return None,
            }
        };
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let wait = KeysWait { keys: Arc::clone(self), attempt, begins_later, timeout: rules.timeout };
        (waiting < MAX_WAITING).then_some(wait)
    }

    /// Sets the clock that measures the age of the keys. Only the first call has an effect.
    pub fn set_clock(&self, clock: &Arc<EngineClock>) {
        if self.clock.set(Arc::clone(clock)).is_ok() {
            self.wanted.notify_one();
        }
    }

    /// The clock for the age of the keys, or `None` until it is set.
    pub fn clock(&self) -> Option<&Arc<EngineClock>> {
        self.clock.get()
    }

    /// Notifies when a request needs keys, when the clock is set, and when the keys are dropped.
    pub fn wants(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// Returns whether a requested attempt is pending.
    pub fn is_wanted(&self) -> bool {
        self.fetching().is_wanted
    }

    /// Begins an attempt to fetch keys. `wall` is the wall-clock time, to which tokens refer.
    pub fn begin(self: &Arc<Self>, now: Timestamp, wall: Timestamp) -> FetchAttempt {
        let mut fetching = self.fetching();
        fetching.begun += 1;
        let is_suspected = std::mem::take(&mut fetching.is_suspected);
        if std::mem::take(&mut fetching.is_wanted) {
            *(if is_suspected { &mut fetching.last_suspected } else { &mut fetching.last_wanted }) = Some(now);
        }
        fetching.is_under_way = true;
        FetchAttempt { keys: Arc::clone(self), number: fetching.begun, began: now, began_wall: wall, result: None }
    }

    /// The number of requests that wait for keys.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How often a token named a key that does not exist.
    pub fn unknown_kids(&self) -> u64 {
        self.unknown_kids.load(Ordering::Relaxed)
    }
}

impl Fetching {
    fn next_try(&self, now: Timestamp) -> Duration {
        match self.last.map(|last| last.result) {
            Some(AttemptResult::Failed { next }) => next.since(now).max(TRY_AGAIN),
            Some(AttemptResult::Good) | None => TRY_AGAIN,
        }
    }
}

/// Wakes the fetching task, which has only a weak reference while it waits.
impl Drop for LiveKeys {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

impl From<IssuerKeys> for Arc<LiveKeys> {
    fn from(keys: IssuerKeys) -> Self {
        Self::new(LiveKeys::new(known(keys), None))
    }
}

crate::debug_with!(LiveKeys, |it| { keys: it.present().get() });

/// A running attempt to fetch keys. An attempt that is dropped counts as failed.
#[derive(Debug)]
pub struct FetchAttempt {
    keys: Arc<LiveKeys>,
    number: u64,
    began: Timestamp,
    began_wall: Timestamp,
    result: Option<AttemptResult>,
}

impl FetchAttempt {
    /// Records a response from the issuer. Set or renew the keys before this call.
    pub fn succeed(mut self) {
        self.result = Some(AttemptResult::Good);
    }

    /// Records that the issuer did not give a usable response. The next attempt is at `next`.
    pub fn fail(mut self, next: Timestamp) {
        self.result = Some(AttemptResult::Failed { next });
    }
}

impl Drop for FetchAttempt {
    fn drop(&mut self) {
        {
            let mut fetching = self.keys.fetching();
            let result = self.result.unwrap_or(AttemptResult::Failed { next: self.began });
            fetching.is_under_way = false;
            if matches!(result, AttemptResult::Good) {
                fetching.answered = Some(self.began_wall);
            }
            fetching.last = Some(LastAttempt { began: self.began, began_wall: self.began_wall, result });
        }
        self.keys.ended.send_replace(self.number);
    }
}

/// A request's permit to wait for the keys of an issuer.
pub struct KeysWait {
    keys: Arc<LiveKeys>,
    attempt: u64,
    begins_later: bool,
    timeout: Duration,
}

impl KeysWait {
    /// Waits until the attempt finishes. If the result is true, a token whose key is still missing must be refused.
    pub async fn ended(self) -> bool {
        let mut ended = self.keys.ended.subscribe();
        let over = ended.wait_for(|last| *last >= self.attempt);
        if !matches!(tokio::time::timeout(self.timeout, over).await, Ok(Ok(_))) {
            return false;
        }
        let last = self.keys.fetching().last;
        self.begins_later && last.is_some_and(|last| matches!(last.result, AttemptResult::Good))
    }
}

impl Drop for KeysWait {
    fn drop(&mut self) {
        self.keys.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
