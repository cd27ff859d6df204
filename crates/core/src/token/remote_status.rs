//! The status lists of other issuers (draft-ietf-oauth-status-list), as requests read them to find out whether the
//! issuer has ended a token.
//!
//! A list is fetched only for a token with a good signature, from under a prefix that the operator named. While the
//! list cannot be fetched, the last good list counts for a while; then the answer is [`Denial::StatusListUnavailable`],
//! never a refusal of the token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::claims::AccessToken;
use super::verify::{Keys, ReadStatusList};
use crate::clock::{EngineClock, Timestamp};
use crate::denial::Denial;

/// The most lists of one issuer.
pub const MAX_LISTS: usize = 64;
/// The longest URL of a list.
const MAX_URL: usize = 512;
/// `Retry-After` of a request whose list is not known yet.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The longest pause between attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest wait of a request for a list.
const WAIT: Duration = Duration::from_secs(5);

/// How a token without a status is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingStatus {
    /// Good.
    #[default]
    Accept,
    /// Refused.
    Refuse,
}

/// The rules for an issuer's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRules {
    /// The permitted prefixes of a list's URL.
    pub prefixes: Vec<String>,
    /// The shortest and the longest time for which a list is kept, whatever `ttl` the list states.
    pub ttl: (Duration, Duration),
    /// How long the last good list counts while no newer list can be fetched.
    pub stale_for: Duration,
    /// How a token without a status is judged.
    pub missing: MissingStatus,
}

/// The lists of an issuer.
#[derive(Debug)]
pub struct RemoteLists {
    rules: StatusRules,
    lists: Mutex<HashMap<Box<str>, Arc<RemoteList>>>,
    wanted: Arc<Notify>,
    in_force: ArcSwapOption<InForce>,
}

/// The parts of the gate that uses the lists: they change while it runs.
#[derive(Debug)]
pub struct InForce {
    /// The keys of the issuer.
    pub keys: Keys,
    /// The clock by which requests judge the lists.
    pub clock: Arc<EngineClock>,
}

/// A list of an issuer.
#[derive(Debug)]
pub struct RemoteList {
    url: Box<str>,
    current: ArcSwapOption<ReadStatusList>,
    /// Engine time in ms until which the list counts. Read on each hit.
    usable_until: AtomicU64,
    /// Engine time in ms of the next attempt.
    next: AtomicU64,
    failures: AtomicU64,
    /// How long the list counts at most, without a newer one.
    lasts: Duration,
    /// Whether a request waits for the list.
    is_wanted: AtomicBool,
    /// The number of attempts that ended.
    ended: watch::Sender<u64>,
}

/// The place of a token in a list.
#[derive(Clone, Debug)]
pub(crate) struct StatusRef {
    list: Arc<RemoteList>,
    index: u64,
}

/// The place that a token of another issuer named. A token that was exchanged for it carries the place along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OriginStatus {
    /// `idx`.
    #[serde(rename = "idx")]
    pub(crate) index: u64,
    /// `uri`.
    #[serde(rename = "uri")]
    pub(crate) url: Box<str>,
}

impl PartialEq for StatusRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list) && self.index == other.index
    }
}

impl StatusRules {
    /// Checks that the rules are complete and valid.
    ///
    /// # Errors
    /// The problem of the rules.
    pub fn check(&self) -> Result<(), &'static str> {
        let has_path = |prefix: &str| prefix.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        if self.prefixes.is_empty() || !self.prefixes.iter().all(|prefix| has_path(prefix)) {
            return Err("prefixes must have at least one entry, each with a slash after its host");
        }
        if self.ttl.0 < Duration::from_secs(1) || self.ttl.0 > self.ttl.1 {
            return Err("ttl must be a shortest time of at least 1s, and a longest one");
        }
        Ok(())
    }

    // Requirement S10.
    fn allows(&self, url: &str) -> bool {
        let is_plain = |rest: &str| {
            !rest.contains("..") && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/=&?:".contains(&b))
        };
        let mut rests = self.prefixes.iter().filter_map(|prefix| url.strip_prefix(prefix.as_str()));
        url.len() <= MAX_URL && rests.any(is_plain)
    }
}

impl RemoteLists {
    /// The lists that these rules allow, none of which is fetched yet.
    pub fn new(rules: StatusRules) -> Arc<Self> {
        Arc::new(Self { rules, lists: Mutex::default(), wanted: Arc::default(), in_force: ArcSwapOption::empty() })
    }

    /// The rules.
    pub fn rules(&self) -> &StatusRules {
        &self.rules
    }

    /// Uses these keys of the issuer, and this clock, from now on: those of the verifier that is in force.
    pub(crate) fn put_in_force(&self, keys: &Keys, clock: &Arc<EngineClock>) {
        self.in_force.store(Some(Arc::new(InForce { keys: keys.clone(), clock: Arc::clone(clock) })));
        self.wanted.notify_one();
    }

    /// The keys and the clock in force; `None` before a gate uses the lists.
    pub fn in_force(&self) -> Option<Arc<InForce>> {
        self.in_force.load_full()
    }

    /// The place that a genuine token names: its URL and its index.
    pub(super) fn reference(&self, url: &str, index: u64) -> Result<StatusRef, Denial> {
        if !self.rules.allows(url) {
            return Err(Denial::BadClaim("the uri of status_list is under no prefix of its issuer"));
        }
        let mut lists = self.lists.lock();
        if let Some(list) = lists.get(url) {
            return Ok(StatusRef { list: Arc::clone(list), index });
        }
        if lists.len() >= MAX_LISTS {
            lists.retain(|_, list| Arc::strong_count(list) > 1);
        }
        if lists.len() >= MAX_LISTS {
            return Err(Denial::StatusListUnavailable(LONGEST_PAUSE));
        }
        let list = Arc::new(RemoteList {
            url: url.into(),
            current: ArcSwapOption::empty(),
            usable_until: AtomicU64::new(0),
            next: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            lasts: self.rules.ttl.1.saturating_add(self.rules.stale_for),
            is_wanted: AtomicBool::new(true),
            ended: watch::Sender::new(0),
        });
        lists.insert(url.into(), Arc::clone(&list));
        self.wanted.notify_one();
        Ok(StatusRef { list, index })
    }

    /// A wait for a list that a token named; `None` if the last attempt failed.
    pub(super) fn join(&self, url: &str) -> Option<StatusWait> {
        let list = Arc::clone(self.lists.lock().get(url)?);
        list.is_wanted.store(true, Ordering::Release);
        self.wanted.notify_one();
        let attempts = *list.ended.borrow();
        // After a failure, the next attempt may come too late for a waiting request.
        (list.failures.load(Ordering::Acquire) == 0).then_some(StatusWait { list, attempts })
    }

    /// Notified when a request wants a list.
    pub fn wants(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// The lists to fetch now, and how long it is until the next one.
    pub fn due(&self, now: Timestamp) -> (Vec<Arc<RemoteList>>, Option<Duration>) {
        let lists = self.lists.lock();
        let needed =
            lists.values().filter(|list| Arc::strong_count(list) > 1 || list.is_wanted.load(Ordering::Acquire));
        let (due, later): (Vec<_>, Vec<_>) = needed.partition(|list| list.next() <= now);
        let next = later.iter().map(|list| list.next().since(now)).min();
        (due.into_iter().map(Arc::clone).collect(), next)
    }
}

impl RemoteList {
    /// The URL of the list.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The list, if it was ever read.
    pub fn current(&self) -> Option<Arc<ReadStatusList>> {
        self.current.load_full()
    }

    fn next(&self) -> Timestamp {
        Timestamp::from_millis(self.next.load(Ordering::Acquire))
    }

    /// Takes a list that was read at `now`, by engine time; `wall` is the same moment by the wall clock, to which the
    /// list's `exp` refers.
    // Requirements S8, S11.
    pub fn take(&self, list: ReadStatusList, rules: &StatusRules, now: Timestamp, wall: Timestamp) {
        let said = list.ttl.unwrap_or(rules.ttl.1);
        let expires = now.plus(list.expires.since(wall));
        let fresh_until = now.plus(said.clamp(rules.ttl.0, rules.ttl.1)).min(expires);
        let usable_until = fresh_until.plus(rules.stale_for).min(expires);
        self.current.store(Some(Arc::new(list)));
        self.usable_until.store(usable_until.as_millis(), Ordering::Release);
        // A list that expires at once must not be fetched again without a pause.
        let next = fresh_until.max(now.plus(TRY_AGAIN));
        self.failures.store(0, Ordering::Release);
        self.end(next);
    }

    /// Notes an attempt that failed.
    pub fn fail(&self, now: Timestamp) {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).min(8);
        self.end(now.plus((TRY_AGAIN * (1 << failures)).min(LONGEST_PAUSE)));
    }

    fn end(&self, next: Timestamp) {
        self.next.store(next.as_millis(), Ordering::Release);
        self.is_wanted.store(false, Ordering::Release);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

impl StatusRef {
    /// How long the list counts at most, without a newer one.
    pub(crate) fn lasts(&self) -> Duration {
        self.list.lasts
    }

    /// Checks that the list declares the token valid. Only the list's `exp` is judged by the wall clock, which may step
    /// back.
    // Requirements S8, S11, S12.
    pub(crate) fn check(&self, now: Timestamp, wall: Timestamp) -> Result<(), Denial> {
        let current = self.list.current.load();
        let is_over = current.as_ref().is_some_and(|list| wall >= list.expires);
        if is_over || now.as_millis() >= self.list.usable_until.load(Ordering::Acquire) {
            let wait = self.list.next().since(now).clamp(TRY_AGAIN, LONGEST_PAUSE);
            return Err(Denial::StatusListUnavailable(wait));
        }
        match current.as_ref().map(|list| list.value(self.index)) {
            Some(Some(0)) => Ok(()),
            Some(Some(_)) => Err(Denial::TokenRevoked),
            Some(None) => Err(Denial::BadClaim("the idx of status_list is beyond the list")),
            None => Err(Denial::StatusListUnavailable(TRY_AGAIN)),
        }
    }
}

impl AccessToken {
    /// Checks that the issuer has not ended the token, by the status list that the token names. `now` is engine
    /// time, `wall` the wall clock.
    ///
    /// # Errors
    /// [`Denial::TokenRevoked`], [`Denial::BadClaim`], [`Denial::StatusListUnavailable`].
    #[inline]
    pub(crate) fn check_status(&self, now: Timestamp, wall: impl FnOnce() -> Timestamp) -> Result<(), Denial> {
        match self.status() {
            Some(status) => status.check(now, wall()),
            None => Ok(()),
        }
    }
}

impl AccessToken {
    /// How long the status list that the token names counts at most, without a newer one. `None` without such a list.
    pub(crate) fn status_lasts(&self) -> Option<Duration> {
        self.status().map(StatusRef::lasts)
    }

    /// The place in a list of another issuer that decides about this token.
    pub(crate) fn origin_status(&self) -> Option<OriginStatus> {
        let carried = || self.delegation().and_then(|earlier| earlier.status.clone());
        let own = |status: &StatusRef| OriginStatus { index: status.index, url: status.list.url.clone() };
        self.status().map(own).or_else(carried)
    }

    fn status(&self) -> Option<&StatusRef> {
        self.rare.as_deref().and_then(|rare| rare.status.as_ref())
    }
}

/// The wait for a list.
#[derive(Debug)]
pub struct StatusWait {
    list: Arc<RemoteList>,
    attempts: u64,
}

impl StatusWait {
    /// Waits for the end of an attempt, for a bounded time.
    pub async fn ended(self) {
        let mut ended = self.list.ended.subscribe();
        let over = ended.wait_for(|attempts| *attempts > self.attempts);
        // After a timeout, the list counts as unavailable.
        let _ = tokio::time::timeout(WAIT, over).await;
    }
}
