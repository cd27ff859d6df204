//! From a `Credential` to a [`Verified`] token: the step that every request takes.
//!
//! A token that was verified once is kept (moka) under its every byte, together with the key set that verified it: other
//! keys, other cache. What is kept is what the token *is*; its times and its revocation are checked at every hit, and what a
//! route *asks* is judged by [`crate::policy`].
//!
//! Of several who show a new token at the same time one verifies it, and all take what was found. Whether it is looked at
//! at all is asked for each: nobody waits because of what another's address did.
//!
//! Each thread has a few of them at hand besides (`front`). All are bounded by what they take in memory: tokens differ in
//! size by a factor of twenty.
//!
//! A token whose signature holds and that is refused all the same is remembered apart from the good ones: a client that
//! goes on showing it costs no signature, and takes nobody's place. Only what whoever has our keys has signed gets there.
//!
//! The cache's key is the whole token, hashed with a keyed fast hash and then compared byte for byte. A digest as the
//! key would cost 410 ns where this costs about 60, and gains nothing: only tokens whose signature held are ever put in,
//! so nobody can choose keys that collide.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::{EngineClock, Timestamp};
use crate::credential::Credential;
use crate::denial::Denial;
use crate::engine::Engine;
use crate::engine::confirm::Confirmations;
use crate::engine::live_sessions::SuccessorToken;
use crate::headers::identity_values;
use crate::limit::{Limits, Source};
use crate::overload::{Holder, Shares};
use crate::revocation::RevocationList;
use crate::revocation::epoch::RevocationEpoch;
use crate::revocation::list::TokenFacts;
use crate::route::OnExpiry;
use crate::token::claims::AccessToken;
use crate::token::verify::{IssuerRules, Refusal, Verifier};
use front::SetId;

mod front;
#[cfg(test)]
pub(crate) use front::bytes as at_hand;

/// How much memory the verified tokens take that all threads share, in bytes.
pub const DEFAULT_CACHE: u64 = 64 << 20;
/// How much the refused ones take.
const REFUSED_CACHE: u64 = 4 << 20;
/// For how long a refused token is remembered. No revocation is ever taken back, so it could be for ever.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// What a kept token takes besides its texts, in bytes: itself, and its place in a cache.
const OVERHEAD: usize = 768;

/// Which headers tell an upstream who the caller is.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders {
    /// Each header, and what stands in it.
    pub headers: Vec<(HeaderName, IdentityField)>,
}

/// What an identity header holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityField {
    /// `sub`.
    Subject,
    /// The account.
    Account,
    /// `client_id`.
    Client,
    /// `scope`.
    Scope,
    /// `sid`.
    Session,
    /// `iss`.
    Issuer,
    /// Another claim, if it is a string, a number or a boolean.
    Claim(Box<str>),
}

impl IdentityHeaders {
    /// A place for each header; empty, where the token does not say what should stand in it.
    fn values(&self, token: &AccessToken) -> Box<[Option<HeaderValue>]> {
        let asks_claims = self.headers.iter().any(|(_, field)| matches!(field, IdentityField::Claim(_)));
        let others = if asks_claims { token.claims() } else { serde_json::Map::new() };
        let claim = |field: &IdentityField| -> Option<Cow<'_, str>> {
            Some(match field {
                IdentityField::Subject => (&*token.subject).into(),
                IdentityField::Account => token.account.as_deref()?.into(),
                IdentityField::Client => token.client.as_deref()?.into(),
                IdentityField::Scope => token.scope.as_str().into(),
                IdentityField::Session => token.session?.0.to_string().into(),
                IdentityField::Issuer => (&*token.issuer).into(),
                // As it counts here, and not as another issuer says.
                IdentityField::Claim(name) if **name == *"scope" => token.scope.as_str().into(),
                IdentityField::Claim(name) => match others.get(name.as_ref())? {
                    serde_json::Value::String(text) => Cow::Owned(text.clone()),
                    serde_json::Value::Number(number) => number.to_string().into(),
                    serde_json::Value::Bool(yes) => (if *yes { "true" } else { "false" }).into(),
                    serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                        return None;
                    }
                },
            })
        };
        let claims: Vec<_> = self.headers.iter().map(|(_, field)| claim(field)).collect();
        let mut values = identity_values(claims.iter().flatten().cloned()).into_iter();
        claims.iter().map(|claim| claim.as_ref().and_then(|_| values.next())).collect()
    }
}

/// What all tokens of a gate share.
#[derive(Debug)]
struct Shared {
    revocations: Arc<RevocationList>,
    identity: IdentityHeaders,
    /// How many requests of each caller are under way.
    callers: Shares,
}

/// A token whose signature, claims, times and revocation were checked for this request.
pub struct Verified {
    token: AccessToken,
    headers: Box<[Option<HeaderValue>]>,
    shard: usize,
    /// What it takes in memory, in bytes.
    weight: u32,
    watch: RevocationEpoch,
    holder: Holder,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Verified {
    /// What the token says.
    pub fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Whose what is held for it is.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// A request of this caller is over.
    pub(crate) fn left(&self) {
        self.shared.callers.leave(self.holder, 1);
    }

    /// The headers that tell an upstream who the caller is, ready made.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let names = self.shared.identity.headers.iter().map(|(name, _)| name);
        names.zip(&self.headers).filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    fn text(&self) -> &str {
        &self.token.text
    }

    fn facts(&self) -> TokenFacts<'_> {
        facts(&self.token)
    }
}

fn facts(token: &AccessToken) -> TokenFacts<'_> {
    TokenFacts {
        issuer: &token.issuer,
        subject: token.token_subject(),
        client: token.client.as_deref(),
        session: token.session,
        jti: token.jti.as_deref(),
        issued_at: token.issued_at,
    }
}

/// The keys that tokens are verified with, and the tokens that they verified.
struct KeySet {
    verifier: Verifier,
    cache: Cache<Arc<str>, Arc<Verified>, foldhash::quality::RandomState>,
    refused: Cache<Arc<str>, Refused, foldhash::quality::RandomState>,
    id: SetId,
}

/// A token whose signature holds and which is refused.
#[derive(Clone)]
struct Refused {
    denial: Denial,
    /// Where nothing but a revocation speaks against it.
    token: Option<Arc<AccessToken>>,
}

/// Where a token came from, for one that was never seen.
#[derive(Clone, Copy)]
pub(crate) struct MissContext<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) confirmations: &'a Confirmations,
    pub(crate) source: Source<'a>,
}

impl<'a> MissContext<'a> {
    /// A token that was shown from there.
    pub(crate) fn new(engine: &'a Engine, source: impl Into<Source<'a>>) -> Self {
        Self { limits: engine.limits(), confirmations: engine.confirmations(), source: source.into() }
    }
}

/// Ends an entry with its token; the engine's clock has the last word at each hit.
struct UntilExpired(Arc<EngineClock>);

impl Expiry<Arc<str>, Arc<Verified>> for UntilExpired {
    fn expire_after_create(&self, _: &Arc<str>, verified: &Arc<Verified>, _: std::time::Instant) -> Option<Duration> {
        Some(verified.token.expires.since(self.0.now()).saturating_add(Duration::from_secs(60)))
    }
}

/// Checks tokens. See the module.
pub struct TokenChecker {
    keys: ArcSwap<KeySet>,
    clock: Arc<EngineClock>,
    shared: Arc<Shared>,
    capacity: u64,
}

impl std::fmt::Debug for TokenChecker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenChecker").field("cached", &self.cached()).finish_non_exhaustive()
    }
}

impl TokenChecker {
    /// A checker that verifies with `verifier`, and keeps good tokens in `capacity` bytes.
    pub fn new(
        verifier: Verifier,
        clock: Arc<EngineClock>,
        revocations: Arc<RevocationList>,
        identity: IdentityHeaders,
        capacity: u64,
        requests_per_caller: usize,
    ) -> Self {
        let callers = Shares::new(requests_per_caller);
        let keys = ArcSwap::from_pointee(KeySet::new(verifier, &clock, capacity));
        Self { keys, clock, shared: Arc::new(Shared { revocations, identity, callers }), capacity }
    }

    /// Verifies with other keys from the next request on; what the old ones verified is forgotten. False if they are no
    /// others: then nothing is forgotten.
    pub fn set_verifier(&self, verifier: Verifier) -> bool {
        let other = !self.keys.load().verifier.equals(&verifier);
        if other {
            self.keys.store(Arc::new(KeySet::new(verifier, &self.clock, self.capacity)));
        }
        other
    }

    /// Checks a credential, of whatever issuer. See [`Self::check_of`].
    ///
    /// # Errors
    /// As [`Self::check_of`].
    pub(crate) fn check<'a>(
        &self,
        credential: Credential<'_>,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        self.check_of(credential, |_| true, shown)
    }

    /// Checks a credential. A hit in the cache costs a look-up, a clock read and an atomic load. `taken` says of one that
    /// was never seen whether its issuer's tokens are wanted at all, before its signature is verified; whoever asks judges
    /// the token that comes back all the same.
    ///
    /// # Errors
    /// The rule that refuses it. [`Denial::TooManyRequests`] for one that was never seen, from where too many forged ones
    /// came.
    pub(crate) fn check_of<'a>(
        &self,
        credential: Credential<'_>,
        taken: impl FnOnce(&IssuerRules) -> bool,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        let token = credential.token();
        let keys = self.keys.load();
        let verified = match front::find(keys.id, token) {
            Some(verified) => verified,
            None => {
                let verified = match keys.cache.get(token) {
                    Some(verified) => verified,
                    None => self.check_new(&keys, token, taken, shown())?,
                };
                if self.capacity > 0 {
                    front::keep(keys.id, &verified);
                }
                verified
            }
        };
        let (now, latest) = self.clock.now_and_latest();
        self.in_time(&verified.token, now, latest)?;
        let epoch = self.shared.revocations.epoch(verified.shard);
        if !verified.watch.is_current(epoch) {
            let judged = self.shared.revocations.judge(verified.facts(), now);
            verified.watch.update(epoch, judged.refuse_from);
        }
        if verified.watch.refuse_from() <= now { Err(Denial::TokenRevoked) } else { Ok(verified) }
    }

    fn check_new(
        &self,
        keys: &KeySet,
        token: &str,
        taken: impl FnOnce(&IssuerRules) -> bool,
        shown: MissContext<'_>,
    ) -> Result<Arc<Verified>, Denial> {
        if let Some(refused) = keys.refused.get(token) {
            return Err(refused.denial);
        }
        shown.limits.admit_unverified(shown.source)?;
        // Not among those that wait for one another below: what a route takes is its own matter.
        if keys.verifier.has_others() && !taken(keys.verifier.claimed(token)?) {
            return Err(Denial::WrongIssuer);
        }
        let text: Arc<str> = token.into();
        let anew = keys.cache.try_get_with(Arc::clone(&text), || self.verify(keys, text, shown.confirmations));
        match &anew {
            Ok(_) => shown.limits.record_valid(shown.source),
            Err(refusal) => count(**refusal, shown),
        }
        anew.map_err(|refusal| refusal.into_denial())
    }

    fn verify(&self, keys: &KeySet, text: Arc<str>, confirmations: &Confirmations) -> Result<Arc<Verified>, Refusal> {
        let now = self.clock.now();
        let verified = keys.verifier.verify_expired(&text, now, self.clock.wall(), Duration::ZERO);
        let mut access = verified.inspect_err(|refusal| keys.remember(&text, *refusal))?;
        // The key and what it leads to share it.
        access.text = text;
        let shard = self.shared.revocations.shard_of(facts(&access));
        // Before the list is asked: an entry that comes in between moves the epoch past this one.
        let epoch = self.shared.revocations.epoch(shard);
        let judged = self.shared.revocations.judge(facts(&access), now);
        if judged.refuse_from <= now {
            keys.remember_revoked(access);
            return Err(Refusal::Authentic(Denial::TokenRevoked));
        }
        if let Some((session, generation)) = access.session {
            confirmations.seen(session, generation);
        }
        let headers = self.shared.identity.values(&access);
        let watch = RevocationEpoch::new(epoch, judged.refuse_from);
        let weight = weight(&access, &headers);
        let holder = Holder::caller(&access.issuer, &access.subject);
        Ok(Arc::new(Verified {
            token: access,
            headers,
            shard,
            weight,
            watch,
            holder,
            shared: Arc::clone(&self.shared),
        }))
    }

    /// Checks again what a long connection hangs on: a verified token, or the one that a rotation has successor it to.
    pub(crate) fn check_again(
        &self,
        verified: &Verified,
        successor: Option<SuccessorToken>,
        on_expiry: OnExpiry,
    ) -> Result<(), Denial> {
        let (now, latest) = self.clock.now_and_latest();
        let token = &verified.token;
        let session =
            token.session.map(|(id, generation)| (id, successor.map_or(generation, |successor| successor.generation)));
        if self.shared.revocations.judge(TokenFacts { session, ..verified.facts() }, now).refuses(now) {
            return Err(Denial::TokenRevoked);
        }
        // What a key has signed ends with it; a token that was issued since may have another.
        let key = successor.map_or(token.key, |successor| successor.key);
        if !self.keys.load().verifier.holds(&token.issuer, &key) {
            return Err(Denial::UnknownKey);
        }
        match (on_expiry, successor) {
            (OnExpiry::Keep, _) => Ok(()),
            // What was successor is a session, and so our own.
            (OnExpiry::Close, Some(SuccessorToken { expires, .. })) if latest >= expires => Err(Denial::TokenExpired),
            (OnExpiry::Close, Some(_)) => Ok(()),
            (OnExpiry::Close, None) => self.in_time(token, now, latest),
        }
    }

    fn in_time(&self, token: &AccessToken, now: Timestamp, latest: Timestamp) -> Result<(), Denial> {
        self.in_time_for(token, Duration::ZERO, now, latest)
    }

    /// `latest` is the later of engine time, which is `now`, and wall clock.
    fn in_time_for(
        &self,
        token: &AccessToken,
        expired_for_at_most: Duration,
        now: Timestamp,
        latest: Timestamp,
    ) -> Result<(), Denial> {
        // Other issuers' tokens are judged on wall time, ours on engine time; what ends ours, by the later of both.
        let (now, latest) = if token.ours {
            (now, latest)
        } else {
            let wall = self.clock.wall();
            (wall, wall)
        };
        if latest >= token.refused_from().plus(expired_for_at_most) {
            return Err(Denial::TokenExpired);
        }
        if token.not_before.is_some_and(|from| from > now.plus(token.leeway)) {
            return Err(Denial::TokenNotYetValid);
        }
        Ok(())
    }

    /// What a token says, if it is one of this gate's issuers' and authentic, revoked or not: for those who exchange or
    /// revoke it. Its use confirms nothing.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn verify_ignoring_expiry(
        &self,
        token: &str,
        expired_for_at_most: Duration,
        shown: MissContext<'_>,
    ) -> Result<AccessToken, Denial> {
        let keys = self.keys.load();
        // What was verified before costs no signature again. Its times are judged as ever.
        let seen = keys.cache.get(token).map(|verified| verified.token.clone());
        let seen = seen.or_else(|| keys.refused.get(token)?.token.map(|token| AccessToken::clone(&token)));
        if let Some(token) = seen {
            let (now, latest) = self.clock.now_and_latest();
            self.in_time_for(&token, expired_for_at_most, now, latest)?;
            return Ok(token);
        }
        shown.limits.admit_unverified(shown.source)?;
        let now = self.clock.now();
        match keys.verifier.verify_expired(token, now, self.clock.wall(), expired_for_at_most) {
            Ok(token) => {
                if self.shared.revocations.judge(facts(&token), now).refuses(now) {
                    shown.limits.record_refused(shown.source);
                    keys.remember_revoked(token.clone());
                }
                Ok(token)
            }
            Err(refusal) => {
                keys.remember(&token.into(), refusal);
                count(refusal, shown);
                Err(refusal.into_denial())
            }
        }
    }

    /// How many requests of each caller are under way.
    pub(crate) fn callers(&self) -> &Shares {
        &self.shared.callers
    }

    /// How much memory the verified tokens take that all threads share, in bytes.
    #[cfg(test)]
    pub(crate) fn cached_bytes(&self) -> u64 {
        let keys = self.keys.load();
        keys.cache.run_pending_tasks();
        keys.cache.weighted_size()
    }

    /// How many verified tokens are kept.
    pub fn cached(&self) -> u64 {
        let keys = self.keys.load();
        keys.cache.run_pending_tasks();
        keys.cache.entry_count()
    }
}

impl KeySet {
    fn new(verifier: Verifier, clock: &Arc<EngineClock>, capacity: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, verified: &Arc<Verified>| verified.weight)
            // Every rotation makes a key that was never seen: the default policy would refuse it once the cache is full.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilExpired(Arc::clone(clock)))
            .build_with_hasher(foldhash::quality::RandomState::default());
        let refused = Cache::builder()
            .max_capacity(REFUSED_CACHE)
            .weigher(|text: &Arc<str>, _: &Refused| as_weight(text.len().saturating_add(OVERHEAD)))
            .time_to_live(REFUSED_FOR)
            .build_with_hasher(foldhash::quality::RandomState::default());
        Self { verifier, cache, refused, id: SetId::next() }
    }

    /// Remembers what was refused for good although its signature holds.
    fn remember(&self, text: &Arc<str>, refusal: Refusal) {
        match refusal {
            Refusal::Authentic(denial) => self.refused.insert(Arc::clone(text), Refused { denial, token: None }),
            Refusal::Unchecked(_) | Refusal::Forged => {}
        }
    }

    fn remember_revoked(&self, token: AccessToken) {
        let text = Arc::clone(&token.text);
        self.refused.insert(text, Refused { denial: Denial::TokenRevoked, token: Some(Arc::new(token)) });
    }
}

/// Counts what was looked at in vain, by what it cost.
fn count(refusal: Refusal, shown: MissContext<'_>) {
    match refusal {
        Refusal::Unchecked(_) => {}
        Refusal::Forged => shown.limits.record_forged(shown.source),
        Refusal::Authentic(_) => shown.limits.record_refused(shown.source),
    }
}

fn weight(token: &AccessToken, headers: &[Option<HeaderValue>]) -> u32 {
    let headers: usize =
        headers.iter().map(|value| size_of_val(value) + value.as_ref().map_or(0, HeaderValue::len)).sum();
    let audience: usize = token.audience.iter().map(|audience| audience.len()).sum();
    let texts = [token.account.as_deref(), token.client.as_deref(), token.jti.as_deref()];
    let texts: usize = texts.into_iter().flatten().map(str::len).sum();
    as_weight(
        OVERHEAD + headers + audience + texts + token.text.len() + token.subject.len() + token.scope.as_str().len(),
    )
}

fn as_weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
