//! The cache of verified tokens, and the check of tokens that are not in the cache. For every request, this module
//! turns a `Credential` into a [`Verified`] token.
//!
//! A cached token is valid only while its issuer keeps the rules and keys that verified it. A change of one issuer
//! therefore does not affect other issuers' tokens. The cache contains only data that does not depend on the request.
//! Expiry and revocation are checked at every cache hit, and [`crate::policy`] checks the route's requirements.
//!
//! If several requests present a new token at the same time, one of them verifies it, and all use the result. The rate
//! limits for unseen tokens apply to each request separately, so a limit on one address does not affect others.
//!
//! Modules: misses (`miss`), signing keys and the caches of their tokens (`key_set`), introspected tokens
//! (`introspected`), browser sessions (`session`), accepted tokens (`verified`) and identity headers (`identity`).
//!
//! Each thread also has a small cache of its own (`front`). All caches limit memory, not entries, because token sizes
//! differ by a factor of twenty.
//!
//! A separate cache remembers refused tokens whose signature is valid. A refused token's signature is not checked
//! again. Refused tokens do not evict accepted tokens. Only tokens that are signed with an issuer's keys get into this
//! separate cache.
//!
//! The cache key is the whole token, which is hashed with a fast keyed hash and then compared byte for byte. A digest
//! as the cache key would cost 410 ns instead of about 60. A digest would not be safer. Only tokens with a valid
//! signature are inserted, so a client cannot choose colliding cache keys.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;

use crate::api_key::KeyPrefix;
use crate::clock::{EngineClock, Timestamp};
use crate::counters::{CountedDurations, Counters};
use crate::credential::Credential;
use crate::denial::Denial;
use crate::overload::Shares;
use crate::revocation::RevocationList;
use crate::revocation::list::TokenFacts;
use crate::rule::Rule;
use crate::session::expiry::OnExpiry;
use crate::token::claims::{AccessToken, SuccessorToken};
use crate::token::live_keys::KeysWait;
use crate::token::observer::Observer;
use crate::token::verify::{IssuerRules, TokenRefusal, Verifier};

mod api_key;
mod assertions;
mod browser_token;
mod ended;
mod front;
mod identity;
mod introspected;
mod key_set;
mod login;
mod miss;
mod session;
mod token_key;
mod told;
mod verified;

pub use api_key::ReadKey;
pub use assertions::AssertionHeader;
pub use browser_token::{BrowserToken, ProviderTerms, SessionTerms};
pub use ended::EndingClaims;
#[cfg(test)]
pub(crate) use front::for_tests::bytes as at_hand;
pub use identity::{IdentityField, IdentityHeaders, MAX_IDENTITY_HEADERS};
use introspected::IntrospectedTokens;
pub use introspected::{Introspected, IntrospectionWait};
use key_set::KeySet;
pub use miss::CheckResult;
pub use miss::MissContext;
pub use session::{SessionAnswer, SessionMiss};
pub use verified::Verified;
use verified::{CacheShared, facts};

/// The memory for the shared cache of verified tokens, in bytes.
pub const DEFAULT_CACHE: u64 = 64 << 20;
/// The memory for refused tokens, in bytes.
const REFUSED_CACHE_BYTES: u64 = 4 << 20;
/// How long a refused token is remembered. A revocation is never reverted, so a refusal may be remembered for any time.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// The retry delay while other gates' revocations are unknown.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The memory that a cached token needs in addition to the token string, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 800;
/// The typical size of two assertions, in bytes.
const ASSERTION_BYTES: usize = 1536;

/// Decides whether tokens of an issuer are accepted at all. `None` accepts any issuer, but does not introspect opaque
/// tokens, whose issuer is unknown.
pub type TakenIssuers<'a> = Option<&'a dyn Fn(&IssuerRules) -> bool>;

/// A credential to check. A plain [`Credential`] is checked without a restriction on issuers.
pub struct Check<'a> {
    /// The credential.
    pub credential: Credential<'a>,
    /// Whether the token may be in this thread's cache. False if [`TokenChecker::at_hand`] has already failed to find
    /// the token.
    pub may_be_at_hand: bool,
    /// Decides whether the issuer of an unseen token is accepted, before the token's signature is verified.
    pub taken: TakenIssuers<'a>,
}

impl<'a> From<Credential<'a>> for Check<'a> {
    fn from(credential: Credential<'a>) -> Self {
        Self { credential, may_be_at_hand: true, taken: None }
    }
}

crate::debug_with!(Check<'_>);

/// Checks tokens, with the cache of verified tokens.
pub struct TokenChecker {
    keys: ArcSwap<KeySet>,
    clock: Arc<EngineClock>,
    revocations: Arc<RevocationList>,
    /// The number of requests in flight for each caller.
    callers: Arc<Shares>,
    capacity: u64,
    results: Counters<{ CheckResult::ALL.len() }>,
    /// The prefix of the gate's API keys, if API keys are enabled.
    key_prefix: Option<KeyPrefix>,
}

crate::debug_with!(TokenChecker { cached() });

impl TokenChecker {
    /// Creates a checker that verifies tokens with `verifier`, and caches accepted tokens in `capacity` bytes.
    pub fn new(
        verifier: Verifier,
        clock: Arc<EngineClock>,
        revocations: Arc<RevocationList>,
        identity: IdentityHeaders,
        capacity: u64,
        requests_per_caller: usize,
    ) -> Self {
        let callers = Arc::new(Shares::new(requests_per_caller));
        let shared = CacheShared { revocations: Arc::clone(&revocations), identity, callers: Arc::clone(&callers) };
        let keys = ArcSwap::from_pointee(KeySet::new(verifier, &clock, capacity, Arc::new(shared), None));
        Self { keys, clock, revocations, callers, capacity, results: Counters::default(), key_prefix: None }
    }

    /// Sets the rules and keys for later requests. Drops the cached tokens of each issuer whose rules or keys changed.
    /// Returns false if no rules or keys changed.
    pub fn set_verifier(&self, verifier: Verifier) -> bool {
        let old = self.keys.load();
        if old.verifier.equals(&verifier) {
            return false;
        }
        verifier.issuers().iter().filter_map(|rules| rules.keys.live()).for_each(|keys| keys.set_clock(&self.clock));
        let new = KeySet::new(verifier, &self.clock, self.capacity, Arc::clone(&old.shared), Some(&old));
        self.keys.store(Arc::new(new));
        true
    }

    /// Sets the identity headers for later requests. If the headers change, all cached tokens are dropped.
    pub fn set_identity(&self, identity: IdentityHeaders) {
        let old = self.keys.load();
        if old.shared.identity == identity {
            return;
        }
        let (revocations, callers) = (Arc::clone(&self.revocations), Arc::clone(&self.callers));
        let shared = Arc::new(CacheShared { revocations, identity, callers });
        let new = KeySet::new(old.verifier.duplicate(), &self.clock, self.capacity, shared, Some(&old));
        self.keys.store(Arc::new(new));
    }

    /// Returns whether the gate sends assertions about callers.
    pub fn asserts(&self) -> bool {
        self.keys.load().shared.identity.assertion.is_some()
    }

    /// Calls `each` with the name of each identity header.
    pub fn each_identity_name(&self, each: impl FnMut(&HeaderName)) {
        self.keys.load().shared.identity.names().for_each(each);
    }

    /// Returns whether there is an issuer with this name.
    pub fn has_issuer(&self, name: &str) -> bool {
        self.keys.load().verifier.named(name).is_some()
    }

    /// The name of the only accepted issuer, or `None`.
    pub fn only_issuer(&self) -> Option<Arc<str>> {
        match self.keys.load().verifier.issuers() {
            [only] => Some(Arc::clone(&only.name)),
            _ => None,
        }
    }

    /// Checks a credential. A cache hit costs a look-up, a clock read and an atomic load. The caller must still check
    /// the returned token against the requirements of the route.
    ///
    /// # Errors
    /// The denial of the rule that refuses the credential. [`Denial::RateLimited`] for an unseen token if too many
    /// forged tokens came from its source. [`Denial::IntrospectionUnavailable`] if the token must be introspected
    /// first: see [`Self::awaited_introspection`].
    pub fn check<'a, 'c, O: Observer>(
        &self,
        check: impl Into<Check<'c>>,
        shown: impl FnOnce() -> MissContext<'a>,
        observer: &mut O,
    ) -> Result<Arc<Verified>, Denial> {
        let Check { credential, may_be_at_hand, taken } = check.into();
        let token = credential.token();
        if session::is_cookie(token) {
            return observer.read(Rule::Credential, Err(Denial::MalformedToken("a session cookie is not a token")));
        }
        if let Err(denial) = self.is_no_key(token) {
            return observer.read(Rule::Credential, Err(denial));
        }
        let keys = self.keys.load();
        let is_sought = O::HAS_EFFECTS && may_be_at_hand;
        let at_hand = if is_sought { front::find(keys.id, token.as_bytes()) } else { None };
        let verified = match at_hand {
            Some(verified) => {
                self.counted::<O>(CheckResult::Hit);
                verified
            }
            None => self.check_absent(&keys, token, taken, shown, observer)?,
        };
        if credential.is_bearer() && verified.token.is_bound() {
            return Err(Denial::UnprovedBinding);
        }
        self.check_now(verified, observer)
    }

    /// Finds a presented token in this thread's cache. Check the token with [`Self::check_known`].
    pub fn at_hand<O: Observer>(&self, presented: &[u8]) -> Option<Arc<Verified>> {
        let found = if O::HAS_EFFECTS { front::find(self.keys.load().id, presented) } else { None };
        found.filter(|verified| verified.is_token())
    }

    /// Checks a token that [`Self::at_hand`] found. The token may be bound to a key, which the caller must check.
    ///
    /// # Errors
    /// The errors of [`Self::check`] for a token that was accepted before.
    pub fn check_known<O: Observer>(&self, verified: Arc<Verified>, observer: &mut O) -> Result<Arc<Verified>, Denial> {
        self.counted::<O>(CheckResult::Hit);
        self.check_now(verified, observer)
    }

    /// Checks the validity period and revocation of a token.
    fn check_now<O: Observer>(&self, verified: Arc<Verified>, observer: &mut O) -> Result<Arc<Verified>, Denial> {
        self.check_at(self.clock.now_and_latest(), &verified, observer).map(|()| verified)
    }

    fn check_at<O: Observer>(
        &self,
        (now, latest): (Timestamp, Timestamp),
        verified: &Verified,
        observer: &mut O,
    ) -> Result<(), Denial> {
        observer.token(&verified.token);
        observer.judged(Rule::Claims, self.in_time(&verified.token, now, latest))?;
        observer.judged(Rule::Key, verified.recheck_key(now))?;
        observer.judged(Rule::Revocation, self.heard_of_revocations(now))?;
        let epoch = self.revocations.epoch(verified.shard());
        if !verified.watch.is_current(epoch) {
            let judged = self.revocations.judge(verified.facts(), now);
            verified.watch.update(epoch, judged.refuse_from);
        }
        let is_revoked = verified.watch.refuse_from() <= now;
        observer.judged(Rule::Revocation, if is_revoked { Err(Denial::TokenRevoked) } else { Ok(()) })
    }

    /// Checks a long-lived connection's token or successor token again.
    pub(crate) fn check_again(
        &self,
        verified: &Arc<Verified>,
        successor: Option<SuccessorToken>,
        on_expiry: OnExpiry,
    ) -> Result<(), Denial> {
        let (now, latest) = self.clock.now_and_latest();
        let token = &verified.token;
        let session =
            token.session.map(|(id, generation)| (id, successor.map_or(generation, |successor| successor.generation)));
        self.heard_of_revocations(now)?;
        if self.revocations.judge(TokenFacts { session, ..verified.facts() }, now).refuses(now) {
            return Err(Denial::TokenRevoked);
        }
        let keys = self.keys.load();
        let rules = keys.verifier.id_of(token.issuer()).ok_or(Denial::UnknownIssuer)?;
        if !rules.has_rules_of(verified.rules) {
            // The rules that permitted the connection are no longer in force.
            return Err(Denial::UnknownIssuer);
        }
        if token.response().is_none() {
            // Removing a signing key invalidates the tokens that it signed. After a rotation, the connection's
            // successor token may be signed with another key.
            let key = successor.map_or(token.key(), |successor| successor.key);
            keys.verifier.holds(token.issuer(), &key, now)?;
        } else if self.clock.wall() < token.expires {
            // An expired token is not introspected, because an issuer reports it as inactive in any case. The route
            // decides what happens to a connection when its token expires.
            keys.tokens_of(token.issuer()).ok_or(Denial::UnknownIssuer)?.check_again(verified)?;
        }
        match (on_expiry, successor) {
            (OnExpiry::Keep, _) => Ok(()),
            // A successor token always comes from the gate itself.
            (OnExpiry::Close, Some(SuccessorToken { expires, .. })) if latest >= expires => Err(Denial::TokenExpired),
            (OnExpiry::Close, Some(_)) => Ok(()),
            (OnExpiry::Close, None) => self.in_time(token, now, latest),
        }
    }

    /// Checks that the gate has recently received the revocations of the other gates.
    fn heard_of_revocations(&self, now: Timestamp) -> Result<(), Denial> {
        if self.revocations.is_usable(now) { Ok(()) } else { Err(Denial::RevocationsUnavailable(TRY_AGAIN)) }
    }

    fn in_time(&self, token: &AccessToken, now: Timestamp, latest: Timestamp) -> Result<(), Denial> {
        self.in_time_for(token, Duration::ZERO, now, latest)
    }

    /// `now` is engine time. `latest` is the later of `now` and the wall clock.
    fn in_time_for(
        &self,
        token: &AccessToken,
        expired_for_at_most: Duration,
        now: Timestamp,
        latest: Timestamp,
    ) -> Result<(), Denial> {
        // For tokens of other issuers, both times are compared with the wall clock. For the gate's own tokens, `nbf` is
        // compared with engine time, and `exp` with the later of engine time and wall clock.
        let (now, latest) = if token.is_ours() {
            (now, latest)
        } else {
            let wall = self.clock.wall();
            (wall, wall)
        };
        if latest >= token.refused_from().plus(expired_for_at_most) {
            return Err(Denial::TokenExpired);
        }
        if token.not_before().is_some_and(|from| from > now.plus(token.leeway())) {
            return Err(Denial::TokenNotYetValid);
        }
        Ok(())
    }

    /// Verifies a token for an exchange or a revocation. The token may be revoked, or may have expired at most
    /// `expired_for_at_most` ago. The token may belong to an older generation of its session.
    ///
    /// # Errors
    /// The errors of [`Self::check`].
    pub fn verify_ignoring_expiry(
        &self,
        token: &str,
        expired_for_at_most: Duration,
        shown: MissContext<'_>,
    ) -> Result<AccessToken, Denial> {
        if session::is_cookie(token) {
            return Err(Denial::MalformedToken("a session cookie is not a token"));
        }
        self.is_no_key(token)?;
        let keys = self.keys.load();
        // A verified token needs no second signature check. Its validity period is checked as usual.
        let key = keys.key(token);
        let seen = keys.cached::<()>(key).map(|verified| verified.token.clone());
        let seen = seen.or_else(|| keys.refused.get(&key)?.token.map(|token| AccessToken::clone(&token)));
        if let Some(token) = seen {
            let (now, latest) = self.clock.now_and_latest();
            keys.verifier.holds(token.issuer(), &token.key(), now)?;
            self.in_time_for(&token, expired_for_at_most, now, latest)?;
            self.counted::<()>(CheckResult::Hit);
            return Ok(token);
        }
        self.admit_unseen(shown)?;
        let now = self.clock.now();
        match keys.verifier.verify_expired(token, now, self.clock.wall(), expired_for_at_most) {
            Ok(token) => {
                if self.revocations.judge(facts(&token), now).refuses(now) {
                    self.count(TokenRefusal::Authentic(Denial::TokenRevoked), &token.text, shown);
                    keys.remember_revoked(token.clone());
                } else {
                    self.counted::<()>(CheckResult::Valid);
                }
                Ok(token)
            }
            Err(refusal) => {
                keys.remember(key.owned(), refusal);
                self.count(refusal, token, shown);
                Err(refusal.into_denial())
            }
        }
    }

    /// Verifies an access token in a provider's response. No caller presented the token, so rate limits do not count
    /// it.
    ///
    /// # Errors
    /// The errors of [`Self::check`].
    pub fn verify_answer(&self, token: &str) -> Result<AccessToken, Denial> {
        let keys = self.keys.load();
        // The provider itself has sent the token, so its claims need no signature.
        if let Some((_, described)) = keys.described(token) {
            return described;
        }
        let introspected = keys.introspecting(token, Some(&|_| true)).and_then(|tokens| tokens.known::<()>(token));
        match introspected {
            Some(known) => known.map(|verified| verified.token.clone()),
            None => keys.verifier.verify(token, self.clock.now(), self.clock.wall()),
        }
    }

    /// Returns whether the token describes itself, although the gate introspects it.
    pub fn describes_itself(&self, token: &str) -> bool {
        self.keys.load().described(token).is_some()
    }

    /// Returns whether a revocation refuses this token, if the token describes itself. The claims are not verified.
    pub fn is_revoked_by_its_claims(&self, token: &str) -> bool {
        let keys = self.keys.load();
        keys.described(token).is_some_and(|(tokens, described)| described.is_ok_and(|it| tokens.is_revoked(&it)))
    }

    /// Introspects a token that its issuer has just issued. This does not count as a use of the token.
    pub async fn learn(&self, token: &str) {
        let keys = self.keys.load_full();
        if let Some(tokens) = keys.introspecting(token, Some(&|_| true)) {
            tokens.learn(token).await;
        }
    }

    /// Returns a permit to wait for a pending fetch of the token's key. Returns `None` if no fetch is pending.
    pub fn awaited(&self, token: &str) -> Option<KeysWait> {
        self.keys.load().verifier.awaited(token)
    }

    /// Returns a permit to wait for a token's introspection. Returns `None` if too many introspections are running, or
    /// if the issuer did not respond. `taken` must be the value that was passed to the check. `is_known` is true if the
    /// caller presented valid tokens recently.
    pub fn awaited_introspection(
        &self,
        token: &str,
        taken: TakenIssuers<'_>,
        is_known: bool,
    ) -> Option<IntrospectionWait> {
        self.keys.load().introspecting(token, taken)?.wait(token, is_known)
    }

    /// The counts of introspection results. Each item has the issuer's name, the result and its count.
    pub fn introspections(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let keys = self.keys.load();
        let of = |tokens: &Arc<IntrospectedTokens>| {
            let name = Arc::clone(&tokens.rules().name);
            tokens.results().counts().map(move |(result, count)| (Arc::clone(&name), result, count)).collect::<Vec<_>>()
        };
        keys.introspected.iter().flat_map(of).collect()
    }

    /// The name of the issuer that must introspect a token, or `None` if the issuer's keys are sufficient to decide.
    pub fn asked_about(&self, token: &str, taken: impl Fn(&IssuerRules) -> bool) -> Option<Arc<str>> {
        let keys = self.keys.load();
        keys.introspecting(token, Some(&taken)).map(|tokens| Arc::clone(&tokens.rules().name))
    }

    /// The number of checks with each result, in the order of [`CheckResult::ALL`].
    pub fn results(&self) -> [u64; CheckResult::ALL.len()] {
        self.results.sums()
    }

    /// The durations of signature checks by algorithm.
    pub fn signature_times(&self) -> Vec<(&'static str, CountedDurations)> {
        self.keys.load().verifier.signature_times().counted()
    }

    /// The number of requests in flight for each caller.
    pub fn callers(&self) -> &Shares {
        &self.callers
    }

    /// The number of verified tokens in the cache.
    pub fn cached(&self) -> u64 {
        let keys = self.keys.load();
        keys.cache.run_pending_tasks();
        keys.cache.entry_count() + keys.introspected.iter().map(|tokens| tokens.cached()).sum::<u64>()
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl TokenChecker {
        /// The memory that the shared cache of verified tokens uses, in bytes.
        pub(crate) fn cached_bytes(&self) -> u64 {
            let keys = self.keys.load();
            keys.cache.run_pending_tasks();
            keys.cache.weighted_size()
        }
    }
}

#[cfg(test)]
mod tests;
