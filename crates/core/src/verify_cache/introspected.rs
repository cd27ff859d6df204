//! The introspected tokens of one issuer, with the responses and running introspections (requirements I20, I21).
//!
//! These tokens have a separate cache, so that made-up opaque strings cannot evict verified JWTs. Only a keyed hash of
//! an inactive token is remembered, because the token may be a secret for another server.
//!
//! If several clients present the same token concurrently, the issuer gets only one request. The request continues even
//! if no client waits for it any more. The rate of requests about unseen tokens is limited for each issuer. Tokens that
//! were accepted before are not affected. A quarter of the rate is reserved for addresses with recent valid tokens
//! (requirement A19).

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::key_set::entry;
use super::{CacheShared, Verified};
use crate::clock::{EngineClock, Timestamp};
use crate::denial::Denial;
use crate::flight::{Flight, Flights};
use crate::introspection::{Introspection, IntrospectionFault};
use crate::limit::{Buckets, Rate};
use crate::pause::{ServiceAnswer, ServicePauses};
use crate::token::claims::AccessToken;
use crate::token::observer::Observer;
use crate::token::verify::{IssuerRules, Responses, RulesId, Told};

mod results;
mod wait;

use results::Results;
pub use wait::{Introspected, IntrospectionWait};

/// The memory for an issuer's introspected tokens, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// The maximum number of remembered inactive tokens per issuer.
const MAX_INACTIVE: u64 = 10_000;
/// The maximum rate of introspections of unseen tokens per issuer.
const UNSEEN: Rate = Rate::new(200, Duration::from_millis(5));
/// The part of `UNSEEN` that is reserved for known callers.
const UNSEEN_KEPT: u32 = UNSEEN.burst.get() / 4;
/// The maximum number of concurrent requests to one issuer.
const MAX_FLIGHTS: usize = 256;
/// The maximum number of concurrent introspections of unseen tokens.
const MAX_UNSEEN_FLIGHTS: usize = 192;
/// The part of `MAX_UNSEEN_FLIGHTS` that is reserved for known callers.
const UNSEEN_FLIGHTS_KEPT: usize = MAX_UNSEEN_FLIGHTS / 4;
/// The maximum duration of one request. The introspector has a shorter limit of its own.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long a token is remembered after its response has become invalid. During this time, the limits for unseen tokens
/// do not apply to the token.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The minimum pause before another request about the same token, after a fault or a background request.
const PAUSE: Duration = Duration::from_secs(1);
/// A fault that persists is logged again after this time.
const LOGGED_AGAIN: Duration = Duration::from_secs(600);

/// The result of an introspection.
pub(super) type Outcome = Result<Arc<Verified>, Denial>;

/// A keyed hash of a token.
type TokenId = [u64; 2];

/// The introspected tokens of one issuer.
pub(super) struct IntrospectedTokens {
    responses: Responses,
    id: RulesId,
    introspection: Arc<Introspection>,
    shared: Arc<CacheShared>,
    clock: Arc<EngineClock>,
    seen: Cache<Arc<str>, Arc<SeenToken>, foldhash::quality::RandomState>,
    inactive: Cache<TokenId, InactiveToken>,
    hashers: [RandomState; 2],
    flights: Flights<TokenId, Outcome>,
    places: Arc<Semaphore>,
    unseen_places: Arc<Semaphore>,
    unseen: Buckets,
    results: Arc<Results>,
    /// The pauses that the issuer has requested.
    pauses: ServicePauses,
    /// The last logged fault, or `None` if the issuer has responded since.
    failing: Mutex<Option<(&'static str, Timestamp)>>,
    runtime: Option<Handle>,
}

/// A token that was active in an earlier response of its issuer.
struct SeenToken {
    verified: Arc<Verified>,
    /// Set if the issuer's last response reported the token as inactive, or if the token is refused.
    ended: Option<Denial>,
    /// From this time on, a request with the token triggers an introspection in the background.
    renew_from: Timestamp,
    /// The response is valid until this time.
    fresh_until: Timestamp,
    /// While the issuer does not respond, its last response stays valid until this time.
    stale_until: Timestamp,
    /// The earliest time for the next background request, in milliseconds.
    asked_next: AtomicU64,
    /// After a fault, no request about this token is sent before this time, in milliseconds.
    paused_until: AtomicU64,
}

impl SeenToken {
    /// Creates an entry that stays valid until `time`, even if the issuer does not respond.
    fn until(verified: &Arc<Verified>, time: Timestamp) -> Self {
        Self {
            verified: Arc::clone(verified),
            ended: None,
            renew_from: time,
            fresh_until: time,
            stale_until: time,
            asked_next: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
        }
    }

    /// Returns whether the response may still be used while the issuer does not respond.
    fn counts_at(&self, now: Timestamp) -> bool {
        now < self.stale_until && self.ended.is_none()
    }
}

/// A token that is refused until this time.
#[derive(Clone, Copy)]
struct InactiveToken {
    denial: Denial,
    until: Timestamp,
}

/// The denial for a token whose state is unknown.
pub(super) fn unavailable(retry_after: Option<Duration>) -> Denial {
    Denial::IntrospectionUnavailable(retry_after.unwrap_or(PAUSE).max(PAUSE))
}

impl IntrospectedTokens {
    /// Makes the cache for an issuer with these rules. Returns `None` if the issuer's tokens are not introspected.
    /// If a Tokio runtime calls this function, requests to the issuer run in that runtime.
    pub(super) fn new(
        rules: &IssuerRules,
        id: RulesId,
        shared: &Arc<CacheShared>,
        clock: &Arc<EngineClock>,
    ) -> Option<Arc<Self>> {
        let introspection = rules.introspection.clone()?;
        let lasting = introspection.cache + introspection.stale_if_error + REMEMBERED;
        let seen = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|_, seen: &Arc<SeenToken>| seen.verified.weight())
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(lasting)
            .build_with_hasher(foldhash::quality::RandomState::default());
        let inactive =
            Cache::builder().max_capacity(MAX_INACTIVE).time_to_live(introspection.negative.max(PAUSE)).build();
        Some(Arc::new(Self {
            responses: Responses::new(rules),
            id,
            introspection,
            shared: Arc::clone(shared),
            clock: Arc::clone(clock),
            seen,
            inactive,
            hashers: [RandomState::new(), RandomState::new()],
            flights: Flights::default(),
            places: Arc::new(Semaphore::new(MAX_FLIGHTS)),
            unseen_places: Arc::new(Semaphore::new(MAX_UNSEEN_FLIGHTS)),
            unseen: Buckets::new(0, UNSEEN, clock.source()),
            results: Arc::default(),
            pauses: ServicePauses::default(),
            failing: Mutex::new(None),
            runtime: Handle::try_current().ok(),
        }))
    }

    /// Compares the issuer's rules, ignoring its keys.
    pub(super) fn are_of(&self, rules: &IssuerRules) -> bool {
        self.responses.rules().equals(&rules.without_keys())
    }

    /// The rules of the issuer, without its keys.
    pub(super) fn rules(&self) -> &IssuerRules {
        self.responses.rules()
    }

    fn name(&self) -> &str {
        &self.rules().name
    }

    /// The count of each result.
    pub(super) fn results(&self) -> &Results {
        &self.results
    }

    /// The number of tokens in the cache.
    pub(super) fn cached(&self) -> u64 {
        self.seen.run_pending_tasks();
        self.seen.entry_count()
    }

    fn id(&self, token: &str) -> TokenId {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(token))
    }

    /// Returns the known result for a token, or `None` if the issuer must introspect the token.
    pub(super) fn known<O: Observer>(self: &Arc<Self>, token: &str) -> Option<Outcome> {
        let now = self.clock.now();
        if let Some(seen) = entry::<O, _, _, _, _>(&self.seen, token) {
            if now < seen.fresh_until {
                if let Some(denial) = seen.ended {
                    return Some(Err(denial));
                }
                if O::HAS_EFFECTS && now >= seen.renew_from {
                    self.ask_in_background(token, &seen, now);
                }
                return Some(Ok(Arc::clone(&seen.verified)));
            }
            // The issuer failed a moment ago, so the old response is used.
            if now < seen.stale_until && now.as_millis() < seen.paused_until.load(Ordering::Relaxed) {
                return Some(Ok(Arc::clone(&seen.verified)));
            }
            return None;
        }
        let refused = entry::<O, _, _, _, _>(&self.inactive, &self.id(token)).filter(|refused| now < refused.until)?;
        Some(Err(refused.denial))
    }

    /// Begins to introspect an unknown token. With `cache = 0`, each request introspects its token separately in
    /// [`Self::wait`]. `is_known` is true if the caller's address presented valid tokens recently. If the issuer has
    /// requested a pause, this function uses the last response.
    ///
    /// # Errors
    /// [`Denial::IntrospectionUnavailable`]; or [`Denial::RateLimited`] for a token that was never accepted, if too
    /// many tokens of this kind arrive.
    pub(super) fn begin<O: Observer>(self: &Arc<Self>, token: &str, is_known: bool) -> Outcome {
        let id = self.id(token);
        let is_asked = self.flights.get(&id).is_some();
        if !is_asked && let Err(left) = self.pauses.foresee(id, self.clock.source().monotonic()) {
            let seen = entry::<O, _, _, _, _>(&self.seen, token).filter(|seen| seen.counts_at(self.clock.now()));
            return seen.map(|seen| Arc::clone(&seen.verified)).ok_or_else(|| unavailable(Some(left)));
        }
        if !is_asked && !self.was_good::<O>(token) {
            let kept = if is_known { 0 } else { UNSEEN_KEPT };
            let unseen = &self.unseen;
            let taken = if O::HAS_EFFECTS { unseen.take_leaving((), kept) } else { unseen.look_leaving((), kept) };
            taken.map_err(|wait| Denial::RateLimited("introspected_unseen", wait.max(PAUSE)))?;
        }
        if O::HAS_EFFECTS && !self.introspection.cache.is_zero() {
            drop(self.ask(token, is_known)?);
        }
        Err(unavailable(None))
    }

    fn was_good<O: Observer>(&self, token: &str) -> bool {
        entry::<O, _, _, _, _>(&self.seen, token).is_some_and(|seen| seen.ended.is_none())
    }

    /// Returns a permit to wait for the response about this token. Returns `None` if too many introspections are
    /// running, or if the last one failed a moment ago.
    pub(super) fn wait(self: &Arc<Self>, token: &str, is_known: bool) -> Option<IntrospectionWait> {
        let flight = if self.introspection.cache.is_zero() {
            Some(self.ask(token, is_known).ok()?)
        } else {
            let flight = self.flights.get(&self.id(token));
            if flight.is_none() && self.known::<()>(token).is_none() {
                return None;
            }
            flight
        };
        Some(IntrospectionWait { issuer: Arc::clone(&self.rules().issuer), token: token.into(), flight })
    }

    /// Introspects a token that its issuer has just issued, unless its state is known.
    pub(super) async fn learn(self: &Arc<Self>, token: &str) {
        if self.known::<()>(token).is_none()
            && let Ok(flight) = self.ask(token, true)
        {
            let _ = flight.outcome().await;
        }
    }

    /// Returns the claims by which a token describes itself, if it does. They are not verified.
    pub(super) fn described(&self, token: &str) -> Option<Result<AccessToken, Denial>> {
        let response = self.introspection.introspector.described(token)?;
        Some(match self.responses.read_unverified(token, &response, self.clock.wall()) {
            Ok(Told::Active(access)) => Ok(*access),
            Ok(Told::Refused(denial)) => Err(denial),
            Ok(Told::Inactive) => Err(Denial::TokenInactive),
            Err(why) => Err(Denial::MalformedToken(why)),
        })
    }

    /// Returns whether a revocation refuses the token that these claims describe.
    pub(super) fn is_revoked(&self, described: &AccessToken) -> bool {
        let now = self.clock.now();
        self.shared.judge(described, now).passes(now).is_err()
    }

    fn ask_in_background(self: &Arc<Self>, token: &str, seen: &SeenToken, now: Timestamp) {
        let next = seen.asked_next.load(Ordering::Relaxed);
        let later = now.plus(PAUSE).as_millis();
        let is_ours = now.as_millis() >= next
            && seen.asked_next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours {
            // If no slot is free, the next request with the token tries again.
            drop(self.ask(token, true));
        }
    }

    /// Starts an introspection, or joins the introspection that is already running. With `cache = 0`, each request
    /// introspects its token separately.
    ///
    /// # Errors
    /// Too many introspections are running.
    fn ask(self: &Arc<Self>, token: &str, is_known: bool) -> Result<Flight<Outcome>, Denial> {
        let id = self.id(token);
        let runtime = self.runtime.clone().or_else(|| Handle::try_current().ok()).ok_or_else(|| self.busy())?;
        let begin = || {
            self.pauses.admit(id, self.clock.source().monotonic()).map_err(|left| unavailable(Some(left)))?;
            let places = self.take_places(token, is_known).ok_or_else(|| self.busy())?;
            let (this, token) = (Arc::clone(self), Arc::from(token));
            Ok(async move {
                let _places = places;
                this.question(token, id).await
            })
        };
        if self.introspection.cache.is_zero() {
            Ok(Flight::alone(&runtime, begin()?))
        } else {
            self.flights.join(id, &runtime, begin)
        }
    }

    /// Takes the slots for an introspection. Every token needs one of the general slots. A token that was never
    /// accepted also needs one of the slots for unseen tokens.
    fn take_places(&self, token: &str, is_known: bool) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let kept = if is_known { 0 } else { UNSEEN_FLIGHTS_KEPT };
        let unseen = if self.was_good::<()>(token) {
            None
        } else if self.unseen_places.available_permits() > kept {
            Some(Arc::clone(&self.unseen_places).try_acquire_owned().ok()?)
        } else {
            return None;
        };
        Some((Arc::clone(&self.places).try_acquire_owned().ok()?, unseen))
    }

    fn busy(&self) -> Denial {
        self.results.count("busy");
        unavailable(None)
    }

    async fn question(&self, token: Arc<str>, id: TokenId) -> Outcome {
        let asked = tokio::time::timeout(MAX_WAIT, self.introspection.introspector.introspect(&token)).await;
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let response = asked.unwrap_or_else(|_| {
            Err(IntrospectionFault::new("timeout", format!("no response within {} s", MAX_WAIT.as_secs())))
        });
        let said = match &response {
            Ok(_) => ServiceAnswer::Answered,
            Err(fault) => ServiceAnswer::fault(fault.retry_after, fault.of_asker),
        };
        self.pauses.note(id, said, self.clock.source().monotonic());
        let told = response.and_then(|response| {
            let told = self.responses.read(&token, &response, wall);
            told.map_err(|why| {
                IntrospectionFault::new(IntrospectionFault::MALFORMED, format!("the response is unusable: {why}"))
            })
        });
        let told = match told {
            Ok(told) => told,
            Err(fault) => return self.failed(&token, &fault, now),
        };
        self.recovered();
        let denial = match told {
            Told::Active(mut access) => {
                // The cache key and the cache entry share the token's string.
                access.text = Arc::clone(&token);
                let judged = self.shared.judge(&access, now);
                match judged.passes(now) {
                    Ok(()) => {
                        let verified = self.shared.accept_introspected(*access, self.id, judged);
                        self.results.count("active");
                        self.keep(token, &verified, now, wall);
                        return Ok(verified);
                    }
                    Err(denial) => {
                        self.results.count("refused");
                        denial
                    }
                }
            }
            Told::Inactive => {
                self.results.count("inactive");
                Denial::TokenInactive
            }
            Told::Refused(denial) => {
                self.results.count("refused");
                denial
            }
        };
        let until = now.plus(self.introspection.negative);
        if let Some(seen) = self.seen.get(&token) {
            // The entry is kept, so that long-lived connections learn that the token is no longer valid.
            let ended = SeenToken { ended: Some(denial), ..SeenToken::until(&seen.verified, until) };
            self.seen.insert(token, Arc::new(ended));
        } else if !self.introspection.negative.is_zero() {
            self.inactive.insert(id, InactiveToken { denial, until });
        }
        Err(denial)
    }

    /// Caches an active token, at most until its `exp`.
    fn keep(&self, token: Arc<str>, verified: &Arc<Verified>, now: Timestamp, wall: Timestamp) {
        let Introspection { cache, stale_if_error, .. } = &*self.introspection;
        let left = verified.token.expires.since(wall);
        let lasts = left.min(*cache);
        let seen = SeenToken {
            renew_from: now.plus(lasts / 5 * 4),
            stale_until: now.plus(left.min(*cache + *stale_if_error)),
            ..SeenToken::until(verified, now.plus(lasts))
        };
        self.seen.insert(token, Arc::new(seen));
    }

    fn failed(&self, token: &str, fault: &IntrospectionFault, now: Timestamp) -> Outcome {
        self.results.count(fault.cause);
        self.log(fault, now);
        if let Some(seen) = self.seen.get(token) {
            seen.paused_until.store(now.plus(PAUSE).as_millis(), Ordering::Relaxed);
            if seen.counts_at(now) {
                return Ok(Arc::clone(&seen.verified));
            }
        }
        Err(unavailable(fault.retry_after))
    }

    /// Logs a fault. A fault with a new cause is logged at once, and again every ten minutes while it persists.
    fn log(&self, fault: &IntrospectionFault, now: Timestamp) {
        {
            let mut failing = self.failing.lock();
            if failing.is_some_and(|(cause, at)| cause == fault.cause && now.since(at) < LOGGED_AGAIN) {
                return;
            }
            *failing = Some((fault.cause, now));
        }
        let (issuer, cause) = (self.name(), fault.cause);
        if fault.needs_operator() {
            tracing::error!(issuer, cause, error = %fault, "introspection failed");
        } else {
            tracing::warn!(issuer, cause, error = %fault, "introspection failed");
        }
    }

    fn recovered(&self) {
        let failed = self.failing.lock().take();
        if failed.is_some() {
            tracing::info!(issuer = self.name(), "introspection succeeds again");
        }
    }

    /// Checks the token of a long-lived connection again. If the response about the token is old, this function starts
    /// an introspection in the background. Meanwhile, the old response is used up to its time limit. After that time
    /// the token's state is unknown until the issuer responds.
    pub(super) fn check_again(self: &Arc<Self>, verified: &Arc<Verified>) -> Result<(), Denial> {
        let now = self.clock.now();
        let token = &verified.token.text;
        let seen = self.seen.get(&**token).unwrap_or_else(|| {
            // An evicted token is introspected at once, as if its response had just expired.
            let seen = Arc::new(SeenToken::until(verified, now));
            self.seen.insert(Arc::clone(token), Arc::clone(&seen));
            seen
        });
        if let Some(denial) = seen.ended {
            return Err(denial);
        }
        if now >= seen.renew_from {
            self.ask_in_background(token, &seen, now);
        }
        if now < seen.stale_until.max(seen.fresh_until.plus(MAX_WAIT)) { Ok(()) } else { Err(unavailable(None)) }
    }
}

#[cfg(test)]
mod tests;
