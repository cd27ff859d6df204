//! The current keys of another issuer.
//!
//! Requests read the present set of keys without a lock. The set is replaced only by the task that fetches keys
//! (`rotogate-issuers`), or by an application through `Gate::set_trusted`. Each set has a generation number, and a
//! cached token stores the generation in which its key was last found. A cache hit therefore costs an atomic load and a
//! comparison. If a new set equals the old one, the generation stays the same. If a key is removed from the set, the
//! cached tokens that this key signed are no longer accepted.
//!
//! While the keys are not known, the denial is [`Denial::KeysUnavailable`], because the token may be valid and a client
//! would discard a token that is refused as invalid.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::keyring::KeyPrint;
use super::verify::IssuerKeys;
use crate::clock::{EngineClock, Timestamp};
use crate::denial::Denial;

pub use change::KeyChange;
pub use state::{IssuerKeyState, Validity};

mod change;
mod mistaken;
mod state;

/// The maximum number of requests that wait for the keys of one issuer.
const MAX_WAITING: usize = 256;
/// The value of `Retry-After` if no attempt is scheduled. This is the case if an application sets the keys, or if a
/// fetch should begin at once.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The present keys of an issuer.
pub struct LiveKeys {
    current: ArcSwapOption<FetchedKeys>,
    /// The generation of `current`. It is read at each cache hit.
    generation: AtomicU64,
    /// The time in milliseconds from which the keys are too old to be used. It is read at each cache hit.
    usable_until: AtomicU64,
    /// How keys are fetched, or `None` if an application sets them.
    fetch: Option<FetchRules>,
    fetching: Mutex<Fetching>,
    /// The number of the last attempt that has ended.
    ended: watch::Sender<u64>,
    wanted: Arc<Notify>,
    waiting: AtomicUsize,
    unknown_kids: AtomicU64,
    /// The clock of the gate that uses these keys. Requests use it to judge the age of the keys.
    clock: OnceLock<Arc<EngineClock>>,
}

/// The parameters of fetching keys that requests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRules {
    /// The shortest time between two attempts that are caused by unknown key ids. Scheduled attempts do not start this
    /// time.
    pub cooldown: Duration,
    /// The maximum duration of an attempt, which is also the maximum time that a request waits.
    pub timeout: Duration,
}

/// A set of keys, and its generation number.
struct FetchedKeys {
    keys: IssuerKeys,
    generation: u64,
}

#[derive(Default)]
struct Fetching {
    /// The number of attempts that have begun.
    begun: u64,
    /// Whether a token has triggered an attempt that has not yet begun.
    is_wanted: bool,
    /// Whether this attempt was triggered by a token whose signature does not match the key that its `kid` names.
    is_suspected: bool,
    is_under_way: bool,
    last: Option<LastAttempt>,
    /// The time at which the last successful attempt began, by the wall clock.
    answered: Option<Timestamp>,
    /// The start time of the last attempt that a token triggered.
    last_wanted: Option<Timestamp>,
    /// The start time of the last attempt that was triggered by a token whose signature does not match the key that its
    /// `kid` names. Anyone can make such tokens, so this attempt does not delay an attempt for an unknown `kid`.
    last_suspected: Option<Timestamp>,
    fresh_until: Timestamp,
}

#[derive(Clone, Copy)]
struct LastAttempt {
    /// The time at which the attempt began, by engine time. `began_wall` is the same moment by the wall clock, to which
    /// the times in tokens refer.
    began: Timestamp,
    began_wall: Timestamp,
    result: AttemptResult,
}

#[derive(Clone, Copy, Debug)]
enum AttemptResult {
    Good,
    Failed { next: Timestamp },
}

/// Returns the keys, or `None` for an empty set, which means that the keys are not known.
fn known(keys: IssuerKeys) -> Option<IssuerKeys> {
    (!keys.is_empty()).then_some(keys)
}

/// A reference to the present set.
pub(crate) struct PresentKeys(Guard<Option<Arc<FetchedKeys>>>);

impl PresentKeys {
    pub(crate) fn get(&self) -> Option<&IssuerKeys> {
        self.0.as_ref().map(|set| &set.keys)
    }
}

impl LiveKeys {
    /// A set of keys that are not yet known and are fetched under these rules.
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

    /// Replaces the keys. If the new set equals the old one, the generation stays the same. An empty set means that the
    /// keys are not known.
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

    /// Extends the time for which the present keys may be used.
    pub fn renew(&self, validity: Validity) {
        self.validate(&mut self.fetching(), validity);
    }

    /// Removes all keys. None of the issuer's tokens is accepted until another set arrives.
    pub fn clear(&self) {
        let mut fetching = self.fetching();
        self.replace(None);
        self.validate(&mut fetching, Validity { fresh_until: Timestamp::ZERO, usable_until: Timestamp::ZERO });
    }

    /// The caller must have locked `fetching`, so that replacements are ordered.
    fn replace(&self, keys: Option<IssuerKeys>) {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        self.current.store(keys.map(|keys| Arc::new(FetchedKeys { keys, generation })));
        // The generation is stored after the set, so that a request that reads the new generation finds the new set.
        self.generation.store(generation, Ordering::Release);
    }

    fn validate(&self, fetching: &mut Fetching, validity: Validity) {
        fetching.fresh_until = validity.fresh_until;
        self.usable_until.store(validity.usable_until.as_millis(), Ordering::Release);
    }

    /// The present set of keys.
    pub(crate) fn present(&self) -> PresentKeys {
        PresentKeys(self.current.load())
    }

    /// The present set of keys, unless it is too old.
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

    /// Returns whether the keys are fetched, rather than set by an application.
    pub(crate) fn is_fetched(&self) -> bool {
        self.fetch.is_some()
    }

    /// Returns whether both objects have the same keys. Two different sets whose keys are fetched are never equal.
    pub(crate) fn equals(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        if Arc::ptr_eq(self, other) {
            return true;
        }
        let (own, other_keys) = (self.present(), other.present());
        let are_equal = own.get().zip(other_keys.get()).is_some_and(|(own, other)| own.equals(other));
        !self.is_fetched() && !other.is_fetched() && are_equal
    }

    /// The state of the keys at this moment.
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

    /// Checks that the key of a cached token is still in the set. `stamp` is the generation in which the key was last
    /// found, and initially 0.
    ///
    /// # Errors
    /// The key is no longer in the set, or the keys are not known at this moment.
    pub(crate) fn recheck(&self, key: &KeyPrint, stamp: &AtomicU64, now: Timestamp) -> Result<(), Denial> {
        if self.are_usable(now) && stamp.load(Ordering::Relaxed) == self.generation.load(Ordering::Acquire) {
            return Ok(());
        }
        stamp.store(self.generation_with(key, now)?, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that the key is still in the set.
    ///
    /// # Errors
    /// The errors of `Self::recheck`.
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

    /// Returns the denial for a token whose key is not in the set. `issued_at` is the token's `iat`, which is not
    /// verified. `leeway` is the accepted difference between the issuer's clock and ours. If the rules permit an
    /// attempt to fetch keys now, this function requests the attempt.
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

    /// Returns the denial that [`Self::missing`] would return, but does not count the token, and does not request new
    /// keys.
    pub(crate) fn foresee_missing(&self, now: Timestamp, issued_at: Option<Timestamp>, leeway: Duration) -> Denial {
        let fetching = self.fetching();
        self.judge_missing((&fetching, fetching.last_wanted), now, issued_at, leeway).0
    }

    /// Returns the denial, and whether an attempt to fetch keys should begin. The cooldown starts at `last_wanted`.
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
            // After a failed fetch the token may still be valid. Only the retry schedule decides when to contact the
            // issuer again.
            AttemptResult::Failed { .. } => (Denial::KeysUnavailable(fetching.next_try(now)), false),
            AttemptResult::Good => {
                // The token and its key may be newer than the issuer's last response. In that case, the cooldown
                // applies only after an attempt that a token triggered, because a scheduled attempt must not delay the
                // use of a key that is published one second later (requirement I51). A token without `iat` may also be
                // newer, but it is refused if another attempt has just failed to find its key.
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

    /// Returns a permit to wait for the requested or running attempt. Returns `None` if no attempt is requested or
    /// running, or if too many requests are waiting.
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

    /// Sets the clock by which requests judge the age of the keys. Only the first call has an effect.
    pub fn set_clock(&self, clock: &Arc<EngineClock>) {
        if self.clock.set(Arc::clone(clock)).is_ok() {
            self.wanted.notify_one();
        }
    }

    /// The clock by which requests judge the age of the keys, once it is known.
    pub fn clock(&self) -> Option<&Arc<EngineClock>> {
        self.clock.get()
    }

    /// The notifier that is triggered when a request needs keys, when the clock is known, and when the keys are
    /// dropped.
    pub fn wants(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// Returns whether a request has asked for an attempt that has not yet begun.
    pub fn is_wanted(&self) -> bool {
        self.fetching().is_wanted
    }

    /// Begins an attempt to fetch keys. `wall` is the time by the wall clock, to which the times in tokens refer.
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

    /// The number of times that a token named a key that is not in the set.
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

/// The fetching task has no reference to the keys while it waits. Dropping the keys wakes the task, which then ends.
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

/// A running attempt to fetch keys. An attempt that is dropped without a result has failed.
#[derive(Debug)]
pub struct FetchAttempt {
    keys: Arc<LiveKeys>,
    number: u64,
    began: Timestamp,
    began_wall: Timestamp,
    result: Option<AttemptResult>,
}

impl FetchAttempt {
    /// Records that the issuer responded. Set or renew the keys before this call.
    pub fn succeed(mut self) {
        self.result = Some(AttemptResult::Good);
    }

    /// Records that there was no usable response from the issuer. The next attempt is at `next`.
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
    /// Waits for the end of the attempt. Returns true if the result is final for a token that arrived before the
    /// attempt began. In that case the token must be refused if its key is still missing.
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
