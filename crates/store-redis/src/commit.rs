//! Commits. The rules run here, over what is presumed of the store; one script carries out what they write, if the store is
//! as presumed. Else it answers with what is there, and the rules run again over that. So most writes take one round trip, and
//! what a node does not know costs another one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::time::Instant;

use super::RedisInner;
use super::cluster::Primaries;
use super::fault::not_done;
use super::partitions::Partition;
use super::record::{
    HISTORY, Op, begin_of, begin_of_all, decode_live, decode_record, encode_kept, encode_record, millis, target,
};
use super::script::{COMMIT, bytes, unexpected};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::StoreError;
use rotogate_core::store::copy::is_whole;
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::kit::snapshot::{RecordWrite, SeenRecord, Snapshot};
use rotogate_core::store::rules::{Failure, end_of};

/// How often an operation is decided again, because others changed what it depends on. Its time bounds it as well.
pub(super) const MAX_DECISIONS: u32 = 24;
/// Sessions begin all the time. A revocation that has met a later end twice is kept this much longer than need be, and each
/// time twice as long, so that it comes through.
const MARGIN: Duration = Duration::from_secs(60);
/// Of so many sessions it is known how they were found last. Of more, it is forgotten.
const MAX_HINTS: usize = 16_384;

/// Where a commit goes, and under what name.
#[derive(Clone, Copy)]
pub(super) struct CommitCall<'a> {
    pub(super) primaries: &'a Primaries,
    pub(super) partition: &'a Partition,
    pub(super) op: Op,
    pub(super) history: History,
}

/// What an operation depends on, besides what the rules write.
#[derive(Default)]
pub(super) struct Operation<'a> {
    /// These records are as they were seen.
    pub(super) ids: Vec<SessionId>,
    /// These sessions are live, whatever else has become of them.
    pub(super) live: Vec<SessionId>,
    /// The entries of these targets are as they were seen.
    pub(super) targets: Vec<Target>,
    /// No not-before of the session's subject, of its client or of all is at or after its creation.
    pub(super) held: Option<&'a Session>,
    /// The server's time is no later.
    pub(super) by: Option<Timestamp>,
    /// The store is a copy that is not whole.
    pub(super) into_copy: bool,
    /// Whose sessions count where the rules ask for an end. `None`: those of all.
    pub(super) subject: Option<&'a str>,
    /// The subject's index has had so many inserts.
    pub(super) inserts: Option<&'a str>,
    /// What begins from now on begins after this moment, unless it is far ahead.
    pub(super) raises: Option<Timestamp>,
    /// A record that is replaced keeps the name and the history of its last write: a rotation is still known by them.
    pub(super) keeps_names: bool,
    /// What is written is of this history, instead of that of the data.
    pub(super) history: Option<History>,
}

/// What came of a commit.
pub(super) enum Committed {
    Done,
    /// The store is like this.
    Changed(Snapshot),
    /// Its time was over.
    Late,
}

/// An operation that is not decided yet.
struct Trial<'a> {
    place: usize,
    operation: Operation<'a>,
    snapshot: Snapshot,
    /// The snapshot is the script's own answer, so what follows from it needs no script if nothing is written.
    is_answer: bool,
}

/// The keys and arguments of a script, as commits add to them.
#[derive(Default)]
struct ScriptParts {
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl ScriptParts {
    fn number(&mut self, number: usize) {
        self.args.push(number.to_string().into_bytes());
    }

    fn arg(&mut self, arg: impl Into<Vec<u8>>) {
        self.args.push(arg.into());
    }

    fn maybe(&mut self, arg: Option<impl Into<Vec<u8>>>) {
        self.args.push(arg.map(Into::into).unwrap_or_default());
    }

    /// What a value begins with; `None`: there is no such value.
    fn begins(&mut self, begin: Option<&[u8]>) {
        self.args.push(begin.map_or_else(|| b"-".to_vec(), |begin| [b"=", begin].concat()));
    }
}

/// What a commit compares, in the order of its answer.
struct Compared<'s> {
    records: Vec<(SessionId, Option<&'s RecordWrite>)>,
    entries: Vec<(Target, Option<&'s Revocation>)>,
    held: Vec<Target>,
}

impl Operation<'_> {
    fn compared<'s>(&self, inner: &RedisInner, snapshot: &'s Snapshot) -> Compared<'s> {
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
        let held = self.held.map(|session| inner.held_against(session).into()).unwrap_or_default();
        Compared { records, entries, held }
    }

    /// Adds what the script is given for this operation.
    fn add_to(
        &self,
        parts: &mut ScriptParts,
        call: &CommitCall<'_>,
        leeway: Duration,
        (snapshot, is_answer): (&Snapshot, bool),
        compared: &Compared<'_>,
    ) -> Result<(), StoreError> {
        let (mut letters, mut values) = (Vec::new(), Vec::new());
        let mut name = |letter: u8, what: Vec<Vec<u8>>| {
            letters.push(letter);
            values.extend(what);
        };
        if let Some(by) = self.by {
            name(b'b', vec![millis(by).into()]);
        }
        if self.into_copy {
            name(b'f', vec![b"copying".to_vec()]);
        }
        if let Some(session) = self.held {
            let targets = compared.held.iter().map(target);
            let moment = Ok(millis(session.created()).to_vec());
            name(b'h', std::iter::once(moment).chain(targets).collect::<Result<_, _>>()?);
        }
        if let Some(subject) = self.subject {
            parts.keys.push(call.partition.keys.subject(subject));
            name(b's', Vec::new());
        }
        if let Some(end) = snapshot.end_relied_on() {
            name(b'e', vec![millis(end).into()]);
        }
        if let Some(inserts) = self.inserts {
            name(b'n', vec![inserts.into()]);
        }
        if let Some(moment) = self.raises {
            let stamp = moment.as_millis().saturating_add(1).to_string();
            name(b'r', vec![stamp.into(), (leeway.as_millis() + 1).to_string().into()]);
        }
        parts.args.push(letters);
        parts.args.append(&mut values);
        parts.number(compared.records.len());
        for (id, write) in &compared.records {
            self.add_record(parts, call, (snapshot, is_answer), *id, *write)?;
        }
        parts.number(compared.entries.len());
        for (of, new) in &compared.entries {
            parts.arg(target(of)?);
            parts.begins(snapshot.entry(of).map(encode_kept).as_deref());
            parts.maybe(new.map(encode_kept));
        }
        Ok(())
    }

    fn add_record(
        &self,
        parts: &mut ScriptParts,
        call: &CommitCall<'_>,
        (snapshot, is_answer): (&Snapshot, bool),
        id: SessionId,
        write: Option<&RecordWrite>,
    ) -> Result<(), StoreError> {
        parts.keys.push(call.partition.keys.session(id));
        let mut how = Vec::new();
        match write {
            // A place in the index stays where the end does.
            Some(RecordWrite { old: Some(old), new }) if is_answer && end_of(old) == end_of(new) => {}
            Some(write) => {
                parts.keys.push(call.partition.keys.subject(&write.new.subject));
                how.push(b'i');
            }
            None => {}
        }
        match snapshot.record(id) {
            None => parts.begins(None),
            Some(SeenRecord::Unreadable(_)) => parts.begins(Some(b"")),
            Some(SeenRecord::Whole(_)) if write.is_none() && self.live.contains(&id) => {
                parts.begins(Some(&begin_of_all(false)));
            }
            Some(SeenRecord::Whole(known)) => parts.begins(Some(&begin_of(known))),
        }
        let history = self.history.unwrap_or(call.history);
        parts.maybe(
            write.map(|write| encode_record(&write.new, &call.op, &history)).transpose()?.map(|new| new.to_vec()),
        );
        if self.keeps_names && write.is_some_and(|write| write.old.is_some()) {
            how.push(b'k');
        }
        parts.arg(how);
        Ok(())
    }
}

impl Compared<'_> {
    /// The store as the script found it.
    fn seen(self, history: History, answer: Vec<Value>) -> Result<Snapshot, StoreError> {
        let [end, Value::Array(records), Value::Array(entries), Value::Array(held)] =
            <[Value; 4]>::try_from(answer).map_err(|_| unexpected("a short answer"))?
        else {
            return Err(unexpected("no lists"));
        };
        let end = bytes(end).and_then(|end| end.try_into().ok()).ok_or_else(|| unexpected("no time"))?;
        let mut snapshot = Snapshot::default();
        snapshot.see_end(Timestamp::from_millis(u64::from_be_bytes(end)));
        for ((id, _), record) in self.records.into_iter().zip(records) {
            if let Some(record) = bytes(record) {
                if record.get(HISTORY) == Some(&history) {
                    snapshot.see_current(id);
                }
                snapshot.see(id, decode_record(id, &record));
            }
        }
        let targets = self.entries.into_iter().map(|(target, _)| target).chain(self.held);
        for (of, entry) in targets.zip(entries.into_iter().chain(held)) {
            if let Some(entry) = bytes(entry) {
                snapshot.see_entry(decode_live(&target(&of)?, &entry)?.0);
            }
        }
        Ok(snapshot)
    }
}

impl RedisInner {
    /// Carries out what the rules wrote, each operation by itself.
    pub(super) async fn commit(
        &self,
        call: &CommitCall<'_>,
        operations: &[(&Operation<'_>, &Snapshot, bool)],
    ) -> Result<Vec<Committed>, StoreError> {
        let mut parts = ScriptParts::default();
        let mut all = Vec::with_capacity(operations.len());
        for (operation, snapshot, is_answer) in operations {
            let compared = operation.compared(self, snapshot);
            operation.add_to(&mut parts, call, self.options.leeway, (snapshot, *is_answer), &compared)?;
            all.push(compared);
        }
        let name = (call.op, call.history);
        let mut answer = self.run_as(call.primaries, call.partition, name, &COMMIT, parts.keys, parts.args).await?;
        if answer.status != "committed" {
            return Err(answer.unknown());
        }
        let answers = answer.list()?;
        if answers.len() != all.len() {
            return Err(unexpected("another number of answers"));
        }
        let read = |(compared, answer): (Compared<'_>, Value)| match answer {
            Value::Array(found) => compared.seen(call.history, found).map(Committed::Changed),
            word => match bytes(word).as_deref() {
                Some(b"done") => Ok(Committed::Done),
                Some(b"late") => Ok(Committed::Late),
                Some(b"whole") => Err(is_whole()),
                _ => Err(unexpected("an unknown answer")),
            },
        };
        all.into_iter().zip(answers).map(read).collect()
    }

    /// Decides operations by a rule, each by itself, and carries them out. `None`: its time was over.
    pub(super) async fn decide_each<T>(
        &self,
        call: &CommitCall<'_>,
        operations: impl IntoIterator<Item = (Operation<'_>, Snapshot)>,
        rule: impl Fn(&mut Snapshot, usize) -> Result<T, Failure>,
    ) -> Result<Vec<Result<Option<T>, StoreError>>, StoreError> {
        let trial = |(place, (operation, snapshot))| Trial { place, operation, snapshot, is_answer: false };
        let mut open: Vec<_> = operations.into_iter().enumerate().map(trial).collect();
        let mut results = BTreeMap::new();
        let over = Instant::now() + self.options.timeouts.operation;
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
            let commits: Vec<_> =
                decided.iter().map(|(trial, _)| (&trial.operation, &trial.snapshot, trial.is_answer)).collect();
            let answers = self.commit(call, &commits).await?;
            for ((trial, done), answer) in decided.into_iter().zip(answers) {
                match answer {
                    Committed::Done => drop(results.insert(trial.place, Ok(Some(done)))),
                    Committed::Late => drop(results.insert(trial.place, Ok(None))),
                    Committed::Changed(mut snapshot) => {
                        snapshot.allow(margin(number));
                        open.push(Trial { snapshot, is_answer: true, ..trial });
                    }
                }
            }
        }
        Err(changed_again())
    }

    /// The same for one operation.
    pub(super) async fn decide<T>(
        &self,
        call: &CommitCall<'_>,
        operation: Operation<'_>,
        presumed: Snapshot,
        rule: impl Fn(&mut Snapshot) -> Result<T, Failure>,
    ) -> Result<Option<T>, StoreError> {
        let mut results = self.decide_each(call, [(operation, presumed)], |state, _| rule(state)).await?;
        results.pop().ok_or_else(|| unexpected("no answer"))?
    }
}

impl Trial<'_> {
    /// Does nothing follow that the script must do?
    fn is_done(&self) -> bool {
        self.is_answer && !self.snapshot.is_changed() && self.operation.raises.is_none()
    }
}

/// How much later than it was found an end may be, at the attempt after this one.
pub(super) fn margin(number: u32) -> Duration {
    if number == 0 { Duration::ZERO } else { MARGIN.saturating_mul(1 << number.min(16)) }
}

pub(super) fn changed_again() -> StoreError {
    not_done("other gates changed a session at every attempt to change it")
}

/// How sessions were found last: what an operation presumes. If that is no longer so, it costs a round trip.
#[derive(Default)]
pub(super) struct Hints(Mutex<HashMap<SessionId, Hint>>);

#[derive(Default)]
struct Hint {
    record: Option<Session>,
    entry: Option<Revocation>,
}

impl Hints {
    /// What was known of a session. It is known no more.
    pub(super) fn take(&self, id: SessionId) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if let Some(Hint { record, entry }) = self.0.lock().remove(&id) {
            if let Some(record) = record {
                snapshot.see(id, Ok(record));
            }
            if let Some(entry) = entry {
                snapshot.see_entry(entry);
            }
        }
        snapshot
    }

    /// A session was found like this.
    pub(super) fn note(&self, id: SessionId, record: Option<Session>, entry: Option<Revocation>) {
        if record.is_none() && entry.is_none() {
            return;
        }
        let mut known = self.0.lock();
        if known.len() >= MAX_HINTS {
            known.clear();
        }
        known.insert(id, Hint { record, entry });
    }
}
