//! Commits, for a store that compares revisions and does not know the rules. The rules run in the gate, on a presumed
//! state of the store. The store executes the resulting writes if its state equals the presumed one. Otherwise it
//! replies with its state, and the rules run again on that state. Most writes therefore take one round trip, and a
//! wrong presumption costs one more.

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

/// The maximum number of attempts to decide an operation, if other gates keep changing the state on which it depends.
/// The time limit of the operation also limits the attempts.
pub const MAX_DECISIONS: u32 = 24;
/// While a revocation is being written, sessions can begin that end later than all others. From the second conflict on, the revocation is therefore kept this much longer than necessary, doubled at each further attempt, so
/// that it succeeds.
const MARGIN: Duration = Duration::from_secs(60);
/// The capacity for hints. A hint with only a revocation entry counts as one, a hint with a record as sixteen.
const MAX_HINTS: u64 = 65_536;
const TURNS: usize = 64;

/// The preconditions and side effects of an operation, in addition to the writes that the rules make.
#[derive(Default)]
pub struct Operation<'a> {
    /// These records must be unchanged since they were read.
    pub ids: Vec<SessionId>,
    /// These sessions must be live. Apart from that, their records may have changed.
    pub live: Vec<SessionId>,
    /// The entries of these targets must be unchanged since they were read.
    pub targets: Vec<Target>,
    /// The session that no not-before may cover, whether of its subject, of its client or of everyone.
    pub held: Option<&'a Session>,
    /// The server's time must not be later than this.
    pub by: Option<Timestamp>,
    /// The store must be an incomplete copy.
    pub into_copy: bool,
    /// The subject whose sessions count if the rules need the latest session end, or `None` if all sessions count.
    pub subject: Option<&'a str>,
    /// The number of inserts into this subject's index must be unchanged.
    pub inserts: Option<&'a str>,
    /// The subject must have no other live session that ends after this moment.
    pub only: Option<(&'a [SessionId], Timestamp)>,
    /// Sessions that are created later must have a creation stamp after this moment, unless this moment is far in the
    /// future.
    pub raises: Option<Timestamp>,
    /// Whether a replaced record keeps the id and the history of its last write, so that a repeated rotation is still
    /// recognised.
    pub keeps_names: bool,
    /// The history id of the written records, if it differs from the history id of the data.
    pub history: Option<History>,
}

/// The parts of the store's state that a commit compares, in the order in which the store reports them.
pub struct Compared<'s> {
    /// The compared records, each with its new content if it is written.
    pub records: Vec<(SessionId, Option<&'s RecordWrite>)>,
    /// The compared entries, each with its new content if it is written.
    pub entries: Vec<(Target, Option<&'s Revocation>)>,
    /// The targets whose not-befores must not cover the session.
    pub held: Vec<Target>,
}

impl<'a> Operation<'a> {
    /// The operation that inserts a session.
    pub fn inserting(session: &'a Session) -> Self {
        Self {
            ids: vec![session.id],
            held: Some(session),
            // The store removes a revocation one hour after the revocation expires. If the session were inserted after
            // that, it would escape a revocation that had covered it.
            by: Some(session.created().plus(KEPT_AFTER_END)),
            keeps_names: true,
            ..Self::default()
        }
    }

    /// The parts of the store's state that a commit of this operation compares. The rules must have run on the
    /// snapshot.
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

/// The history id of a record that a gate wrote back after a loss. The data never has this history id, so the record
/// does not count as written since the adoption, and another node may still write back a later record.
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
    /// The bytes with which the stored record of a session must begin. They are empty if any record is accepted, and
    /// `None` if there must be no record.
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

/// The moment after which new sessions must be created once this entry is written.
pub fn raises(entry: &Revocation) -> Option<Timestamp> {
    entry.effect.sessions_until()
}

/// The result of a commit.
pub enum Committed {
    /// Everything was written.
    Done,
    /// Nothing was written, because the state of the store differs from the presumed state. Contains the store's state.
    Changed(Snapshot),
    /// The commit arrived after its time limit, and nothing was written.
    Late,
}

/// The sessions that must end to make room for a new one, and the state on which this decision is based.
#[derive(Debug)]
pub struct InsertRoom<K> {
    /// The value by which the store checks that the subject's sessions are still those of the plan.
    pub known: K,
    /// The subject's sessions, and the changes that the rules made to them.
    pub plan: Snapshot,
    /// The revocation entries of the sessions that are ended.
    pub ended: Vec<Revocation>,
}

impl<K> InsertRoom<K> {
    /// Finds out by the rules which of the subject's sessions must end. The inner error is the reason why the new
    /// session is refused.
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

    /// Inserts a session with this operation. Returns `None` if the subject's sessions have changed, so that the room
    /// must be determined again.
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

/// Inserts a session for a subject whose number of sessions is not limited.
///
/// # Errors
/// The store or the rules return an error.
pub async fn insert_unbounded(store: &impl Commit, rules: &Rules, session: &Session) -> Result<Inserted, StoreError> {
    let insert = |state: &mut Snapshot| rules.insert(state, session, SubjectBound::NONE);
    let inserted = decide(store, Operation::inserting(session), Snapshot::default(), insert).await?;
    inserted.ok_or_else(|| too_late(session))
}

/// Confirms generations of those sessions that were `found`, and returns the sessions that it marked.
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

/// An operation on which the rules have decided.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    /// The preconditions of the operation.
    pub operation: &'a Operation<'a>,
    /// The state that the rules read, and the writes that the rules made.
    pub snapshot: &'a Snapshot,
    /// Whether the snapshot was reported by the store. If so, a decision without writes does not need a commit.
    pub is_answer: bool,
}

/// A store that executes the writes that the rules decided on.
pub trait Commit: Sync {
    /// The time limit for all attempts to decide an operation together.
    fn patience(&self) -> Duration;

    /// Executes several operations in one round trip. Each operation is atomic and independent of the others.
    fn commit(&self, all: &[Decided<'_>]) -> impl Future<Output = Result<Vec<Committed>, StoreError>> + Send;
}

/// An operation that is not yet decided.
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

    /// Returns whether the decision is final without a commit.
    fn is_done(&self) -> bool {
        self.is_answer && !self.snapshot.is_changed() && self.operation.raises.is_none()
    }
}

/// Decides each operation by a rule, and executes it. The result is `None` for an operation that exceeded its time
/// limit.
///
/// # Errors
/// The store returns an error. The inner results contain the errors of the rule.
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

/// The margin by which an end may be later than the end that was found, for the attempt after this one.
pub fn margin(number: u32) -> Duration {
    if number == 0 { Duration::ZERO } else { MARGIN.saturating_mul(1 << number.min(16)) }
}

/// The error for an operation that failed because other gates were faster at each attempt.
pub fn changed_again() -> StoreError {
    not_done("every attempt to change a session failed, because other gates changed it first")
}

/// The error for an insert that came so late that revocations of the session may already have been removed.
fn too_late(session: &Session) -> StoreError {
    not_done(format!("session {} took more than an hour to begin", session.id))
}

/// The last known states of sessions. An operation first presumes these states, so that it usually needs only one round
/// trip. An outdated hint costs one more round trip.
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

    /// Remembers the state in which a session was found, as a hint.
    pub fn note(&self, id: SessionId, record: Option<Session>, entry: Option<Revocation>) {
        if record.is_some() || entry.is_some() {
            self.0.insert(id, Hint { record: record.map(Arc::new), entry });
        }
    }
}

/// Makes the inserts for a subject take turns within this gate, if the subject's sessions are counted. If inserts at
/// different gates conflict, the gate that loses decides again.
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
    /// Waits for the turn of an insert for this subject.
    pub async fn take(&self, subject: &str) -> Option<MutexGuard<'_, ()>> {
        let turn = usize::try_from(self.hasher.hash_one(subject) % TURNS as u64).unwrap_or_default();
        Some(self.locks.get(turn)?.lock().await)
    }
}
