//! The list that every token is checked against: all revocations that a live token could match, in memory.
//!
//! Entries of one target are merged, never replaced, so their order of arrival does not matter: a rotation's entry that
//! arrives after the logout's revives nothing. An entry leaves only when every token that it can match has expired. A
//! bound by size would let an attacker flood out entries.
//!
//! A check reads only entries that can match: the session's entry, and the not-before of subject, client and all; for a
//! token without a session, its `jti` instead of the session. So a `sid` in another issuer's token has no effect, and
//! neither has the `jti` of a token with a session: such a token ends with its session.

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

/// How long an entry stays after its end, so that a slightly wrong clock revives no token.
const KEPT_AFTER_END: Duration = Duration::from_secs(3600);

/// The properties of a token that the list needs, all from verified claims.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// `sub` of another issuer's token, if its subject is another claim.
    pub sub: Option<&'a str>,
    /// `client_id`.
    pub client: Option<&'a str>,
    /// `sid` and `gen`, of our own tokens only. `None` for every other issuer's token, whatever claims it has.
    pub session: Option<(SessionId, Generation)>,
    /// The session at another issuer. `None` for our own tokens.
    pub issuer_session: Option<&'a str>,
    /// The issuer that vouched for the subject of our session.
    pub vouched_by: Option<&'a VouchedBy>,
    /// `jti`.
    pub jti: Option<&'a str>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// The actor for the subject, in our own tokens.
    pub delegation: Option<DelegatedFacts<'a>>,
    /// The users at other issuers who made the API key that the token represents, and the keys that it replaced.
    pub key_vouchers: Option<&'a [VouchedBy]>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The time from which the token is refused: [`Timestamp::ZERO`] if it is refused already, [`Timestamp::MAX`] if no
    /// entry matches.
    pub refuse_from: Timestamp,
}

impl Judgement {
    /// Is the token refused at this moment?
    pub fn refuses(self, now: Timestamp) -> bool {
        self.refuse_from <= now
    }
}

/// A map that is known to be empty without a lock: most issuers never have an entry of most kinds.
struct CountedMap<K, V> {
    map: DashMap<K, V, RandomState>,
    /// Never less than the size of the map: raised before an insertion, lowered after a removal.
    count: AtomicUsize,
}

impl<K: Eq + Hash, V> CountedMap<K, V> {
    fn new() -> Self {
        Self { map: DashMap::with_hasher(RandomState::new()), count: AtomicUsize::new(0) }
    }

    /// Writers insert before they raise the epoch, and readers load the epoch before this call. So if a reader still
    /// finds a count of zero, its check will be repeated anyway.
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

    /// Returns true if the entry refuses anything new. Then `news` runs while the entry is locked, so a later call that
    /// finds nothing new knows that `news` has run.
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

    /// Keeps the entries for which `keep` is true, frees memory if most of it is unused, and returns how many entries
    /// were removed.
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

/// The entries for one issuer's tokens.
struct Issuer {
    subjects: CountedMap<Box<str>, NotBefore>,
    clients: CountedMap<Box<str>, NotBefore>,
    /// `jti` → the latest expiry of such a token.
    tokens: CountedMap<Box<str>, Timestamp>,
}

impl Issuer {
    fn new() -> Self {
        Self { subjects: CountedMap::new(), clients: CountedMap::new(), tokens: CountedMap::new() }
    }
}

/// The tokens that an entry may match.
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

/// All revocations that could still match a token.
pub struct RevocationList {
    sessions: SessionTable,
    /// These few entries hardly ever change, so they are read without a lock.
    issuers: ArcSwap<Vec<(Arc<str>, Arc<Issuer>)>>,
    global: Mutex<Option<NotBefore>>,
    /// The moment in `global`; 0 without a moment. Written under the lock of `global`.
    global_not_before: AtomicU64,
    epochs: Epochs,
    /// Engine time, in ms, until which the list may be used without news from a shared store.
    usable_until: AtomicU64,
}

crate::debug_with!(RevocationList { len() });

impl Default for RevocationList {
    fn default() -> Self {
        Self::new()
    }
}

impl RevocationList {
    /// An empty list.
    pub fn new() -> Self {
        Self::expecting(0)
    }

    /// An empty list with room for this many sessions.
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

    /// May the list be used? Not if other gates may have revoked something long ago that has not arrived here.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        now.as_millis() < self.usable_until.load(Ordering::Acquire)
    }

    /// Lets the list be used until this moment. Call it after the entries up to then were applied.
    pub fn use_until(&self, until: Timestamp) {
        self.usable_until.store(until.as_millis(), Ordering::Release);
    }

    /// Merges an entry into its target's. When this returns, no later request passes it. Returns false if all of it was
    /// already refused: no cached token is then checked again, unless [many](Self::apply_all) are being merged.
    ///
    /// An effect that does not fit its target, which only a corrupt store could contain, refuses all of the target's
    /// tokens.
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

    /// Merges many entries. When this returns, no later request passes any of them. A cached token is checked again
    /// once, not once for each entry. Returns the number of entries that refuse anything new.
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

    /// Merges an entry. `news` gets the tokens that must be checked again, while the entry is locked.
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
            // A delegated token of this gate contains the id of another issuer's exchanged token, so such an entry may
            // match it, too.
            Target::Token { .. } | Target::Subject { .. } | Target::Client { .. } | Target::Global => Concerned::All,
        }
    }

    /// Checks a token. To remember the result, load the [epoch](Self::epoch) **before** calling this.
    pub fn judge(&self, facts: TokenFacts<'_>, now: Timestamp) -> Judgement {
        // A notice of another issuer names `sub`, an operator the subject.
        let of_sub = |sub| self.refuse_from(TokenFacts { subject: sub, sub: None, ..facts });
        let refuse_from = self.refuse_from(facts).min(facts.sub.map_or(Timestamp::MAX, of_sub));
        // One value for every moment in the past, so that a clock set back does not revive a token.
        Judgement { refuse_from: if refuse_from <= now { Timestamp::ZERO } else { refuse_from } }
    }

    fn refuse_from(&self, facts: TokenFacts<'_>) -> Timestamp {
        if let Some(vouchers) = facts.key_vouchers {
            return if self.has_key_ended(facts, vouchers) { Timestamp::ZERO } else { Timestamp::MAX };
        }
        let issuer = self.issuer(facts.issuer);
        // The client of a delegated token got it after the subject's login, which another client began: see
        // `has_delegate_ended`.
        let client = facts.delegation.map_or(facts.client, |delegation| delegation.client);
        let not_before = self.latest_not_before(issuer.as_deref(), facts.subject, client);
        let not_before = not_before.max(self.session_not_before(facts.issuer, facts.issuer_session, facts.subject));
        let of_any = facts.issuer_session.and_then(|_| self.not_before_of(facts.issuer, ANY_SESSION, facts.subject));
        let not_before = not_before.max(of_any);
        let origin = facts.delegation.and_then(|delegation| delegation.origin);
        let issued_at = origin.map_or(facts.issued_at, |origin| Some(origin.issued_at));
        let begun = facts.session.map_or(issued_at, |(id, _)| Some(id.created()));
        // A token without `iat` may be older than any moment.
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

    /// Has the issuer that vouched for a user ended the user's login, when or after our session began? A notice has
    /// whole seconds, so a session of the same second has ended, too.
    pub(crate) fn ended_elsewhere(&self, by: &VouchedBy, begun: Timestamp) -> bool {
        let issuer = self.issuer(&by.issuer);
        let of_subject = issuer.and_then(|issuer| issuer.subjects.get(&*by.subject, NotBefore::at));
        let of_session = self.session_not_before(&by.issuer, by.session.as_deref(), &by.subject);
        of_subject.max(of_session).is_some_and(|at| begun.as_secs() <= at.as_secs())
    }

    /// The not-before of a session of another issuer. For a token that names no session, the not-before of any session
    /// of its subject.
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

    /// The shard whose counter rises with every entry that can match such a token.
    pub fn shard_of(&self, facts: TokenFacts<'_>) -> usize {
        // Other entries raise all counters.
        facts.session.map_or(0, |(id, _)| session_shard(id))
    }

    /// The counter of a shard: see [`super::epoch`].
    pub fn epoch(&self, shard: usize) -> u64 {
        self.epochs.read(shard)
    }

    /// The highest minimum generation known for a session, whether or not it is in effect yet; `REVOKED` if the session
    /// is revoked, 0 without an entry. For [`Facts::minimum_known`](crate::session::rotation::Facts::minimum_known):
    /// read it before the record is loaded.
    pub fn minimum(&self, session: SessionId) -> Generation {
        self.sessions.get(session, SessionEntry::highest).unwrap_or_default()
    }

    /// The latest of the not-befores of a subject, a client and everyone; [`Timestamp::ZERO`] without a not-before.
    pub fn not_before(&self, issuer: &str, subject: &str, client: Option<&str>) -> Timestamp {
        self.latest_not_before(self.issuer(issuer).as_deref(), subject, client).unwrap_or(Timestamp::ZERO)
    }

    /// The later of the not-befores of a subject and a client, without the global one.
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

    /// Removes the entries that ended more than an hour before `now`, and returns their number. It raises no counter:
    /// every token that such an entry could match has expired, and the recorded result of a cached token is never
    /// loosened.
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

    /// Is the list empty?
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

/// The shard, taken from the random bytes of the id.
fn session_shard(id: SessionId) -> usize {
    usize::from(id.as_bytes()[15]) % SHARDS
}

#[cfg(test)]
mod tests;
