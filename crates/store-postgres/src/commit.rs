//! One SQL function commits the result if the store equals the snapshot, or else returns the store's state.

use std::time::Duration;

use tokio_postgres::types::Type;
use zeroize::Zeroizing;

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use super::connect::ConnectionPool;
use super::record::{decode, decode_entry, encode_entry, encode_row, key, millis, target_key, time, uuid};
use rotogate_core::revocation::Target;
use rotogate_core::session::SessionId;
use rotogate_core::store::StoreError;
use rotogate_core::store::copy::is_whole;
use rotogate_core::store::kit::commit::{Commit, Committed, Compared, Decided, Operation};
use rotogate_core::store::kit::encoding::encode_target;
use rotogate_core::store::kit::fields::{self, History, Op, new_op};
use rotogate_core::store::kit::snapshot::Snapshot;

#[derive(Clone, Copy)]
pub(super) struct CommitCall<'a> {
    inner: &'a PostgresInner,
    pool: &'a ConnectionPool,
    op: Op,
    history: History,
}

type Values = Vec<Option<Zeroizing<Vec<u8>>>>;

#[derive(Default)]
struct RecordArgs {
    ids: Vec<uuid::Uuid>,
    states: Values,
    news: Values,
    subjects: Values,
    clients: Values,
}

#[derive(Default)]
struct EntryArgs {
    keys: Values,
    targets: Values,
    entries: Values,
    news: Values,
}

fn some(bytes: impl Into<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    Some(Zeroizing::new(bytes.into()))
}

impl RecordArgs {
    /// All functions lock records in the order of their ids.
    fn add(
        &mut self,
        call: &CommitCall<'_>,
        decided: Decided<'_>,
        compared: &mut Compared<'_>,
    ) -> Result<(), StoreError> {
        compared.records.sort_by_key(|(id, _)| *id);
        for (id, write) in &compared.records {
            self.ids.push(uuid(*id));
            let state = decided.operation.expected_begin(decided.snapshot, *id, write.is_some());
            self.states.push(state.map(Zeroizing::new));
            self.news.push(write.map(|write| encode_row(&write.new)).transpose()?);
            // The subject and the client never change, so they are sent only for a new record.
            let begins = write.filter(|write| write.old.is_none()).map(|write| &write.new);
            self.subjects.push(begins.and_then(|session| some(key(session.subject.as_bytes()))));
            self.clients.push(begins.map(|session| call.inner.client_key(&session.client)).transpose()?.and_then(some));
        }
        Ok(())
    }
}

impl EntryArgs {
    fn add(&mut self, snapshot: &Snapshot, compared: &Compared<'_>) -> Result<(), StoreError> {
        for (of, new) in &compared.entries {
            let target = encode_target(of)?;
            self.keys.push(some(key(&target)));
            self.targets.push(some(target));
            self.entries.push(snapshot.entry(of).map(encode_entry));
            self.news.push(new.map(encode_entry));
        }
        Ok(())
    }
}

/// Returns the other preconditions, in the order of the SQL function's arguments.
fn conditions(operation: &Operation<'_>, snapshot: &Snapshot, compared: &Compared<'_>) -> Result<[Arg; 9], StoreError> {
    let held = compared.held.iter().map(target_key).collect::<Result<Vec<_>, _>>()?;
    let created = operation.held.map(|session| fields::millis(session.created()));
    let subject = operation.subject.map(|subject| key(subject.as_bytes()));
    let (only, after) = match operation.only {
        Some((ids, after)) => (Arg::Ids(ids.iter().map(|id| uuid(*id)).collect()), Some(millis(after))),
        None => (Arg::Null(Type::UUID_ARRAY), None),
    };
    Ok([
        if held.is_empty() { Arg::Null(Type::BYTEA_ARRAY) } else { Arg::byte_list(held) },
        Arg::bytes_or_null(created.as_ref().map(|created| &created[..])),
        Arg::big_or_null(operation.by.map(millis)),
        Arg::Bool(operation.into_copy),
        Arg::bytes_or_null(subject.as_deref()),
        only,
        Arg::big_or_null(after),
        Arg::big_or_null(snapshot.end_relied_on().map(millis)),
        Arg::big_or_null(operation.raises.map(millis)),
    ])
}

fn seen(answer: &ResultRow, compared: &[Compared<'_>]) -> Result<Vec<Snapshot>, StoreError> {
    let records: Vec<SessionId> = compared.iter().flat_map(|one| &one.records).map(|(id, _)| *id).collect();
    let list = |name| Ok::<_, StoreError>(answer.get::<Option<Vec<Option<&[u8]>>>>(name)?.unwrap_or_default());
    let (states, bytes) = (list("o_states")?, list("o_records")?);
    let current = answer.get::<Option<Vec<Option<bool>>>>("o_current")?.unwrap_or_default();
    if [states.len(), bytes.len(), current.len()] != [records.len(); 3] {
        return Err(unexpected("lists of different lengths"));
    }
    let mut found = records.into_iter().zip(states).zip(bytes).zip(current);
    let mut all = Vec::with_capacity(compared.len());
    for one in compared {
        let mut snapshot = Snapshot::default();
        for (((id, state), record), is_current) in found.by_ref().take(one.records.len()) {
            let (Some(state), Some(record)) = (state, record) else { continue };
            snapshot.see(id, decode(id, state, record));
            if is_current == Some(true) {
                snapshot.see_current(id);
            }
        }
        all.push(snapshot);
    }
    let ([only], [of]) = (&mut all[..], compared) else { return Ok(all) };
    if let Some(end) = answer.get::<Option<i64>>("o_end")? {
        only.see_end(time(end));
    }
    let entries = list("o_entries")?.into_iter().chain(list("o_held")?);
    for (target, entry) in of.entries.iter().map(|(target, _)| target).chain(&of.held).zip(entries) {
        if let Some(entry) = entry {
            only.see_entry(decode_entry(Target::clone(target), entry)?);
        }
    }
    Ok(all)
}

impl Commit for CommitCall<'_> {
    fn patience(&self) -> Duration {
        self.inner.options.network.operation_timeout
    }

    /// Operations can share a commit if each changes one record and has no other precondition.
    async fn commit(&self, all: &[Decided<'_>]) -> Result<Vec<Committed>, StoreError> {
        let Some(first) = all.first() else { return Ok(Vec::new()) };
        let (mut records, mut entries, mut asked) = (RecordArgs::default(), EntryArgs::default(), Vec::new());
        for decided in all {
            let mut compared = decided.operation.compared(&self.inner.issuer, decided.snapshot);
            records.add(self, *decided, &mut compared)?;
            entries.add(decided.snapshot, &compared)?;
            asked.push(compared);
        }
        let (is_each, operation) = (all.len() > 1, first.operation);
        let Some(compared) = asked.first() else { return Ok(Vec::new()) };
        let mut args = vec![
            Arg::bytes(&self.op),
            Arg::Bool(is_each),
            Arg::Ids(records.ids),
            Arg::ByteList(records.states),
            Arg::ByteList(records.news),
            Arg::ByteList(records.subjects),
            Arg::ByteList(records.clients),
            Arg::Bool(operation.keeps_names),
            Arg::bytes_or_null(operation.history.as_ref().map(|history| &history[..])),
            Arg::ByteList(entries.keys),
            Arg::ByteList(entries.targets),
            Arg::ByteList(entries.entries),
            Arg::ByteList(entries.news),
        ];
        args.extend(conditions(operation, first.snapshot, compared)?);
        args.push(self.inner.leeway());
        let answer = self.inner.one_of(self.pool, "rg_commit", self.history, args).await?;
        match answer.status()? {
            "committed" if is_each => {
                let same = answer.get::<Vec<bool>>("o_same")?;
                let found = seen(&answer, &asked)?;
                let each = same.into_iter().zip(found);
                Ok(each.map(|(same, found)| if same { Committed::Done } else { Committed::Changed(found) }).collect())
            }
            "committed" => {
                if !first.snapshot.entry_writes().is_empty() {
                    self.inner.written.notify_one();
                }
                Ok(vec![Committed::Done])
            }
            "uncommitted" => Ok(seen(&answer, &asked)?.into_iter().map(Committed::Changed).collect()),
            "late" => Ok(vec![Committed::Late]),
            "whole" => Err(is_whole()),
            _ => Err(answer.unknown()),
        }
    }
}

impl PostgresInner {
    pub(super) fn commit_by<'a>(&'a self, pool: &'a ConnectionPool) -> Result<CommitCall<'a>, StoreError> {
        Ok(self.commit_as(new_op()?, pool))
    }

    pub(super) fn commit_as<'a>(&'a self, op: Op, pool: &'a ConnectionPool) -> CommitCall<'a> {
        CommitCall { inner: self, pool, op, history: self.known.history() }
    }
}
