//! One script commits the result if the store equals the snapshot, or else returns the store's state.

use std::time::Duration;

use redis::Value;

use super::RedisInner;
use super::cluster::Primaries;
use super::partitions::Partition;
use super::record::{HISTORY, Op, decode_live, decode_record, encode_kept, encode_record, millis, target};
use super::script::{COMMIT, bytes, unexpected};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::SessionId;
use rotogate_core::store::StoreError;
use rotogate_core::store::copy::is_whole;
use rotogate_core::store::kit::commit::{Commit, Committed, Compared, Decided};
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::kit::snapshot::{RecordWrite, Snapshot};

#[derive(Clone, Copy)]
pub(super) struct CommitCall<'a> {
    pub(super) inner: &'a RedisInner,
    pub(super) primaries: &'a Primaries,
    pub(super) partition: &'a Partition,
    pub(super) op: Op,
    pub(super) history: History,
}

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

    /// Requires that a value begins with `begin`, or does not exist (`None`).
    fn begins(&mut self, begin: Option<&[u8]>) {
        self.args.push(begin.map_or_else(|| b"-".to_vec(), |begin| [b"=", begin].concat()));
    }
}

impl CommitCall<'_> {
    fn add(&self, parts: &mut ScriptParts, decided: Decided<'_>, compared: &Compared<'_>) -> Result<(), StoreError> {
        let Decided { operation, snapshot, .. } = decided;
        let (mut letters, mut values) = (Vec::new(), Vec::new());
        let mut name = |letter: u8, what: Vec<Vec<u8>>| {
            letters.push(letter);
            values.extend(what);
        };
        if let Some(by) = operation.by {
            name(b'b', vec![millis(by).into()]);
        }
        if operation.into_copy {
            name(b'f', vec![b"copying".to_vec()]);
        }
        if let Some(session) = operation.held {
            let targets = compared.held.iter().map(target);
            let moment = Ok(millis(session.created()).to_vec());
            name(b'h', std::iter::once(moment).chain(targets).collect::<Result<_, _>>()?);
        }
        if let Some(subject) = operation.subject {
            parts.keys.push(self.partition.keys.subject(subject));
            name(b's', Vec::new());
        }
        if let Some(end) = snapshot.end_relied_on() {
            name(b'e', vec![millis(end).into()]);
        }
        if let Some(inserts) = operation.inserts {
            name(b'n', vec![inserts.into()]);
        }
        if let Some(moment) = operation.raises {
            let stamp = moment.as_millis().saturating_add(1).to_string();
            name(b'r', vec![stamp.into(), (self.inner.options.network.leeway.as_millis() + 1).to_string().into()]);
        }
        parts.args.push(letters);
        parts.args.append(&mut values);
        parts.number(compared.records.len());
        for (id, write) in &compared.records {
            self.add_record(parts, decided, *id, *write)?;
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
        Decided { operation, snapshot, is_answer }: Decided<'_>,
        id: SessionId,
        write: Option<&RecordWrite>,
    ) -> Result<(), StoreError> {
        parts.keys.push(self.partition.keys.session(id));
        let mut how = Vec::new();
        match write {
            // The position in the index depends only on the session's end.
            Some(RecordWrite { old: Some(old), new }) if is_answer && old.ends_at() == new.ends_at() => {}
            Some(write) => {
                parts.keys.push(self.partition.keys.subject(&write.new.subject));
                how.push(b'i');
            }
            None => {}
        }
        parts.begins(operation.expected_begin(snapshot, id, write.is_some()).as_deref());
        let history = operation.history.unwrap_or(self.history);
        parts.maybe(
            write.map(|write| encode_record(&write.new, &self.op, &history)).transpose()?.map(|new| new.to_vec()),
        );
        if operation.keeps_names && write.is_some_and(|write| write.old.is_some()) {
            how.push(b'k');
        }
        parts.arg(how);
        Ok(())
    }
}

fn seen(compared: Compared<'_>, history: History, answer: Vec<Value>) -> Result<Snapshot, StoreError> {
    let [end, Value::Array(records), Value::Array(entries), Value::Array(held)] =
        <[Value; 4]>::try_from(answer).map_err(|_| unexpected("too few results"))?
    else {
        return Err(unexpected("no lists"));
    };
    let end = bytes(end).and_then(|end| end.try_into().ok()).ok_or_else(|| unexpected("no time"))?;
    let mut snapshot = Snapshot::default();
    snapshot.see_end(Timestamp::from_millis(u64::from_be_bytes(end)));
    for ((id, _), record) in compared.records.into_iter().zip(records) {
        if let Some(record) = bytes(record) {
            if record.get(HISTORY) == Some(&history) {
                snapshot.see_current(id);
            }
            snapshot.see(id, decode_record(id, &record));
        }
    }
    let targets = compared.entries.into_iter().map(|(target, _)| target).chain(compared.held);
    for (of, entry) in targets.zip(entries.into_iter().chain(held)) {
        if let Some(entry) = bytes(entry) {
            snapshot.see_entry(decode_live(&target(&of)?, &entry)?.0);
        }
    }
    Ok(snapshot)
}

impl Commit for CommitCall<'_> {
    fn patience(&self) -> Duration {
        self.inner.options.network.operation_timeout
    }

    async fn commit(&self, all: &[Decided<'_>]) -> Result<Vec<Committed>, StoreError> {
        let mut parts = ScriptParts::default();
        let mut asked = Vec::with_capacity(all.len());
        for decided in all {
            let compared = decided.operation.compared(&self.inner.issuer, decided.snapshot);
            self.add(&mut parts, *decided, &compared)?;
            asked.push(compared);
        }
        let name = (self.op, self.history);
        let run = self.inner.run_as(self.primaries, self.partition, name, &COMMIT, parts.keys, parts.args);
        let answers = run.await?.with_status("committed")?.list()?;
        if answers.len() != asked.len() {
            return Err(unexpected("the wrong number of results"));
        }
        let read = |(compared, answer): (Compared<'_>, Value)| match answer {
            Value::Array(found) => seen(compared, self.history, found).map(Committed::Changed),
            word => match bytes(word).as_deref() {
                Some(b"done") => Ok(Committed::Done),
                Some(b"late") => Ok(Committed::Late),
                Some(b"whole") => Err(is_whole()),
                _ => Err(unexpected("an unknown result")),
            },
        };
        asked.into_iter().zip(answers).map(read).collect()
    }
}
