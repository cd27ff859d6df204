//! A verified token, and the data that all verified tokens of a gate share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::assertions::Assertions;
use super::identity::IdentityValues;
use super::key_set::KeySet;
use super::session::CachedSession;
use super::{ASSERTION_BYTES, AssertionHeader, ENTRY_OVERHEAD_BYTES, IdentityHeaders, TokenChecker};
use crate::api_key::CachedKey;
use crate::claim::ClaimPath;
use crate::claim::condition::{Conditions, KeptConditions, KeptOfToken};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::overload::{Holder, Shares};
use crate::revocation::RevocationList;
use crate::revocation::epoch::RevocationEpoch;
use crate::revocation::list::TokenFacts;
use crate::session::confirm::Confirmations;
use crate::session::rotation::REVOKED;
use crate::token::claims::{AccessToken, CLIENT_PREFIX, RareClaims};
use crate::token::delegation::Delegation;
use crate::token::live_keys::LiveKeys;
use crate::token::verify::RulesId;

/// The data that all tokens in a set share.
#[derive(Debug)]
pub(super) struct CacheShared {
    pub(super) revocations: Arc<RevocationList>,
    pub(super) identity: IdentityHeaders,
    /// The number of requests in flight for each caller.
    pub(super) callers: Arc<Shares>,
}

/// A token whose signature, claims, times and revocation were checked for this request.
pub struct Verified {
    pub(super) token: AccessToken,
    headers: IdentityValues,
    /// The index of the revocation counter for this token.
    shard: u32,
    pub(super) watch: RevocationEpoch,
    /// Identifies the rules and keys that verified the token.
    pub(super) rules: RulesId,
    holder: Holder,
    more: Option<Box<More>>,
    /// The values that conditions and limits have read from the claims.
    kept: KeptOfToken,
    pub(super) shared: Arc<CacheShared>,
}

/// Data that only some tokens have: bound tokens, introspected tokens, and the tokens of session cookies and API keys.
/// Tokens also have this data if the keys of their issuer may change, or if assertions are configured.
#[derive(Default)]
struct More {
    /// The keys of the token's issuer, or `None` for the gate's own keys. A change of the gate's own keys replaces the
    /// whole cache.
    keys: Option<Arc<LiveKeys>>,
    /// The generation of the issuer's keys at the last successful check. The initial zero forces a first check.
    keys_stamp: AtomicU64,
    /// Whether the first use of a bound token was recorded.
    is_confirmed: AtomicBool,
    assertions: Assertions,
    /// The session, if the caller presented a session cookie.
    session: Option<CachedSession>,
    /// See [`Verified::digest`].
    digest: OnceLock<[u8; 32]>,
    /// The API key, if the caller presented one.
    api_key: Option<CachedKey>,
}

/// The revocation list's decision about a token. The token is refused from `refuse_from` on.
#[derive(Clone, Copy)]
pub(super) struct RevocationVerdict {
    shard: usize,
    epoch: u64,
    refuse_from: Timestamp,
}

impl RevocationVerdict {
    /// Checks that the token is not revoked at this moment.
    ///
    /// # Errors
    /// [`Denial::TokenRevoked`].
    pub(super) fn passes(self, now: Timestamp) -> Result<(), Denial> {
        if self.refuse_from <= now { Err(Denial::TokenRevoked) } else { Ok(()) }
    }
}

crate::debug_with!(Verified { token });

impl CacheShared {
    /// Checks a token against the revocation list.
    pub(super) fn judge(&self, access: &AccessToken, now: Timestamp) -> RevocationVerdict {
        let shard = self.revocations.shard_of(facts(access));
        // The epoch must be read before the list, so that an entry added in between makes the verdict outdated.
        let epoch = self.revocations.epoch(shard);
        RevocationVerdict { shard, epoch, refuse_from: self.revocations.judge(facts(access), now).refuse_from }
    }

    /// Makes a verified token. `keys` are the issuer's keys, or `None` if these keys cannot change.
    pub(super) fn accept(
        self: &Arc<Self>,
        access: AccessToken,
        keys: Option<Arc<LiveKeys>>,
        rules: RulesId,
        judged: RevocationVerdict,
        session: Option<CachedSession>,
    ) -> Arc<Verified> {
        let needs_more = self.identity.assertion.is_some() || keys.is_some() || access.is_bound() || session.is_some();
        let more = needs_more.then(|| Box::new(More { keys, session, ..More::default() }));
        self.accept_with(access, rules, judged, more)
    }

    /// Makes a verified token from an introspected token. Stores the digest ([`Verified::digest`]).
    pub(super) fn accept_introspected(
        self: &Arc<Self>,
        access: AccessToken,
        rules: RulesId,
        judged: RevocationVerdict,
    ) -> Arc<Verified> {
        self.accept_with(access, rules, judged, Some(Box::default()))
    }

    /// Makes the verified token that represents an API key.
    pub(super) fn accept_key(
        self: &Arc<Self>,
        access: AccessToken,
        rules: RulesId,
        judged: RevocationVerdict,
        key: CachedKey,
    ) -> Arc<Verified> {
        self.accept_with(access, rules, judged, Some(Box::new(More { api_key: Some(key), ..More::default() })))
    }

    fn accept_with(
        self: &Arc<Self>,
        access: AccessToken,
        rules: RulesId,
        judged: RevocationVerdict,
        more: Option<Box<More>>,
    ) -> Arc<Verified> {
        let RevocationVerdict { shard, epoch, refuse_from } = judged;
        let headers = self.identity.values(&access);
        let watch = RevocationEpoch::new(epoch, refuse_from);
        let holder = Holder::caller(access.issuer(), &access.subject);
        Arc::new(Verified {
            token: access,
            headers,
            // The number of shards is small, so this conversion does not fail.
            shard: u32::try_from(shard).unwrap_or(u32::MAX),
            watch,
            rules,
            holder,
            more,
            kept: KeptOfToken::default(),
            shared: Arc::clone(self),
        })
    }
}

impl Verified {
    /// The token's claims.
    pub fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Evaluates the conditions of a route for these claims. The result is stored with the token.
    pub fn kept_conditions(&self, of: &Conditions) -> Arc<KeptConditions> {
        self.kept.conditions(of, || self.token.claims())
    }

    /// The value by which a limit counts requests. `of` derives the value from the claim at `path`. The value is stored
    /// with the token.
    pub fn counted_claim(&self, path: &ClaimPath, of: impl FnOnce(&Value) -> Option<String>) -> Option<String> {
        self.kept.counted(path, || of(path.find(&self.token.claims())?))
    }

    /// The identity for the caller's share of resource pools.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// The digest of the token, which is a key in one of the gate's tables. For a token with additional data, the
    /// digest is computed once and stored. A result of `None` is not stored.
    pub fn digest(&self, make: impl FnOnce(&AccessToken) -> Option<[u8; 32]>) -> Option<[u8; 32]> {
        let Some(more) = self.more.as_deref() else { return make(&self.token) };
        match more.digest.get() {
            Some(known) => Some(*known),
            None => make(&self.token).map(|made| *more.digest.get_or_init(|| made)),
        }
    }

    /// Records the first use of a bound token. Call this only after the caller has proved possession of the key, or a
    /// trusted client has introspected the token. Possession of the token is not sufficient.
    pub fn confirm(&self, confirmations: &Confirmations) {
        if self.token.is_bound() && self.is_unnoted() {
            self.note_use(confirmations);
        }
    }

    /// Returns whether this is the first use of an unbound introspected token.
    pub(super) fn is_first_use(&self) -> bool {
        !self.token.is_bound() && self.is_unnoted()
    }

    fn is_unnoted(&self) -> bool {
        let noted = self.more.as_deref().map(|more| &more.is_confirmed);
        noted.is_some_and(|noted| !noted.load(Ordering::Relaxed) && !noted.swap(true, Ordering::Relaxed))
    }

    /// Records a use of this token.
    pub(super) fn note_use(&self, confirmations: &Confirmations) {
        match self.token.session {
            Some((session, generation)) => confirmations.seen(session, generation),
            None if self.token.is_ours() => {}
            None => confirmations.used(&self.token.text),
        }
    }

    /// Records that a request by this caller has ended.
    pub fn left(&self) {
        self.shared.callers.leave(self.holder, 1);
    }

    /// The identity headers for an upstream.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.named(&self.shared.identity)
    }

    /// Checks that the issuer still has the key that signed the token.
    pub(super) fn recheck_key(&self, now: Timestamp) -> Result<(), Denial> {
        match self.more.as_deref().and_then(|more| Some((more.keys.as_ref()?, &more.keys_stamp))) {
            Some((keys, stamp)) => keys.recheck(&self.token.key(), stamp, now),
            None => Ok(()),
        }
    }

    /// The assertions about this caller, or `None` if assertions are not configured.
    pub(super) fn assertions(&self) -> Option<(&AssertionHeader, &Assertions)> {
        self.shared.identity.assertion.as_ref().zip(self.more.as_deref().map(|more| &more.assertions))
    }

    /// The memory that the token uses, in bytes. The value never changes. Caches compute the value again instead of
    /// storing it, which saves memory.
    pub(super) fn weight(&self) -> u32 {
        let token = &self.token;
        let audience: usize = token.audience.iter().map(|audience| audience.len()).sum();
        let texts = [token.client.as_deref(), token.jti.as_deref()];
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        let assertions = if self.shared.identity.assertion.is_some() { ASSERTION_BYTES } else { 0 };
        as_weight(
            ENTRY_OVERHEAD_BYTES
                + assertions
                + self.more.as_deref().map_or(0, size_of_val)
                + self.headers.bytes()
                + audience
                + texts
                + self.session().map_or(0, CachedSession::bytes)
                + self.api_key().map_or(0, CachedKey::bytes)
                + token.rare.as_deref().map_or(0, RareClaims::bytes)
                + token.text.len()
                + token.subject.len()
                + token.scope.as_str().len(),
        )
    }

    /// The index of the revocation counter for this token.
    pub(super) fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Returns whether the rules and keys that verified the token are still in use.
    pub(super) fn stands_in(&self, keys: &KeySet) -> bool {
        keys.verifier.id_of(self.token.issuer()) == Some(self.rules)
    }

    /// The cache key: the token itself, or the session cookie or API key that the caller presented instead.
    pub(super) fn text(&self) -> &str {
        let Some(more) = self.more.as_deref() else { return &self.token.text };
        let session = more.session.as_ref().map(|session| &*session.cookie);
        session.or_else(|| more.api_key.as_ref().map(|key| &*key.text)).unwrap_or(&self.token.text)
    }

    /// Returns whether the caller presented this token itself, rather than a session cookie or an API key.
    pub(super) fn is_token(&self) -> bool {
        self.more.as_deref().is_none_or(|more| more.session.is_none() && more.api_key.is_none())
    }

    pub(super) fn api_key(&self) -> Option<&CachedKey> {
        self.more.as_deref()?.api_key.as_ref()
    }

    pub(super) fn session(&self) -> Option<&CachedSession> {
        self.more.as_deref()?.session.as_ref()
    }

    pub(super) fn facts(&self) -> TokenFacts<'_> {
        facts(&self.token)
    }
}

pub(super) fn facts(token: &AccessToken) -> TokenFacts<'_> {
    TokenFacts {
        issuer: token.issuer(),
        subject: token.token_subject(),
        sub: token.other_sub(),
        client: if token.is_api_key() { token.subject.strip_prefix(CLIENT_PREFIX) } else { token.client.as_deref() },
        session: token.session,
        issuer_session: token.issuer_session(),
        vouched_by: token.vouched_by(),
        jti: token.jti.as_deref(),
        issued_at: token.issued_at,
        delegation: token.delegation().map(Delegation::facts),
        key_vouchers: token.key_facts().map(|key| &*key.vouched_by),
    }
}

impl TokenChecker {
    /// Describes the revocation that applies to this token.
    pub fn revoked_by(&self, token: &AccessToken) -> &'static str {
        let facts = facts(token);
        let list = &self.revocations;
        let begun = facts.session.map_or(facts.issued_at, |(id, _)| Some(id.created()));
        let is_before = |at| begun.is_none_or(|begun| begun <= at);
        match facts.session {
            Some((id, _)) if list.minimum(id) == REVOKED => "its session has ended",
            _ if is_before(list.not_before(facts.issuer, "", None)) => {
                "all tokens issued before a certain time were revoked, including this token"
            }
            _ if is_before(list.not_before(facts.issuer, facts.subject, None)) => {
                "all earlier tokens of its subject were revoked"
            }
            _ if is_before(list.not_before(facts.issuer, "", facts.client)) => {
                "all earlier tokens of its client were revoked"
            }
            Some(_) => "a newer token of its session has replaced it",
            None => "the token itself was revoked",
        }
    }
}

pub(super) fn as_weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
