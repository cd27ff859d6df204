//! The cache of verified tokens, and the check on a miss: from a `Credential` to a [`Verified`] token. Every request
//! takes this step.
//!
//! The cache (moka) keys a verified token by all of its bytes. A token counts while its issuer has the rules and keys
//! that verified it: a change of one issuer leaves the tokens of the others. The cache keeps what the token *is*. Times and revocation are checked at every hit, and [`crate::policy`]
//! judges what a route *requires*.
//!
//! If several requests present a new token at the same time, one verifies it, and all use the result. Admission is
//! checked for each request: a rate limit on one address holds up no other.
//!
//! Each thread also has a small cache of its own (`front`). All caches are bounded by memory, because tokens differ in
//! size by a factor of twenty.
//!
//! A token that is refused although its signature is good is remembered apart from the good ones: presenting it again
//! costs no signature check, and evicts no good token. Only tokens signed with our issuers' keys get there.
//!
//! The cache's key is the whole token, hashed with a fast keyed hash and then compared byte for byte. A digest as the
//! key would cost 410 ns instead of about 60, and gains nothing: only tokens with a good signature are inserted, so a
//! client cannot choose keys that collide.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::headers::{IdentityText, identity_values};
use crate::limit::{Limits, Source};
use crate::overload::{Holder, Shares};
use crate::revocation::RevocationList;
use crate::revocation::epoch::RevocationEpoch;
use crate::revocation::list::TokenFacts;
use crate::route::OnExpiry;
use crate::token::claims::AccessToken;
use crate::token::live_keys::{KeysWait, LiveKeys};
use crate::token::verify::{IssuerRules, Refusal, RulesId, Verifier, introspecting, is_jwt_shaped, is_opaque};
use front::SetId;

mod front;
mod introspected;
#[cfg(test)]
pub(crate) use front::bytes as at_hand;
use introspected::IntrospectedTokens;
pub(crate) use introspected::{Introspected, IntrospectionWait};

/// The memory of the shared cache of verified tokens, in bytes.
pub const DEFAULT_CACHE: u64 = 64 << 20;
/// The memory of the refused tokens, in bytes.
const REFUSED_CACHE_BYTES: u64 = 4 << 20;
/// How long a refused token is remembered. Revocations are never taken back, so any duration would be safe.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// The memory of a cached token besides its texts, in bytes: the structure itself, and its cache entry.
const ENTRY_OVERHEAD_BYTES: usize = 768;

/// The headers that tell an upstream the caller.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders {
    /// Each header, and its content.
    pub headers: Vec<(HeaderName, IdentityField)>,
}

/// The content of an identity header.
///
/// ```
/// use http::HeaderName;
/// use rotogate::gate::IdentityField;
///
/// let headers = vec![
///     (HeaderName::from_static("x-user"), IdentityField::Subject),
///     (HeaderName::from_static("x-email"), IdentityField::Claim("email".into())),
/// ];
/// let builder = rotogate::Gate::builder().identity_headers(headers);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The roles, joined by commas; none if the issuer left some out.
    Roles,
    /// Another claim, if it is a string, a number or a boolean.
    Claim(Box<str>),
}

impl IdentityHeaders {
    /// A value for each header; `None` if the token does not have the field.
    fn values(&self, token: &AccessToken) -> Box<[Option<HeaderValue>]> {
        let asks_claims = self.headers.iter().any(|(_, field)| matches!(field, IdentityField::Claim(_)));
        let others = if asks_claims { token.claims() } else { serde_json::Map::new() };
        let claim = |field: &IdentityField| -> Option<IdentityText<'_>> {
            Some(IdentityText::Claim(match field {
                IdentityField::Subject => token.header_subject(),
                IdentityField::Account => token.account.as_deref()?.into(),
                IdentityField::Client => token.client.as_deref()?.into(),
                IdentityField::Scope => token.scope.as_str().into(),
                IdentityField::Session => token.session?.0.to_string().into(),
                IdentityField::Issuer => (&*token.issuer).into(),
                IdentityField::Roles if token.roles.are_left_out() || token.roles.names().is_empty() => return None,
                IdentityField::Roles => return Some(IdentityText::List(token.roles.names())),
                // The scope as this gate grants it, not as another issuer writes it.
                IdentityField::Claim(name) if **name == *"scope" || token.mapping.has_scope_in(name) => {
                    token.scope.as_str().into()
                }
                IdentityField::Claim(name) => match others.get(name.as_ref())? {
                    serde_json::Value::String(text) => Cow::Owned(text.clone()),
                    serde_json::Value::Number(number) => number.to_string().into(),
                    serde_json::Value::Bool(yes) => (if *yes { "true" } else { "false" }).into(),
                    serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                        return None;
                    }
                },
            }))
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
    /// The requests in flight of each caller.
    callers: Shares,
}

/// A token whose signature, claims, times and revocation were checked for this request.
pub struct Verified {
    token: AccessToken,
    headers: Box<[Option<HeaderValue>]>,
    shard: usize,
    /// Its memory, in bytes.
    weight: u32,
    watch: RevocationEpoch,
    /// The keys of its issuer; `None` for our own, which change with the whole cache.
    keys: Option<Arc<LiveKeys>>,
    /// The generation of the keys for which its key was found last.
    keys_stamp: AtomicU64,
    /// The rules and keys that judged it.
    rules: RulesId,
    /// The key set in which these were found last.
    found_in: AtomicU64,
    holder: Holder,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Shared {
    /// A token that was verified, or introspected, with the keys of its issuer if they may change.
    ///
    /// # Errors
    /// The token itself, if it is revoked.
    fn accept(
        self: &Arc<Self>,
        access: AccessToken,
        keys: Option<Arc<LiveKeys>>,
        rules: RulesId,
        now: Timestamp,
    ) -> Result<Arc<Verified>, Box<AccessToken>> {
        let shard = self.revocations.shard_of(facts(&access));
        // Read before the list: an entry that is added meanwhile moves the epoch past this one.
        let epoch = self.revocations.epoch(shard);
        let judged = self.revocations.judge(facts(&access), now);
        if judged.refuse_from <= now {
            return Err(Box::new(access));
        }
        let headers = self.identity.values(&access);
        let watch = RevocationEpoch::new(epoch, judged.refuse_from);
        let weight = weight(&access, &headers);
        let holder = Holder::caller(&access.issuer, &access.subject);
        Ok(Arc::new(Verified {
            token: access,
            headers,
            shard,
            weight,
            watch,
            keys,
            // No generation: the first check finds out.
            keys_stamp: AtomicU64::new(0),
            rules,
            found_in: AtomicU64::new(0),
            holder,
            shared: Arc::clone(self),
        }))
    }
}

impl Verified {
    /// The token's claims.
    pub fn token(&self) -> &AccessToken {
        &self.token
    }

    /// The holder that the caller's resources count for.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// A request of this caller ended.
    pub(crate) fn left(&self) {
        self.shared.callers.leave(self.holder, 1);
    }

    /// The headers that tell an upstream the caller, ready to send.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let names = self.shared.identity.headers.iter().map(|(name, _)| name);
        names.zip(&self.headers).filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Is the key that signed it still one of its issuer's?
    fn recheck_key(&self, now: Timestamp) -> Result<(), Denial> {
        self.keys.as_ref().map_or(Ok(()), |keys| keys.recheck(&self.token.key, &self.keys_stamp, now))
    }

    /// Do the rules and keys that judged it still hold?
    fn stands_in(&self, keys: &KeySet) -> bool {
        if self.found_in.load(Ordering::Relaxed) == keys.id.0 {
            return true;
        }
        let stands = keys.verifier.id_of(&self.token.issuer) == Some(self.rules);
        if stands {
            self.found_in.store(keys.id.0, Ordering::Relaxed);
        }
        stands
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

/// The verified tokens of all threads.
type VerifiedCache = Cache<Arc<str>, Arc<Verified>, foldhash::quality::RandomState>;

/// The keys that verify tokens, and the tokens that they verified.
struct KeySet {
    verifier: Verifier,
    cache: VerifiedCache,
    refused: Cache<Arc<str>, RefusedToken, foldhash::quality::RandomState>,
    /// The tokens of each issuer that is asked about them.
    introspected: Vec<Arc<IntrospectedTokens>>,
    id: SetId,
}

/// A token with a good signature that is refused.
#[derive(Clone)]
struct RefusedToken {
    denial: Denial,
    /// The token, if it is refused only because of a revocation.
    token: Option<Arc<AccessToken>>,
}

/// What a cache miss needs: where the token came from, and what counts and notes it.
#[derive(Clone, Copy)]
pub(crate) struct MissContext<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) confirmations: &'a Confirmations,
    pub(crate) source: Source<'a>,
    /// What the issuer answered while the request waited.
    pub(crate) introspected: Option<&'a Introspected>,
}

impl<'a> MissContext<'a> {
    /// The context for a token from this source.
    pub(crate) fn new(engine: &'a Engine, source: impl Into<Source<'a>>) -> Self {
        let (limits, confirmations) = (engine.limits(), engine.confirmations());
        Self { limits, confirmations, source: source.into(), introspected: None }
    }

    /// The context for a request that waited for this answer.
    pub(crate) fn after(self, introspected: Option<&'a Introspected>) -> Self {
        Self { introspected, ..self }
    }
}

/// Evicts an entry when its token expires. The engine's clock decides at each hit.
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
        let shared = Arc::new(Shared { revocations, identity, callers });
        let keys = ArcSwap::from_pointee(KeySet::new(verifier, &clock, capacity, &shared, None));
        Self { keys, clock, shared, capacity }
    }

    /// Verifies with other rules and keys from the next request on, and forgets the tokens of each issuer that has other
    /// ones. Returns false, and forgets nothing, if all are the same.
    pub fn set_verifier(&self, verifier: Verifier) -> bool {
        let old = self.keys.load();
        if old.verifier.equals(&verifier) {
            return false;
        }
        verifier.issuers().iter().filter_map(|rules| rules.keys.live()).for_each(|keys| keys.set_clock(&self.clock));
        let new = KeySet::new(verifier, &self.clock, self.capacity, &self.shared, Some(&old));
        self.keys.store(Arc::new(new));
        true
    }

    /// Is there an issuer of this name?
    pub(crate) fn has_issuer(&self, name: &str) -> bool {
        self.keys.load().verifier.named(name).is_some()
    }

    /// Checks a credential of any issuer. See [`Self::check_of`]. No issuer is asked about an opaque token: nothing says
    /// which one.
    ///
    /// # Errors
    /// As [`Self::check_of`].
    pub(crate) fn check<'a>(
        &self,
        credential: Credential<'_>,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        self.check_with(credential, AskedAbout::Jwts, |_| true, shown)
    }

    /// Checks a credential. A hit in the cache costs a look-up, a clock read and an atomic load. For an unseen token,
    /// `taken` decides whether tokens of its issuer are accepted at all, before its signature is verified. The caller
    /// must judge the returned token in any case.
    ///
    /// # Errors
    /// The rule that refuses it. [`Denial::TooManyRequests`] for an unseen token, if too many forged ones came from its
    /// source. [`Denial::IntrospectionUnavailable`] if its issuer must be asked first: see [`Self::awaited_introspection`].
    pub(crate) fn check_of<'a>(
        &self,
        credential: Credential<'_>,
        taken: impl Fn(&IssuerRules) -> bool,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        self.check_with(credential, AskedAbout::All, taken, shown)
    }

    fn check_with<'a>(
        &self,
        credential: Credential<'_>,
        asked_about: AskedAbout,
        taken: impl Fn(&IssuerRules) -> bool,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        let token = credential.token();
        let keys = self.keys.load();
        let verified = match front::find(keys.id, token) {
            Some(verified) => verified,
            None => self.check_absent(&keys, token, asked_about, taken, shown)?,
        };
        let (now, latest) = self.clock.now_and_latest();
        self.in_time(&verified.token, now, latest)?;
        verified.recheck_key(now)?;
        let epoch = self.shared.revocations.epoch(verified.shard);
        if !verified.watch.is_current(epoch) {
            let judged = self.shared.revocations.judge(verified.facts(), now);
            verified.watch.update(epoch, judged.refuse_from);
        }
        if verified.watch.refuse_from() <= now { Err(Denial::TokenRevoked) } else { Ok(verified) }
    }

    /// A token that this thread does not have. Apart, so that a hit is a short way.
    #[inline(never)]
    fn check_absent<'a>(
        &self,
        keys: &KeySet,
        token: &str,
        asked_about: AskedAbout,
        taken: impl Fn(&IssuerRules) -> bool,
        shown: impl FnOnce() -> MissContext<'a>,
    ) -> Result<Arc<Verified>, Denial> {
        let verified = match keys.cached(token) {
            Some(verified) => verified,
            None => match keys.introspecting(token, asked_about, &taken) {
                Some(tokens) => {
                    return match tokens.known(token) {
                        Some(known) => known,
                        None => self.check_unknown(keys, tokens, token, shown()),
                    };
                }
                None => self.check_new(keys, token, taken, shown())?,
            },
        };
        // An introspected token is not kept here: what its issuer said counts for a time that this cache does not know.
        if self.capacity > 0 {
            front::keep(keys.id, &verified);
        }
        Ok(verified)
    }

    /// A token whose issuer must be asked. Begins to ask, unless each request asks for itself.
    fn check_unknown(
        &self,
        keys: &KeySet,
        tokens: &Arc<IntrospectedTokens>,
        token: &str,
        shown: MissContext<'_>,
    ) -> Result<Arc<Verified>, Denial> {
        if let Some(outcome) = shown.introspected.and_then(|answer| answer.about(tokens, token)) {
            return outcome;
        }
        if let Some(refused) = keys.refused.get(token) {
            return Err(refused.denial);
        }
        shown.limits.admit_unverified(shown.source)?;
        let has_keys = || keys.verifier.rules(&tokens.rules().issuer).is_some_and(|rules| !rules.keys.are_missing());
        if is_jwt_shaped(token) && has_keys() {
            let now = self.clock.now();
            if let Err(refusal) = keys.verifier.verify_expired(token, now, self.clock.wall(), Duration::ZERO) {
                keys.remember(&Arc::from(token), refusal);
                count(refusal, shown);
                return Err(refusal.into_denial());
            }
        }
        tokens.begin(token)
    }

    fn check_new(
        &self,
        keys: &KeySet,
        token: &str,
        taken: impl Fn(&IssuerRules) -> bool,
        shown: MissContext<'_>,
    ) -> Result<Arc<Verified>, Denial> {
        if let Some(refused) = keys.refused.get(token) {
            return Err(refused.denial);
        }
        shown.limits.admit_unverified(shown.source)?;
        // Before the shared verification below: which issuers a route accepts is that route's own matter.
        if keys.verifier.has_others() && !taken(keys.verifier.claimed(token)?) {
            return Err(Denial::WrongIssuer);
        }
        let text: Arc<str> = token.into();
        let verify = || self.verify(keys, Arc::clone(&text), shown.confirmations);
        let anew = keys.cache.try_get_with(Arc::clone(&text), verify).map_err(|refusal| *refusal);
        let anew = match anew {
            // A request that began before a change of the rules put it there.
            Ok(verified) if !verified.stands_in(keys) => {
                verify().inspect(|verified| keys.cache.insert(Arc::clone(&text), Arc::clone(verified)))
            }
            anew => anew,
        };
        match &anew {
            Ok(_) => shown.limits.record_valid(shown.source),
            Err(refusal) => count(*refusal, shown),
        }
        anew.map_err(Refusal::into_denial)
    }

    fn verify(&self, keys: &KeySet, text: Arc<str>, confirmations: &Confirmations) -> Result<Arc<Verified>, Refusal> {
        let now = self.clock.now();
        let verified = keys.verifier.verify_expired(&text, now, self.clock.wall(), Duration::ZERO);
        let mut access = verified.inspect_err(|refusal| keys.remember(&text, *refusal))?;
        // The cache key and its entry share the text.
        access.text = text;
        let issuer_keys = keys.verifier.rules(&access.issuer).and_then(|rules| rules.keys.live()).map(Arc::clone);
        let rules = keys.verifier.id_of(&access.issuer).ok_or(Refusal::Unchecked(Denial::UnknownIssuer))?;
        let accepted = self.shared.accept(access, issuer_keys, rules, now);
        let verified = accepted.map_err(|revoked| {
            keys.remember_revoked(*revoked);
            Refusal::Authentic(Denial::TokenRevoked)
        })?;
        if let Some((session, generation)) = verified.token.session {
            confirmations.seen(session, generation);
        }
        Ok(verified)
    }

    /// Checks a long-lived connection again: its verified token, or the one that a rotation moved it to.
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
        if self.shared.revocations.judge(TokenFacts { session, ..verified.facts() }, now).refuses(now) {
            return Err(Denial::TokenRevoked);
        }
        let keys = self.keys.load();
        let rules = keys.verifier.id_of(&token.issuer).ok_or(Denial::UnknownIssuer)?;
        if !rules.has_rules_of(verified.rules) {
            // The rules by which it was permitted do not hold any more, and a connection is not judged by others.
            return Err(Denial::UnknownIssuer);
        }
        if token.response.is_none() {
            // A removed key ends the tokens that it signed. A later token may have another key.
            let key = successor.map_or(token.key, |successor| successor.key);
            keys.verifier.holds(&token.issuer, &key, now)?;
        } else if self.clock.wall() < token.expires {
            // Past its `exp` an issuer calls any token inactive. The route decides what that means for a connection.
            keys.tokens_of(&token.issuer).ok_or(Denial::UnknownIssuer)?.check_again(verified)?;
        }
        match (on_expiry, successor) {
            (OnExpiry::Keep, _) => Ok(()),
            // Only sessions are advanced, so this token is our own.
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
        // Tokens of other issuers are judged on wall time, ours on engine time; the expiry of ours on the later of
        // both.
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

    /// Verifies a token, accepting one that expired at most `expired_for_at_most` ago, revoked or not: for callers that
    /// exchange or revoke it. It confirms no generation.
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
        // A token that was verified before needs no second signature check. Its times are judged as ever.
        let seen = keys.cached(token).map(|verified| verified.token.clone());
        let seen = seen.or_else(|| keys.refused.get(token)?.token.map(|token| AccessToken::clone(&token)));
        if let Some(token) = seen {
            let (now, latest) = self.clock.now_and_latest();
            keys.verifier.holds(&token.issuer, &token.key, now)?;
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

    /// Verifies an access token that a provider's answer contains. No caller presented it, so no limit counts it.
    #[cfg(feature = "relay")]
    pub(crate) fn verify_answer(&self, token: &str) -> Result<AccessToken, Denial> {
        let keys = self.keys.load();
        keys.verifier.verify(token, self.clock.now(), self.clock.wall())
    }

    /// What a token waits for that could not be judged because its issuer's keys are not known; `None` if nothing is
    /// under way that could decide about it.
    pub(crate) fn awaited(&self, token: &str) -> Option<KeysWait> {
        self.keys.load().verifier.awaited(token)
    }

    /// What a token waits for whose issuer must be asked; `None` if too many are asked about, or the issuer did not answer.
    /// `taken` is that of the check, or `None` if it was for any issuer.
    pub(crate) fn awaited_introspection(
        &self,
        token: &str,
        taken: Option<&dyn Fn(&IssuerRules) -> bool>,
    ) -> Option<IntrospectionWait> {
        let keys = self.keys.load();
        let tokens = match taken {
            Some(taken) => keys.introspecting(token, AskedAbout::All, taken),
            None => keys.introspecting(token, AskedAbout::Jwts, |_| true),
        };
        tokens?.wait(token)
    }

    /// How often the questions about tokens of each issuer had each result: the issuer's name, the result, the number.
    pub fn introspections(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let keys = self.keys.load();
        let of = |tokens: &Arc<IntrospectedTokens>| {
            let name = Arc::clone(&tokens.rules().name);
            tokens.results().counts().map(move |(result, count)| (Arc::clone(&name), result, count)).collect::<Vec<_>>()
        };
        keys.introspected.iter().flat_map(of).collect()
    }

    /// The keys of the issuer with this name; `None` for our own, and for an unknown one.
    pub(crate) fn keys_of(&self, name: &str) -> Option<Arc<LiveKeys>> {
        self.keys.load().verifier.named(name)?.keys.live().map(Arc::clone)
    }

    /// The requests in flight of each caller.
    pub(crate) fn callers(&self) -> &Shares {
        &self.shared.callers
    }

    /// The memory of the shared cache of verified tokens, in bytes.
    #[cfg(test)]
    pub(crate) fn cached_bytes(&self) -> u64 {
        let keys = self.keys.load();
        keys.cache.run_pending_tasks();
        keys.cache.weighted_size()
    }

    /// The number of verified tokens in the cache.
    pub fn cached(&self) -> u64 {
        let keys = self.keys.load();
        keys.cache.run_pending_tasks();
        keys.cache.entry_count() + keys.introspected.iter().map(|tokens| tokens.cached()).sum::<u64>()
    }
}

/// The tokens about which an issuer may be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AskedAbout {
    /// Those that are no JWTs, and the JWTs of an issuer whose JWTs are always asked about.
    All,
    /// These JWTs alone.
    Jwts,
}

impl KeySet {
    /// `old` is the set before this one. The tokens of issuers whose rules and keys stay the same go over; those that
    /// were introspected even with other keys.
    fn new(
        verifier: Verifier,
        clock: &Arc<EngineClock>,
        capacity: u64,
        shared: &Arc<Shared>,
        old: Option<&Self>,
    ) -> Self {
        let verifier = match old {
            Some(old) => verifier.following(&old.verifier),
            None => verifier,
        };
        let ids: HashSet<RulesId> = verifier.ids().iter().copied().collect();
        let kept = old.filter(|old| old.verifier.ids().iter().any(|id| ids.contains(id)));
        let cache = kept.map(|old| old.cache.clone()).unwrap_or_else(|| Self::cache(clock, capacity));
        if kept.is_some() {
            // This gives their memory back. Requests that run meanwhile may add others, so each hit is checked, too.
            let is_over = move |_: &Arc<str>, verified: &Arc<Verified>| !ids.contains(&verified.rules);
            if let Err(error) = cache.invalidate_entries_if(is_over) {
                tracing::error!(%error, "tokens of changed issuers not removed from the cache; refused all the same");
            }
        }
        let refused = Cache::builder()
            .max_capacity(REFUSED_CACHE_BYTES)
            .weigher(|text: &Arc<str>, _: &RefusedToken| as_weight(text.len().saturating_add(ENTRY_OVERHEAD_BYTES)))
            .time_to_live(REFUSED_FOR)
            .build_with_hasher(foldhash::quality::RandomState::default());
        let old = old.map(|old| old.introspected.as_slice()).unwrap_or_default();
        let introspected = verifier.issuers().iter().zip(verifier.ids()).filter_map(|(rules, id)| {
            let kept = old.iter().find(|tokens| tokens.are_of(rules)).map(Arc::clone);
            kept.or_else(|| IntrospectedTokens::new(rules, *id, shared, clock))
        });
        let introspected = introspected.collect();
        Self { verifier, cache, refused, introspected, id: SetId::next() }
    }

    fn cache(clock: &Arc<EngineClock>, capacity: u64) -> VerifiedCache {
        Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, verified: &Arc<Verified>| verified.weight)
            // Every rotation makes an unseen key: the default policy would refuse to admit it once the cache is full.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilExpired(Arc::clone(clock)))
            .support_invalidation_closures()
            .build_with_hasher(foldhash::quality::RandomState::default())
    }

    /// A token in the shared cache whose issuer has the rules and keys that judged it.
    fn cached(&self, token: &str) -> Option<Arc<Verified>> {
        let verified = self.cache.get(token)?;
        if verified.stands_in(self) {
            return Some(verified);
        }
        self.cache.invalidate(token);
        None
    }

    /// The introspected tokens of an issuer.
    fn tokens_of(&self, issuer: &str) -> Option<&Arc<IntrospectedTokens>> {
        self.introspected.iter().find(|tokens| *tokens.rules().issuer == *issuer)
    }

    /// Those among which this token belongs: its issuer decides about it, and not its signature alone.
    fn introspecting(
        &self,
        token: &str,
        asked_about: AskedAbout,
        taken: impl Fn(&IssuerRules) -> bool,
    ) -> Option<&Arc<IntrospectedTokens>> {
        if self.introspected.is_empty() {
            return None;
        }
        let rules = if is_jwt_shaped(token) {
            if !self.introspected.iter().any(|tokens| tokens.rules().is_always_introspected()) {
                return None;
            }
            self.verifier.claimed(token).ok().filter(|rules| rules.is_always_introspected() && taken(rules))?
        } else if asked_about == AskedAbout::All && is_opaque(token) {
            introspecting(self.verifier.issuers(), token, taken)?
        } else {
            return None;
        };
        self.tokens_of(&rules.issuer)
    }

    /// Remembers a token that is refused although its signature is good.
    fn remember(&self, text: &Arc<str>, refusal: Refusal) {
        match refusal {
            Refusal::Authentic(denial) => self.refused.insert(Arc::clone(text), RefusedToken { denial, token: None }),
            Refusal::Unchecked(_) | Refusal::Forged => {}
        }
    }

    fn remember_revoked(&self, token: AccessToken) {
        let text = Arc::clone(&token.text);
        self.refused.insert(text, RefusedToken { denial: Denial::TokenRevoked, token: Some(Arc::new(token)) });
    }
}

/// Counts a failed verification by what it cost.
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
    let roles: usize = token.roles.names().iter().map(|role| role.len() + size_of_val(role)).sum();
    as_weight(
        ENTRY_OVERHEAD_BYTES
            + headers
            + audience
            + texts
            + roles
            + token.text.len()
            + token.response.as_ref().map_or(0, |response| response.0.len())
            + token.subject.len()
            + token.raw_subject.as_ref().map_or(0, |raw| raw.len())
            + token.scope.as_str().len(),
    )
}

fn as_weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
