//! The in-memory list against which every token is checked. The list contains every revocation that could match an
//! unexpired token.
//!
//! Entries of one target are merged, so their order does not matter. An entry is removed only when every token that it
//! can match has expired. The list's size is not limited, because an attacker could otherwise push out entries.
//!
//! A check reads the entry of the token's session, or of its `jti` if it has no session. The check also reads the
//! not-befores for the subject, the client and all tokens. A `sid` in another issuer's token has no effect.

use std::borrow::Borrow;
use std::hash::{Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use parking_lot::Mutex;

use super::epoch::{Batch, Epochs, SHARDS};
use super::{ANY_SESSION, Effect, Revocation, SESSIONS_OF, Target, WITHOUT_SESSION};
use crate::clock::Timestamp;
use crate::session::rotation::REVOKED;
use crate::session::{Generation, SessionId, VouchedBy};

mod delegated;
mod entry;
mod filling;
mod key;
mod missing;
mod parts;
mod refreshed;

pub use delegated::{DelegatedFacts, TokenOrigin};
use entry::{NotBefore, SessionEntry};
pub use filling::{ListFilling, ListShare};
use parts::SessionTable;

/// A slightly wrong clock must not revive tokens.
const KEPT_AFTER_END: Duration = Duration::from_secs(3600);

/// The properties of a verified token that the list checks.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// The `iss` claim.
    pub issuer: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The `sub` claim, if the token is from another issuer and its subject comes from a different claim.
    pub sub: Option<&'a str>,
    /// The `client_id` claim.
    pub client: Option<&'a str>,
    /// The `sid` and `gen` of the gate's own tokens. `None` for other issuers.
    pub session: Option<(SessionId, Generation)>,
    /// The issuer's session, if another issuer issued the token.
    pub issuer_session: Option<&'a str>,
    /// Another issuer that authenticated the session's user.
    pub vouched_by: Option<&'a VouchedBy>,
    /// The `jti` claim.
    pub jti: Option<&'a str>,
    /// The `iat` claim.
    pub issued_at: Option<Timestamp>,
    /// The client that acts for the subject.
    pub delegation: Option<DelegatedFacts<'a>>,
    /// For an API key, the creators' identities at other issuers.
    pub key_vouchers: Option<&'a [VouchedBy]>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The time from which the token is refused. [`Timestamp::ZERO`] means now, and [`Timestamp::MAX`] means never.
    pub refuse_from: Timestamp,
}

impl Judgement {
    /// Returns whether the token is refused at `now`.
    pub fn refuses(self, now: Timestamp) -> bool {
        self.refuse_from <= now
    }
}

/// A map that needs no lock while it is empty. For most issuers, most maps stay empty.
struct CountedMap<K, V> {
    map: DashMap<K, V, RandomState>,
    /// An upper bound on the number of entries. It is raised before insertions, and lowered after removals.
    count: AtomicUsize,
}

impl<K: Eq + Hash, V> CountedMap<K, V> {
    fn new() -> Self {
        Self { map: DashMap::with_hasher(RandomState::new()), count: AtomicUsize::new(0) }
    }

    /// Writers insert before they increment the epoch, and readers load the epoch first. A reader that finds a count of
    /// zero therefore misses no entry that its epoch includes.
    fn get<Q, T>(&self, key: &Q, of: impl FnOnce(&V) -> T) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.map.get(key).map(|entry| of(entry.value()))
    }

    /// Merges an entry. If more tokens are now refused, calls `news` while the entry is locked, and returns true.
    fn merge(&self, key: K, with: V, merge: impl FnOnce(&mut V, &V) -> bool, news: impl FnOnce()) -> bool {
        match self.map.entry(key) {
            Slot::Occupied(mut there) => {
                let is_news = merge(there.get_mut(), &with);
                if is_news {
                    news();
                }
                is_news
            }
            Slot::Vacant(free) => {
                self.count.fetch_add(1, Ordering::Release);
                let _locked = free.insert(with);
                news();
                true
            }
        }
    }

    fn sweep(&self, mut keep: impl FnMut(&mut V) -> bool) -> usize {
        let mut gone = 0;
        self.map.retain(|_, entry| {
            let stays = keep(entry);
            gone += usize::from(!stays);
            stays
        });
        if gone > 0 {
            self.count.fetch_sub(gone, Ordering::Release);
            if self.map.capacity() > 4 * self.map.len() {
                self.map.shrink_to_fit();
            }
        }
        gone
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

struct Issuer {
    subjects: CountedMap<Box<str>, NotBefore>,
    clients: CountedMap<Box<str>, NotBefore>,
    tokens: CountedMap<Box<str>, Timestamp>,
}

impl Issuer {
    fn new() -> Self {
        Self { subjects: CountedMap::new(), clients: CountedMap::new(), tokens: CountedMap::new() }
    }
}

#[derive(Clone, Copy)]
enum Concerned {
    Shard(usize),
    All,
}

impl Batch<'_> {
    fn add(&mut self, concerned: Concerned) {
        match concerned {
            Concerned::Shard(shard) => self.concerns(shard),
            Concerned::All => self.concerns_all(),
        }
    }
}

/// All revocations that can still match a token.
pub struct RevocationList {
    sessions: SessionTable,
    /// The entries of each issuer. Issuers hardly ever change, so readers need no lock.
    issuers: ArcSwap<Vec<(Arc<str>, Arc<Issuer>)>>,
    global: Mutex<Option<NotBefore>>,
    /// 0 means that `global` is empty. Writers lock `global`.
    global_not_before: AtomicU64,
    epochs: Epochs,
    /// The engine time, in milliseconds, after which the list is too old to be used.
    usable_until: AtomicU64,
}

crate::debug_with!(RevocationList { len() });

impl Default for RevocationList {
    fn default() -> Self {
        Self::new()
    }
}

impl RevocationList {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::expecting(0)
    }

    fn expecting(sessions: usize) -> Self {
        Self {
            sessions: SessionTable::expecting(sessions),
            issuers: ArcSwap::from_pointee(Vec::new()),
            global: Mutex::new(None),
            global_not_before: AtomicU64::new(0),
            epochs: Epochs::new(),
            usable_until: AtomicU64::new(u64::MAX),
        }
    }

    /// Returns whether the list is recent enough to be used. An older list may lack other gates' revocations.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        now.as_millis() < self.usable_until.load(Ordering::Acquire)
    }

    /// Allows the list to be used until this time. The caller must first apply all entries up to this time.
    pub fn use_until(&self, until: Timestamp) {
        self.usable_until.store(until.as_millis(), Ordering::Release);
    }

    /// Merges an entry. After this returns, requests with a matching token are refused. Returns whether the list now
    /// refuses more tokens than before.
    ///
    /// An unsupported effect refuses all tokens of the target.
    pub fn apply(&self, revocation: &Revocation) -> bool {
        let raise = |concerned| match concerned {
            Concerned::Shard(shard) => self.epochs.bump(shard),
            Concerned::All => self.epochs.bump_all(),
        };
        let is_news = self.merge(revocation, raise);
        if !is_news && self.epochs.is_batch_open() {
            raise(self.concerned(&revocation.target));
        }
        is_news
    }

    /// Merges many entries. After this returns, requests with a matching token are refused. Each cached token is
    /// checked again only once.
    ///
    /// Returns how many entries refuse tokens that the list did not refuse before.
    pub fn apply_all<'a>(&self, revocations: impl IntoIterator<Item = &'a Revocation>) -> usize {
        let mut batch = self.epochs.batch();
        let is_news = |revocation: &&Revocation| {
            let is_news = self.merge(revocation, |concerned| batch.add(concerned));
            if !is_news && batch.is_another_open() {
                batch.add(self.concerned(&revocation.target));
            }
            is_news
        };
        revocations.into_iter().filter(is_news).count()
    }

    fn merge(&self, revocation: &Revocation, news: impl FnOnce(Concerned)) -> bool {
        let Revocation { target, effect, until } = revocation;
        let news = || news(self.concerned(target));
        match target {
            Target::Session(id) => self.sessions.merge(*id, SessionEntry::new(*effect, *until), news),
            Target::Subject { issuer, subject } => {
                let entry = NotBefore::new(*effect, *until);
                self.issuer_or_new(issuer).subjects.merge(subject.clone(), entry, NotBefore::merge, news)
            }
            Target::Client { issuer, client } => {
                let entry = NotBefore::new(*effect, *until);
                self.issuer_or_new(issuer).clients.merge(client.clone(), entry, NotBefore::merge, news)
            }
            Target::Global => self.merge_global(NotBefore::new(*effect, *until), news),
            Target::Token { issuer, jti } => {
                let later = |there: &mut Timestamp, other: &Timestamp| {
                    *there = (*there).max(*other);
                    false
                };
                self.issuer_or_new(issuer).tokens.merge(jti.clone(), *until, later, news)
            }
        }
    }

    fn concerned(&self, target: &Target) -> Concerned {
        match target {
            Target::Session(id) => Concerned::Shard(session_shard(*id)),
            // These entries may match delegated tokens, which derive from another issuer's token.
            Target::Token { .. } | Target::Subject { .. } | Target::Client { .. } | Target::Global => Concerned::All,
        }
    }

    /// Checks a token. To cache the result, load the [epoch](Self::epoch) **before** this call.
    pub fn judge(&self, facts: TokenFacts<'_>, now: Timestamp) -> Judgement {
        // Other issuers revoke a `sub`. Operators revoke a subject of this gate.
        let of_sub = |sub| self.refuse_from(TokenFacts { subject: sub, sub: None, ..facts });
        let refuse_from = self.refuse_from(facts).min(facts.sub.map_or(Timestamp::MAX, of_sub));
        // Setting the clock back must not revive a token.
        Judgement { refuse_from: if refuse_from <= now { Timestamp::ZERO } else { refuse_from } }
    }

    fn refuse_from(&self, facts: TokenFacts<'_>) -> Timestamp {
        if let Some(vouchers) = facts.key_vouchers {
            return if self.has_key_ended(facts, vouchers) { Timestamp::ZERO } else { Timestamp::MAX };
        }
        let issuer = self.issuer(facts.issuer);
        // For a delegated token, use the client of the exchanged token (see `has_delegate_ended`).
        let client = facts.delegation.map_or(facts.client, |delegation| delegation.client);
        let not_before = self.latest_not_before(issuer.as_deref(), facts.subject, client);
        let not_before = not_before.max(self.session_not_before(facts.issuer, facts.issuer_session, facts.subject));
        let of_any = facts.issuer_session.and_then(|_| self.not_before_of(facts.issuer, ANY_SESSION, facts.subject));
        let not_before = not_before.max(of_any);
        let origin = facts.delegation.and_then(|delegation| delegation.origin);
        let issued_at = origin.map_or(facts.issued_at, |origin| Some(origin.issued_at));
        let begun = facts.session.map_or(issued_at, |(id, _)| Some(id.created()));
        // A token without `iat` counts as older than any not-before.
        if not_before.is_some_and(|at| begun.is_none_or(|begun| begun <= at)) {
            return Timestamp::ZERO;
        }
        if let (Some(by), Some(begun)) = (facts.vouched_by, begun)
            && self.ended_elsewhere(by, begun)
        {
            return Timestamp::ZERO;
        }
        if facts.delegation.is_some_and(|delegation| self.has_delegate_ended(facts, delegation)) {
            return Timestamp::ZERO;
        }
        if self.is_to_be_refreshed(facts) {
            return Timestamp::ZERO;
        }
        match facts.session {
            Some((id, generation)) => {
                self.sessions.get(id, |entry| entry.refuse_from(generation)).unwrap_or(Timestamp::MAX)
            }
            None => {
                let gone = facts.jti.zip(issuer).is_some_and(|(jti, issuer)| issuer.tokens.get(jti, |_| ()).is_some());
                if gone { Timestamp::ZERO } else { Timestamp::MAX }
            }
        }
    }

    /// Notices have a resolution of one second, so they also end sessions that began in the same second.
    pub(crate) fn ended_elsewhere(&self, by: &VouchedBy, begun: Timestamp) -> bool {
        let issuer = self.issuer(&by.issuer);
        let of_subject = issuer.and_then(|issuer| issuer.subjects.get(&*by.subject, NotBefore::at));
        let of_session = self.session_not_before(&by.issuer, by.session.as_deref(), &by.subject);
        of_subject.max(of_session).is_some_and(|at| begun.as_secs() <= at.as_secs())
    }

    /// Returns the not-before of an issuer's session. For a token without a session, returns the latest not-before of
    /// the subject.
    fn session_not_before(&self, issuer: &str, sid: Option<&str>, subject: &str) -> Option<Timestamp> {
        let Some(sid) = sid else {
            let of_any = self.not_before_of(issuer, ANY_SESSION, subject);
            return of_any.max(self.not_before_of(issuer, WITHOUT_SESSION, subject));
        };
        self.not_before_of(issuer, SESSIONS_OF, sid)
    }

    fn not_before_of(&self, issuer: &str, kind: &str, whose: &str) -> Option<Timestamp> {
        let all = self.issuers.load();
        let is_of = |name: &str| name.strip_suffix(kind) == Some(issuer);
        let (_, of_issuer) = all.iter().find(|(name, _)| is_of(name))?;
        of_issuer.subjects.get(whose, NotBefore::at)
    }

    /// Returns the shard of a token. Every entry that matches the token increments the shard's counter.
    pub fn shard_of(&self, facts: TokenFacts<'_>) -> usize {
        // Entries without a session increment all counters.
        facts.session.map_or(0, |(id, _)| session_shard(id))
    }

    /// The counter of a shard (see [`super::epoch`]).
    pub fn epoch(&self, shard: usize) -> u64 {
        self.epochs.read(shard)
    }

    /// Returns the session's highest minimum generation, even if it is not effective yet. Returns `REVOKED` for a
    /// revoked session, and 0 if there is no entry.
    ///
    /// Load the minimum before the record (see
    /// [`Facts::minimum_known`](crate::session::rotation::Facts::minimum_known)).
    pub fn minimum(&self, session: SessionId) -> Generation {
        self.sessions.get(session, SessionEntry::highest).unwrap_or_default()
    }

    /// Returns the latest not-before for the subject, the client and everyone, or [`Timestamp::ZERO`].
    pub fn not_before(&self, issuer: &str, subject: &str, client: Option<&str>) -> Timestamp {
        self.latest_not_before(self.issuer(issuer).as_deref(), subject, client).unwrap_or(Timestamp::ZERO)
    }

    /// Returns the latest not-before for the subject and client.
    pub fn not_before_of_its_own(&self, issuer: &str, subject: &str, client: Option<&str>) -> Timestamp {
        let issuer = self.issuer(issuer);
        let (of_subject, of_client) = Self::own_not_befores(issuer.as_deref(), subject, client);
        of_subject.max(of_client).unwrap_or(Timestamp::ZERO)
    }

    fn own_not_befores(
        issuer: Option<&Issuer>,
        subject: &str,
        client: Option<&str>,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        let of_subject = issuer.and_then(|i| i.subjects.get(subject, NotBefore::at));
        let of_client = issuer.zip(client).and_then(|(i, client)| i.clients.get(client, NotBefore::at));
        (of_subject, of_client)
    }

    fn latest_not_before(&self, issuer: Option<&Issuer>, subject: &str, client: Option<&str>) -> Option<Timestamp> {
        let (of_subject, of_client) = Self::own_not_befores(issuer, subject, client);
        let of_all = match self.global_not_before.load(Ordering::Acquire) {
            0 => None,
            at => Some(Timestamp::from_millis(at)),
        };
        of_subject.max(of_client).max(of_all)
    }

    /// Removes the entries that expired more than an hour before `now`, and returns the number of removed entries.
    ///
    /// The epoch counters stay unchanged, because all matching tokens have expired.
    pub fn sweep(&self, now: Timestamp) -> usize {
        let over = |until: Timestamp| until.plus(KEPT_AFTER_END) < now;
        let mut gone = self.sessions.sweep(|entry| {
            entry.settle(now);
            !over(entry.until())
        });
        for (_, issuer) in self.issuers.load().iter() {
            gone += issuer.subjects.sweep(|entry| !over(entry.until()));
            gone += issuer.clients.sweep(|entry| !over(entry.until()));
            gone += issuer.tokens.sweep(|until| !over(*until));
        }
        let mut global = self.global.lock();
        if global.as_ref().is_some_and(|entry| over(entry.until())) {
            *global = None;
            self.global_not_before.store(0, Ordering::Release);
            gone += 1;
        }
        gone
    }

    /// The number of targets with an entry.
    pub fn len(&self) -> usize {
        let per_issuer = |i: &Issuer| i.subjects.len() + i.clients.len() + i.tokens.len();
        let issuers: usize = self.issuers.load().iter().map(|(_, i)| per_issuer(i)).sum();
        let global = self.global.lock().is_some();
        self.sessions.len() + issuers + usize::from(global)
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn merge_global(&self, entry: NotBefore, news: impl FnOnce()) -> bool {
        let mut global = self.global.lock();
        let is_news = match &mut *global {
            Some(there) => there.merge(&entry),
            None => {
                *global = Some(entry);
                true
            }
        };
        if is_news {
            self.global_not_before.store(entry.at().as_millis(), Ordering::Release);
            news();
        }
        is_news
    }

    fn issuer(&self, name: &str) -> Option<Arc<Issuer>> {
        self.issuers.load().iter().find(|(known, _)| **known == *name).map(|(_, issuer)| issuer.clone())
    }

    fn issuer_or_new(&self, name: &Arc<str>) -> Arc<Issuer> {
        loop {
            if let Some(issuer) = self.issuer(name) {
                return issuer;
            }
            self.issuers.rcu(|known| {
                let mut more = Vec::clone(known);
                if !more.iter().any(|(there, _)| there == name) {
                    more.push((name.clone(), Arc::new(Issuer::new())));
                }
                more
            });
        }
    }
}

/// Uses the last byte of the session id, because it is random.
fn session_shard(id: SessionId) -> usize {
    usize::from(id.as_bytes()[15]) % SHARDS
}

#[cfg(test)]
mod tests;
