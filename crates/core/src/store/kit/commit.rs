//! Commits for stores that compare revisions but cannot run the rules.
//!
//! The rules run in the gate, on a presumed state. The store executes the writes if its state equals the presumed
//! state. Otherwise the store returns its state, and the rules run again.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::begin::{begin_of, begin_of_all};
use super::fields::History;
use super::network::not_done;
use super::snapshot::{RecordWrite, Snapshot};
use crate::clock::Timestamp;
use crate::revocation::{Revocation, Target};
use crate::session::{Generation, Session, SessionId};
use crate::store::rules::{Failure, KEPT_AFTER_END, Rules};
use crate::store::{Inserted, StoreError, SubjectBound};

/// The maximum number of attempts to execute an operation that conflicts with other gates.
pub const MAX_DECISIONS: u32 = 24;
/// The extra time for which a revocation is kept after a conflict, because newer sessions may expire later.
const MARGIN: Duration = Duration::from_secs(60);
/// The maximum total size of the hints. An entry has size 1, and a record has size 16.
const MAX_HINTS: u64 = 65_536;
const TURNS: usize = 64;

/// The preconditions and side effects of an operation, apart from the writes of the rules.
#[derive(Default)]
pub struct Operation<'a> {
    /// Records that must be unchanged.
    pub ids: Vec<SessionId>,
    /// Sessions that must be live, whatever else changes in their records.
    pub live: Vec<SessionId>,
    /// Targets whose entries must be unchanged.
    pub targets: Vec<Target>,
    /// The commit fails if a not-before covers this session.
    pub held: Option<&'a Session>,
    /// The latest server time at which the commit is allowed.
    pub by: Option<Timestamp>,
    /// Whether the store must be an incomplete copy.
    pub into_copy: bool,
    /// The rules use the latest expiry of this subject's sessions, or of all sessions if `None`.
    pub subject: Option<&'a str>,
    /// The subject whose number of inserts must be unchanged.
    pub inserts: Option<&'a str>,
    /// Some sessions of a subject. The subject's other live sessions must expire by this time.
    pub only: Option<(&'a [SessionId], Timestamp)>,
    /// Later sessions must have a creation stamp after this moment, unless the moment is far in the future.
    pub raises: Option<Timestamp>,
    /// Whether a replaced record keeps the id and history of its last write. They identify a retry.
    pub keeps_names: bool,
    /// The history id for the written records. `None` means the store's current history.
    pub history: Option<History>,
}

/// The values that a commit compares, in the order of the store's response.
pub struct Compared<'s> {
    /// The compared records, with their new content if they are written.
    pub records: Vec<(SessionId, Option<&'s RecordWrite>)>,
    /// The compared entries, with their new content if they are written.
    pub entries: Vec<(Target, Option<&'s Revocation>)>,
    /// The commit fails if a not-before for one of these targets covers the session.
    pub held: Vec<Target>,
}

impl<'a> Operation<'a> {
    /// The operation that inserts a session.
    pub fn inserting(session: &'a Session) -> Self {
        Self {
            ids: vec![session.id],
            held: Some(session),
            // After an hour, the store may have removed a revocation that covered the session.
            by: Some(session.created().plus(KEPT_AFTER_END)),
            keeps_names: true,
            ..Self::default()
        }
    }

    /// What a commit compares. Call this after the rules ran on the snapshot.
    pub fn compared<'s>(&self, issuer: &Arc<str>, snapshot: &'s Snapshot) -> Compared<'s> {
        let mut records: Vec<_> = snapshot.writes().iter().map(|write| (write.new.id, Some(write))).collect();
        for id in self.ids.iter().chain(&self.live) {
            if !records.iter().any(|(other, _)| other == id) {
                records.push((*id, None));
            }
        }
        let mut entries: Vec<_> =
            snapshot.entry_writes().iter().map(|entry| (entry.target.clone(), Some(entry))).collect();
        for target in &self.targets {
            if !entries.iter().any(|(other, _)| other == target) {
                entries.push((target.clone(), None));
            }
        }
        let held = self.held.map(|session| held_against(issuer, session).into()).unwrap_or_default();
        Compared { records, entries, held }
    }
}

/// The history id of records that were written back. No store has this id, so another node can still write back a
/// later record.
const EARLIER: History = [0; 8];

impl<'a> Operation<'a> {
    /// The operation that writes a record back after a loss of writes.
    pub fn restoring(record: &'a Session) -> Self {
        Self {
            ids: vec![record.id],
            targets: vec![Target::Session(record.id)],
            held: Some(record),
            by: Some(record.ends_at().plus(KEPT_AFTER_END)),
            history: Some(EARLIER),
            ..Self::default()
        }
    }
}

impl Operation<'_> {
    /// The required first bytes of the stored record. An empty list accepts every record. `None` means that the record
    /// must not exist.
    pub fn expected_begin(&self, snapshot: &Snapshot, id: SessionId, is_written: bool) -> Option<Vec<u8>> {
        Some(match snapshot.record(id)? {
            Err(_) => Vec::new(),
            Ok(_) if !is_written && self.live.contains(&id) => begin_of_all(false).to_vec(),
            Ok(known) => begin_of(known).to_vec(),
        })
    }
}

/// The targets whose not-befores may cover a session.
pub fn held_against(issuer: &Arc<str>, session: &Session) -> [Target; 3] {
    let issuer = || Arc::clone(issuer);
    [
        Target::Subject { issuer: issuer(), subject: session.subject.clone() },
        Target::Client { issuer: issuer(), client: session.client.clone() },
        Target::Global,
    ]
}

/// Once `entry` is written, new sessions must be created after this time.
pub fn raises(entry: &Revocation) -> Option<Timestamp> {
    entry.effect.sessions_until()
}

/// The result of a commit.
pub enum Committed {
    /// Everything was written.
    Done,
    /// Nothing was written, because the store's state differs. Contains that state.
    Changed(Snapshot),
    /// Nothing was written, because the commit arrived after its time limit.
    Late,
}

/// The sessions to revoke before an insert, and the state that led to this decision.
#[derive(Debug)]
pub struct InsertRoom<K> {
    /// The store compares this value to check that the subject's sessions are unchanged.
    pub known: K,
    /// The subject's sessions, with the changes that the rules made.
    pub plan: Snapshot,
    /// The revocations that make room for the new session.
    pub ended: Vec<Revocation>,
}

impl<K> InsertRoom<K> {
    /// Determines which of the subject's sessions must be revoked. The inner error means that the new session is
    /// refused.
    ///
    /// # Errors
    /// The rules return an error.
    pub fn find(
        (known, mut plan): (K, Snapshot),
        rules: &Rules,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<Result<Self, Inserted>, StoreError> {
        match rules.insert(&mut plan, session, bound)? {
            Inserted::Inserted(ended) => Ok(Ok(Self { known, plan, ended })),
            refused @ (Inserted::NoLongerValid(_) | Inserted::TooMany) => Ok(Err(refused)),
        }
    }

    /// Inserts a session. Returns `None` if the subject's sessions changed and [`Self::find`] must run again.
    ///
    /// # Errors
    /// The store returns an error, or the commit arrived too late.
    pub async fn insert(
        &self,
        store: &impl Commit,
        operation: &Operation<'_>,
        rules: &Rules,
        session: &Session,
    ) -> Result<Option<Inserted>, StoreError> {
        let decided = Decided { operation, snapshot: &self.plan, is_answer: true };
        match store.commit(&[decided]).await?.pop() {
            Some(Committed::Done) => Ok(Some(Inserted::Inserted(self.ended.clone()))),
            Some(Committed::Late) => Err(too_late(session)),
            None => Err(StoreError::new("the store did not respond to an insert")),
            Some(Committed::Changed(mut now)) => match rules.insert(&mut now, session, SubjectBound::NONE)? {
                Inserted::Inserted(_) => Ok(None),
                refused @ (Inserted::NoLongerValid(_) | Inserted::TooMany) => Ok(Some(refused)),
            },
        }
    }
}

/// Inserts a session for a subject without a session limit.
///
/// # Errors
/// The store or the rules return an error.
pub async fn insert_unbounded(store: &impl Commit, rules: &Rules, session: &Session) -> Result<Inserted, StoreError> {
    let insert = |state: &mut Snapshot| rules.insert(state, session, SubjectBound::NONE);
    let inserted = decide(store, Operation::inserting(session), Snapshot::default(), insert).await?;
    inserted.ok_or_else(|| too_late(session))
}

/// Confirms generations of the `found` sessions, and returns the sessions that it changed.
///
/// # Errors
/// The store or the rules return an error.
pub async fn confirm_each(
    store: &impl Commit,
    rules: &Rules,
    seen: &[(SessionId, Generation)],
    found: impl IntoIterator<Item = (SessionId, Result<Session, StoreError>)>,
) -> Result<Vec<SessionId>, StoreError> {
    let mut known = BTreeMap::<_, Snapshot>::new();
    for (id, record) in found {
        known.entry(id).or_default().see(id, record);
    }
    let operations = seen.iter().map(|(id, _)| {
        let operation = Operation { ids: vec![*id], keeps_names: true, ..Operation::default() };
        (operation, known.remove(id).unwrap_or_default())
    });
    let confirm = |state: &mut Snapshot, place: usize| match seen.get(place) {
        Some(seen) => rules.confirm(state, std::slice::from_ref(seen)),
        None => Ok(Vec::new()),
    };
    let mut marked = Vec::new();
    for confirmed in decide_each(store, operations, confirm).await? {
        marked.extend(confirmed?.into_iter().flatten());
    }
    Ok(marked)
}

/// An operation, and the writes that the rules made for it.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    /// The preconditions of the operation.
    pub operation: &'a Operation<'a>,
    /// The state that the rules read, and the writes that they made.
    pub snapshot: &'a Snapshot,
    /// Whether the snapshot came from the store. If so, a decision without writes does not need a commit.
    pub is_answer: bool,
}

/// A store that executes the writes of the rules.
pub trait Commit: Sync {
    /// The time limit for all attempts together.
    fn patience(&self) -> Duration;

    /// Executes several operations in one round trip. Each operation is atomic and independent of the others.
    fn commit(&self, all: &[Decided<'_>]) -> impl Future<Output = Result<Vec<Committed>, StoreError>> + Send;
}

struct OpenDecision<'a> {
    place: usize,
    operation: Operation<'a>,
    snapshot: Snapshot,
    is_answer: bool,
}

impl OpenDecision<'_> {
    fn decided(&self) -> Decided<'_> {
        Decided { operation: &self.operation, snapshot: &self.snapshot, is_answer: self.is_answer }
    }

    /// A decision without writes does not need a commit if it is based on the store's own state.
    fn is_done(&self) -> bool {
        self.is_answer && !self.snapshot.is_changed() && self.operation.raises.is_none()
    }
}

/// Runs the rule for each operation, and commits the writes. The result is `None` if the time limit was exceeded.
///
/// # Errors
/// The store fails. The inner results contain the rule's errors.
pub async fn decide_each<T>(
    store: &impl Commit,
    operations: impl IntoIterator<Item = (Operation<'_>, Snapshot)>,
    rule: impl Fn(&mut Snapshot, usize) -> Result<T, Failure>,
) -> Result<Vec<Result<Option<T>, StoreError>>, StoreError> {
    let trial = |(place, (operation, snapshot))| OpenDecision { place, operation, snapshot, is_answer: false };
    let mut open: Vec<_> = operations.into_iter().enumerate().map(trial).collect();
    let mut results = BTreeMap::new();
    let over = Instant::now() + store.patience();
    for number in 0..MAX_DECISIONS {
        if number > 0 && Instant::now() >= over {
            break;
        }
        let mut decided = Vec::with_capacity(open.len());
        for mut trial in open.drain(..) {
            match rule(&mut trial.snapshot, trial.place) {
                Ok(done) if trial.is_done() => drop(results.insert(trial.place, Ok(Some(done)))),
                Ok(done) => decided.push((trial, done)),
                Err(failure) => drop(results.insert(trial.place, Err(failure.into()))),
            }
        }
        if decided.is_empty() {
            return Ok(results.into_values().collect());
        }
        let commits: Vec<_> = decided.iter().map(|(trial, _)| trial.decided()).collect();
        let answers = store.commit(&commits).await?;
        for ((trial, done), answer) in decided.into_iter().zip(answers) {
            match answer {
                Committed::Done => drop(results.insert(trial.place, Ok(Some(done)))),
                Committed::Late => drop(results.insert(trial.place, Ok(None))),
                Committed::Changed(mut snapshot) => {
                    snapshot.allow(margin(number));
                    open.push(OpenDecision { snapshot, is_answer: true, ..trial });
                }
            }
        }
    }
    Err(changed_again())
}

/// Like [`decide_each`], for a single operation.
///
/// # Errors
/// The store or the rules return an error.
pub async fn decide<T>(
    store: &impl Commit,
    operation: Operation<'_>,
    presumed: Snapshot,
    rule: impl Fn(&mut Snapshot) -> Result<T, Failure>,
) -> Result<Option<T>, StoreError> {
    let mut results = decide_each(store, [(operation, presumed)], |state, _| rule(state)).await?;
    results.pop().unwrap_or_else(|| Err(changed_again()))
}

/// The extra time for which a revocation is kept after attempt `number`.
pub fn margin(number: u32) -> Duration {
    if number == 0 { Duration::ZERO } else { MARGIN.saturating_mul(1 << number.min(16)) }
}

/// The error if every attempt of an operation conflicted with other gates.
pub fn changed_again() -> StoreError {
    not_done("every attempt to change a session failed, because other gates changed it first")
}

fn too_late(session: &Session) -> StoreError {
    not_done(format!("creating the session {} took more than an hour", session.id))
}

/// The last known states of sessions, which usually save a round trip.
pub struct Hints(Cache<SessionId, Hint, foldhash::quality::RandomState>);

#[derive(Clone)]
struct Hint {
    record: Option<Arc<Session>>,
    entry: Option<Revocation>,
}

impl Default for Hints {
    fn default() -> Self {
        let weight = |_: &SessionId, hint: &Hint| if hint.record.is_some() { 16 } else { 1 };
        Self(Cache::builder().max_capacity(MAX_HINTS).weigher(weight).build_with_hasher(Default::default()))
    }
}

impl Hints {
    /// Removes and returns the known state of a session.
    pub fn take(&self, id: SessionId) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if let Some(Hint { record, entry }) = self.0.remove(&id) {
            if let Some(record) = record {
                snapshot.see(id, Ok(Arc::unwrap_or_clone(record)));
            }
            if let Some(entry) = entry {
                snapshot.see_entry(entry);
            }
        }
        snapshot
    }

    /// Remembers the state of a session as a hint.
    pub fn note(&self, id: SessionId, record: Option<Session>, entry: Option<Revocation>) {
        if record.is_some() || entry.is_some() {
            self.0.insert(id, Hint { record: record.map(Arc::new), entry });
        }
    }
}

/// Runs a subject's inserts at this gate one after another, if the sessions are counted.
pub struct InsertTurns {
    locks: [Mutex<()>; TURNS],
    hasher: foldhash::fast::RandomState,
}

impl Default for InsertTurns {
    fn default() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: foldhash::fast::RandomState::default() }
    }
}

impl InsertTurns {
    /// Waits until an insert for this subject may run.
    pub async fn take(&self, subject: &str) -> Option<MutexGuard<'_, ()>> {
        let turn = usize::try_from(self.hasher.hash_one(subject) % TURNS as u64).unwrap_or_default();
        Some(self.locks.get(turn)?.lock().await)
    }
}
