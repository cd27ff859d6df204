//! The keys that verify tokens, with the caches of verified and refused tokens.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use moka::{Equivalent, Expiry};

use super::front::SetId;
use super::introspected::IntrospectedTokens;
use super::token_key::{TextHasher, TokenKey, TokenRef};
use super::verified::{CacheShared, Verified, as_weight};
use super::{ENTRY_OVERHEAD_BYTES, REFUSED_CACHE_BYTES, REFUSED_FOR, TakenIssuers, TokenChecker};
use crate::clock::EngineClock;
use crate::denial::Denial;
use crate::token::claims::AccessToken;
use crate::token::observer::Observer;
use crate::token::verify::{
    IssuerRules, RulesId, TokenRefusal, Verifier, has_prefix, introspecting, is_jwt_shaped, is_opaque,
};

/// The verified tokens of all threads.
type VerifiedCache = Cache<TokenKey, Arc<Verified>, foldhash::quality::RandomState>;

/// The verification keys and the verified tokens.
pub(super) struct KeySet {
    pub(super) verifier: Verifier,
    pub(super) cache: VerifiedCache,
    pub(super) refused: Cache<TokenKey, RefusedToken, foldhash::quality::RandomState>,
    /// The hasher for the keys of both caches.
    hasher: TextHasher,
    /// One cache for each issuer whose tokens are introspected.
    pub(super) introspected: Vec<Arc<IntrospectedTokens>>,
    pub(super) id: SetId,
    pub(super) shared: Arc<CacheShared>,
}

/// A token that is refused although its signature is valid.
#[derive(Clone)]
pub(super) struct RefusedToken {
    pub(super) denial: Denial,
    /// Set if the token was refused because of a revocation.
    pub(super) token: Option<Arc<AccessToken>>,
}

/// Removes an entry when its token expires. Each hit checks the expiry by the engine's clock.
struct UntilExpired(Arc<EngineClock>);

impl Expiry<TokenKey, Arc<Verified>> for UntilExpired {
    fn expire_after_create(&self, _: &TokenKey, verified: &Arc<Verified>, _: std::time::Instant) -> Option<Duration> {
        Some(verified.token.expires.since(self.0.now()).saturating_add(Duration::from_secs(60)))
    }
}

impl KeySet {
    /// Makes the set that replaces `old`. Cached tokens are kept for issuers whose rules and keys are unchanged.
    /// Introspected tokens are kept even if the keys changed. If the shared data has changed, no tokens are kept.
    pub(super) fn new(
        verifier: Verifier,
        clock: &Arc<EngineClock>,
        capacity: u64,
        shared: Arc<CacheShared>,
        old: Option<&Self>,
    ) -> Self {
        let verifier = match old {
            Some(old) => verifier.following(&old.verifier),
            None => verifier,
        };
        let hasher = old.map(|old| old.hasher.clone()).unwrap_or_default();
        let old = old.filter(|old| Arc::ptr_eq(&old.shared, &shared));
        let ids: HashSet<RulesId> = verifier.ids().iter().copied().collect();
        let kept = old.filter(|old| old.verifier.ids().iter().any(|id| ids.contains(id)));
        let cache = kept.map(|old| old.cache.clone()).unwrap_or_else(|| Self::cache(clock, capacity));
        if kept.is_some() {
            // Frees the memory of outdated tokens. Running requests may still add outdated tokens, so each hit is
            // checked as well.
            let over = cache.iter().filter(|(_, verified)| !ids.contains(&verified.rules));
            over.for_each(|(key, _)| cache.invalidate(&*key));
        }
        let refused = Cache::builder()
            .max_capacity(REFUSED_CACHE_BYTES)
            .weigher(|key: &TokenKey, _: &RefusedToken| {
                as_weight(key.text().len().saturating_add(ENTRY_OVERHEAD_BYTES))
            })
            .time_to_live(REFUSED_FOR)
            .build_with_hasher(foldhash::quality::RandomState::default());
        let old = old.map(|old| old.introspected.as_slice()).unwrap_or_default();
        let introspected = verifier.issuers().iter().zip(verifier.ids()).filter_map(|(rules, id)| {
            let kept = old.iter().find(|tokens| tokens.are_of(rules)).map(Arc::clone);
            kept.or_else(|| IntrospectedTokens::new(rules, *id, &shared, clock))
        });
        let introspected = introspected.collect();
        Self { verifier, cache, refused, hasher, introspected, id: SetId::next(), shared }
    }

    fn cache(clock: &Arc<EngineClock>, capacity: u64) -> VerifiedCache {
        Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, verified: &Arc<Verified>| verified.weight())
            // The default policy of a full cache would not admit the new token of a rotation.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilExpired(Arc::clone(clock)))
            .build_with_hasher(foldhash::quality::RandomState::default())
    }

    /// The cache key for a token.
    pub(super) fn key<'a>(&self, text: &'a str) -> TokenRef<'a> {
        TokenRef::new(&self.hasher, text)
    }

    /// Finds a token in the shared cache. The rules and keys that verified the token must still be current.
    pub(super) fn cached<O: Observer>(&self, token: TokenRef<'_>) -> Option<Arc<Verified>> {
        let verified = entry::<O, _, _, _, _>(&self.cache, &token)?;
        if verified.stands_in(self) {
            return Some(verified);
        }
        if O::HAS_EFFECTS {
            self.cache.invalidate(&token);
        }
        None
    }

    /// Returns the stored denial for a refused token with a valid signature.
    pub(super) fn refused<O: Observer>(&self, token: TokenRef<'_>) -> Option<Denial> {
        entry::<O, _, _, _, _>(&self.refused, &token).map(|refused| refused.denial)
    }

    /// The introspected tokens of an issuer.
    pub(super) fn tokens_of(&self, issuer: &str) -> Option<&Arc<IntrospectedTokens>> {
        self.introspected.iter().find(|tokens| *tokens.rules().issuer == *issuer)
    }

    /// Returns the claims by which a token describes itself although an issuer introspects it. They are not verified.
    pub(super) fn described(&self, token: &str) -> Option<(&Arc<IntrospectedTokens>, Result<AccessToken, Denial>)> {
        let tokens = self.introspecting(token, Some(&|_| true))?;
        Some((tokens, tokens.described(token)?))
    }

    /// Returns the cache of the issuer that must introspect this token, or `None`.
    pub(super) fn introspecting(&self, token: &str, taken: TakenIssuers<'_>) -> Option<&Arc<IntrospectedTokens>> {
        if self.introspected.is_empty() {
            return None;
        }
        let is_jwt = is_jwt_shaped(token);
        let rules = if is_jwt && has_prefix(self.verifier.issuers(), token) {
            // Only the issuer with this prefix may see the token.
            let taken = taken?;
            introspecting(self.verifier.issuers(), token, |_| true).filter(|rules| taken(rules))?
        } else if is_jwt {
            if !self.introspected.iter().any(|tokens| tokens.rules().is_always_introspected()) {
                return None;
            }
            let is_taken = |rules: &&IssuerRules| taken.is_none_or(|taken| taken(rules));
            self.verifier.claimed(token).ok().filter(|rules| rules.is_always_introspected()).filter(is_taken)?
        } else {
            introspecting(self.verifier.issuers(), token, taken.filter(|_| is_opaque(token))?)?
        };
        self.tokens_of(&rules.issuer)
    }

    /// Remembers a token that was refused although its signature is valid.
    pub(super) fn remember(&self, key: TokenKey, refusal: TokenRefusal) {
        match refusal {
            TokenRefusal::Authentic(denial) => self.refused.insert(key, RefusedToken { denial, token: None }),
            TokenRefusal::Unchecked(_) | TokenRefusal::Undecided(..) | TokenRefusal::Forged(..) => {}
        }
    }

    pub(super) fn remember_revoked(&self, token: AccessToken) {
        let key = TokenKey::new(&self.hasher, Arc::clone(&token.text));
        self.refused.insert(key, RefusedToken { denial: Denial::TokenRevoked, token: Some(Arc::new(token)) });
    }
}

/// Finds an entry in a cache. If `O` has no effects, the entry is not marked as used.
pub(super) fn entry<O, K, Q, V, S>(cache: &Cache<K, V, S>, key: &Q) -> Option<V>
where
    O: Observer,
    K: Hash + Eq + Send + Sync + 'static,
    Q: Equivalent<K> + Hash + ?Sized,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    if O::HAS_EFFECTS {
        return cache.get(key);
    }
    let is_there = cache.contains_key(key);
    is_there.then(|| cache.iter().find(|(known, _)| key.equivalent(known)).map(|(_, entry)| entry)).flatten()
}

impl TokenChecker {
    /// The rules for the other issuers, with their current keys.
    pub fn trusted(&self) -> Vec<IssuerRules> {
        self.keys.load().verifier.issuers().iter().filter(|rules| !rules.ours).cloned().collect()
    }

    /// The issuers whose tokens cannot be verified, because their keys are unknown or too old.
    pub fn issuers_without_keys(&self) -> Vec<Arc<str>> {
        let (keys, now) = (self.keys.load(), self.clock.now());
        let lacks = |rules: &&IssuerRules| {
            rules.introspection.is_none() && rules.keys.live().is_some_and(|keys| keys.usable(now).is_none())
        };
        keys.verifier.issuers().iter().filter(lacks).map(|rules| Arc::clone(&rules.name)).collect()
    }
}
