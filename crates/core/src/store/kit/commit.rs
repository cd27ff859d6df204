//! Commits, for a store that compares revisions and knows no rules. The rules run here, over what is presumed of the store. The
//! store carries out what they write, if it is as presumed; else it answers with what is there, and the rules run again over
//! that. So most writes take one round trip, and what a gate does not know costs another one.

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
use super::snapshot::{RecordWrite, SeenRecord, Snapshot};
use crate::clock::Timestamp;
use crate::revocation::{Revocation, Target};
use crate::session::{Session, SessionId};
use crate::store::rules::{Failure, KEPT_AFTER_END, Rules, end_of};
use crate::store::{Inserted, StoreError, SubjectBound, WriteOutcome};

/// How often an operation is decided again, because others changed what it depends on. Its time bounds it as well.
pub const MAX_DECISIONS: u32 = 24;
/// Sessions begin all the time. A revocation that has met a later end twice is kept this much longer than need be, and each
/// time twice as long, so that it comes through.
const MARGIN: Duration = Duration::from_secs(60);
/// For `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The capacity for hints: an entry counts one, a record sixteen.
const MAX_HINTS: u64 = 65_536;
const TURNS: usize = 64;

/// What an operation depends on, besides what the rules write.
#[derive(Default)]
pub struct Operation<'a> {
    /// These records are as they were seen.
    pub ids: Vec<SessionId>,
    /// These sessions are live, whatever else has become of them.
    pub live: Vec<SessionId>,
    /// The entries of these targets are as they were seen.
    pub targets: Vec<Target>,
    /// No not-before of the session's subject, of its client or of all is at or after its creation.
    pub held: Option<&'a Session>,
    /// The server's time is no later.
    pub by: Option<Timestamp>,
    /// The store is a copy that is not whole.
    pub into_copy: bool,
    /// Whose sessions count where the rules ask for an end. `None`: those of all.
    pub subject: Option<&'a str>,
    /// The subject's index has had so many inserts.
    pub inserts: Option<&'a str>,
    /// The subject has no live session besides these that ends after this moment.
    pub only: Option<(&'a [SessionId], Timestamp)>,
    /// What begins from now on begins after this moment, unless it is far ahead.
    pub raises: Option<Timestamp>,
    /// A record that is replaced keeps the name and the history of its last write: a rotation is still known by them.
    pub keeps_names: bool,
    /// What is written is of this history, instead of that of the data.
    pub history: Option<History>,
}

/// What a commit compares, in the order of its answer.
pub struct Compared<'s> {
    /// The records, each with what becomes of it.
    pub records: Vec<(SessionId, Option<&'s RecordWrite>)>,
    /// The entries, each with what becomes of it.
    pub entries: Vec<(Target, Option<&'s Revocation>)>,
    /// The not-befores that must not hold.
    pub held: Vec<Target>,
}

impl<'a> Operation<'a> {
    /// The insert of a session.
    pub fn inserting(session: &'a Session) -> Self {
        Self {
            ids: vec![session.id],
            held: Some(session),
            // What may have revoked it is swept an hour after it ended.
            by: Some(session.created().plus(KEPT_AFTER_END)),
            keeps_names: true,
            ..Self::default()
        }
    }

    /// What a commit of this operation compares, once the rules ran over a snapshot.
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

/// The history of a record that a gate wrote back after a loss. No data has it: the record is not of the data that was
/// adopted, and another node may have a later one.
const EARLIER: History = [0; 8];

impl<'a> Operation<'a> {
    /// Writes a record back after a loss of writes.
    pub fn restoring(record: &'a Session) -> Self {
        Self {
            ids: vec![record.id],
            targets: vec![Target::Session(record.id)],
            held: Some(record),
            by: Some(end_of(record).plus(KEPT_AFTER_END)),
            history: Some(EARLIER),
            ..Self::default()
        }
    }
}

impl Operation<'_> {
    /// What the record of a session must begin with, empty if any will do; `None`: there must be none.
    pub fn expected_begin(&self, snapshot: &Snapshot, id: SessionId, is_written: bool) -> Option<Vec<u8>> {
        Some(match snapshot.record(id)? {
            SeenRecord::Unreadable(_) => Vec::new(),
            SeenRecord::Whole(_) if !is_written && self.live.contains(&id) => begin_of_all(false).to_vec(),
            SeenRecord::Whole(known) => begin_of(known).to_vec(),
        })
    }
}

/// The targets of the not-befores that a session is held against.
pub fn held_against(issuer: &Arc<str>, session: &Session) -> [Target; 3] {
    let issuer = || Arc::clone(issuer);
    [
        Target::Subject { issuer: issuer(), subject: session.subject.clone() },
        Target::Client { issuer: issuer(), client: session.client.clone() },
        Target::Global,
    ]
}

/// What begins once this entry is written begins after this moment.
pub fn raises(entry: &Revocation) -> Option<Timestamp> {
    entry.effect.sessions_until()
}

/// What came of a commit.
pub enum Committed {
    /// Everything was written.
    Done,
    /// Nothing was written: the store is like this.
    Changed(Snapshot),
    /// Its time was over.
    Late,
}

/// What came of inserting a session that the bound of its subject had room for; `ended` gave way to it. `None`: the subject has
/// other sessions now, so the room is to be found anew.
///
/// # Errors
/// The commit came too late.
pub fn inserted(
    committed: Option<Committed>,
    rules: &Rules,
    session: &Session,
    ended: &[Revocation],
) -> Result<Option<Inserted>, StoreError> {
    match committed {
        Some(Committed::Done) => Ok(Some(Inserted::Inserted(ended.to_vec()))),
        Some(Committed::Late) => Err(too_late(session)),
        None => Err(StoreError::new("the store gave no answer to an insert")),
        Some(Committed::Changed(mut now)) => match rules.insert(&mut now, session, SubjectBound::NONE)? {
            Inserted::Inserted(_) => Ok(None),
            refused @ (Inserted::NoLongerValid(_) | Inserted::TooMany) => Ok(Some(refused)),
        },
    }
}

/// An operation that the rules have decided.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    /// What it depends on.
    pub operation: &'a Operation<'a>,
    /// What the rules read, and what they wrote.
    pub snapshot: &'a Snapshot,
    /// The snapshot is the store's own answer, so what follows from it needs no commit if nothing is written.
    pub is_answer: bool,
}

/// A store that carries out what the rules wrote.
pub trait Commit: Sync {
    /// How long the decisions about an operation may take together.
    fn patience(&self) -> Duration;

    /// Carries out operations, each by itself and as a whole, in one round trip.
    fn commit(&self, all: &[Decided<'_>]) -> impl Future<Output = Result<Vec<Committed>, StoreError>> + Send;
}

/// An operation that is not decided yet.
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

    /// Does nothing follow that the store must do?
    fn is_done(&self) -> bool {
        self.is_answer && !self.snapshot.is_changed() && self.operation.raises.is_none()
    }
}

/// Decides operations by a rule, each by itself, and carries them out. `None`: its time was over.
///
/// # Errors
/// Those of the store; the inner ones are the rule's.
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

/// The same for one operation.
///
/// # Errors
/// Those of the store and of the rule.
pub async fn decide<T>(
    store: &impl Commit,
    operation: Operation<'_>,
    presumed: Snapshot,
    rule: impl Fn(&mut Snapshot) -> Result<T, Failure>,
) -> Result<Option<T>, StoreError> {
    let mut results = decide_each(store, [(operation, presumed)], |state, _| rule(state)).await?;
    results.pop().unwrap_or_else(|| Err(changed_again()))
}

/// How much later than it was found an end may be, at the attempt after this one.
pub fn margin(number: u32) -> Duration {
    if number == 0 { Duration::ZERO } else { MARGIN.saturating_mul(1 << number.min(16)) }
}

/// Other gates were faster each time.
pub fn changed_again() -> StoreError {
    not_done("other gates changed a session at every attempt to change it")
}

/// The insert of a session came after all that may have revoked it was swept.
pub fn too_late(session: &Session) -> StoreError {
    not_done(format!("session {} took more than an hour to begin", session.id))
}

fn not_done(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::NotDone).with_retry_after(RETRY_AFTER)
}

/// How sessions were found last: what an operation presumes. If that is no longer so, it costs a round trip.
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
    /// What was known of a session. It is known no more.
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

    /// A session was found like this.
    pub fn note(&self, id: SessionId, record: Option<Session>, entry: Option<Revocation>) {
        if record.is_some() || entry.is_some() {
            self.0.insert(id, Hint { record: record.map(Arc::new), entry });
        }
    }
}

/// Inserts of one subject that count its sessions take turns: among gates, the one that loses decides again.
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
    /// Waits for the turn of an insert.
    pub async fn take(&self, subject: &str) -> Option<MutexGuard<'_, ()>> {
        let turn = usize::try_from(self.hasher.hash_one(subject) % TURNS as u64).unwrap_or_default();
        Some(self.locks.get(turn)?.lock().await)
    }
}
