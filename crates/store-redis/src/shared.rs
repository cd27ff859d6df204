//! The [`SharedStore`] in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value};

use super::feed::RedisFeed;
use super::partitions::{Partition, in_each};
use super::record::{HISTORY, Op, decode_live, decode_record, new_op, op_of, target};
use super::script::{ADOPT, CHANGE, CHECK, COUNT, NODES, RESTORATION, STAMP, bytes, unexpected};
use super::{RedisInner, RedisStore, drop_mut, value_in};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::Target;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::kit::commit::{Operation, decide_each};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::{
    Admitted, CounterUse, Cursor, Feed, Follow, NodeRow, NodeSeen, Restoration, SharedCounter, SharedStore, StoreError,
    WriteOutcome, count_each,
};

const CHANGE_KEPT: Duration = Duration::from_secs(86_400);

/// The microseconds are below 2^53, so that Lua represents them exactly.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);
const RESTORED_AT_ONCE: usize = 64;

impl RedisInner {
    /// Issues a stamp. `None` if `after` is too far ahead of the server's clock.
    async fn stamp(&self, kind: &str, after: &str) -> Result<Option<Timestamp>, StoreError> {
        let args = vec![kind.into(), after.into(), self.leeway()];
        let primaries = if kind == "before" { &self.revokes } else { &self.commands };
        let first = self.partitions.first();
        let name = (new_op()?, first.history());
        let mut answer = self.run_as(primaries, first, name, &STAMP, Vec::new(), args).await?;
        match answer.status.as_str() {
            "ahead" => Ok(None),
            "stamp" => answer.moment().map(Some),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn count(
        &self,
        op: Op,
        counter: SharedCounter,
        how: CounterUse,
    ) -> Result<Option<Duration>, StoreError> {
        let partition = self.partitions.of_target(&counter.name);
        let admitted = self.admit_in(partition, op, None, &[(counter, how)]).await?;
        Ok(admitted.refused.map(|(_, wait)| wait))
    }

    async fn admit_in(
        &self,
        partition: &Partition,
        op: Op,
        caller: Option<SharedCounter>,
        counters: &[(SharedCounter, CounterUse)],
    ) -> Result<Admitted, StoreError> {
        let micros = |time: Duration| time.min(LONGEST).as_micros().max(1).to_string().into_bytes();
        let mut keys: Vec<_> = caller.iter().map(|caller| partition.keys.with("k:", &caller.name)).collect();
        let mut args = vec![b"count".to_vec(), if caller.is_some() { b"1".to_vec() } else { b"0".to_vec() }];
        let own = caller.map(|caller| (caller, CounterUse::Take));
        for (counter, how) in own.iter().chain(counters) {
            keys.push(partition.keys.with("l:", &counter.name));
            let word = match how {
                CounterUse::Take => "take",
                CounterUse::Charge => "charge",
                CounterUse::Look => "look",
                CounterUse::GiveBack => "give-back",
            };
            args.extend([word.as_bytes().to_vec(), micros(counter.every), micros(counter.depth())]);
        }
        let (wait, place, is_known) = self.counted(partition, op, keys, args).await?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        Ok(Admitted { is_known, refused: (wait > 0).then(|| (place, Duration::from_micros(wait))) })
    }

    async fn named(&self, what: &str, name: [u8; 16], millis: String) -> Result<bool, StoreError> {
        let partition = self.partitions.of_target(&name);
        let args = vec![what.into(), millis.into()];
        let (_, _, is_known) = self.counted(partition, new_op()?, vec![partition.keys.with("k:", &name)], args).await?;
        Ok(is_known)
    }

    /// Returns the delay, the counter's index, and whether the name is known.
    async fn counted(
        &self,
        partition: &Partition,
        op: Op,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
    ) -> Result<(u64, u64, bool), StoreError> {
        let run = (op, partition.history());
        let reply = self.run_as(&self.commands, partition, run, &COUNT, keys, args).await?;
        let mut answer = reply.with_status("counted")?;
        Ok((answer.number()?, answer.number()?, answer.number()? > 0))
    }

    /// Waits until all data read so far is as durable as acknowledged writes.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        if self.options.durable().is_none() {
            return Ok(());
        }
        let settled = in_each(self.partitions.iter().map(async |partition| {
            self.run(partition, &CHECK, Vec::new(), Vec::new()).await?.with_status("ready").map(drop)
        }));
        settled.await.map(drop)
    }

    async fn adopt_one(&self, partition: &Partition, is_lost: bool) -> Result<(), StoreError> {
        let args = vec![new_op()?.to_vec(), self.store.to_vec(), if is_lost { b"1" } else { b"0" }.to_vec()];
        let mut answer =
            self.send(&self.commands, partition, (new_op()?, partition.history()), &ADOPT, Vec::new(), args).await?;
        match answer.status.as_str() {
            "adopted" => {
                let history = answer.bytes()?.try_into().map_err(|_| unexpected("no history"))?;
                partition.adopt(history, answer.seq);
                Ok(())
            }
            "headless" | "differs" => Err(StoreError::new(
                "Redis was emptied or has another store: restore a back-up, or restart the gate to begin with an \
                 empty store",
            )
            .with_outcome(WriteOutcome::NotDone)),
            _ => Err(answer.unknown()),
        }
    }

    /// Writes records back, and returns how many were missing.
    async fn restore_in(&self, partition: &Partition, records: &[&Session]) -> Result<usize, StoreError> {
        let call = self.call_in(partition, new_op()?);
        let operations = records.iter().map(|record| (Operation::restoring(record), Snapshot::default()));
        let restore = |state: &mut Snapshot, place: usize| match records.get(place) {
            // Another node may have written the record back. A later record is kept.
            Some(record) if !state.is_current(record.id) => self.rules().restore(state, record),
            Some(_) | None => Ok(false),
        };
        let mut restored = 0;
        for (record, written) in records.iter().zip(decide_each(&call, operations, restore).await?) {
            match written {
                Ok(written) => restored += usize::from(written == Some(true)),
                // The failure of one record must not stop the others.
                Err(error) => tracing::error!(
                    session.id = %record.id,
                    %error,
                    "session could not be written back to the store, which had lost it"
                ),
            }
        }
        Ok(restored)
    }
}

#[async_trait]
impl SharedStore for RedisStore {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let after = if after == Timestamp::ZERO { String::new() } else { after.as_millis().to_string() };
        self.0.stamp("creation", &after).await
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.0.stamp("before", "").await?.ok_or_else(|| unexpected("no stamp"))
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let args = vec![state.to_vec(), CHANGE_KEPT.as_millis().to_string().into_bytes(), self.0.leeway()];
        // The first partition issues all stamps.
        let first = self.0.partitions.first();
        // The stamp is for a revocation, so use the connections for revocations.
        let (run, keys) = ((new_op()?, first.history()), vec![first.keys.with("c:", &name)]);
        self.0.run_as(&self.0.revokes, first, run, &CHANGE, keys, args).await?.with_status("stamp")?.moment()
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        self.0.count(new_op()?, counter, how).await
    }

    /// In a cluster, the counters may be in different partitions.
    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        if self.0.partitions.count() == 1 {
            return self.0.admit_in(self.0.partitions.first(), new_op()?, caller, &counters).await;
        }
        if let Some(caller) = caller {
            let partition = self.0.partitions.of_target(&caller.name);
            let taken = self.0.admit_in(partition, new_op()?, Some(caller), &[]).await?;
            if taken.is_known {
                return Ok(taken);
            }
        }
        Ok(Admitted { is_known: false, refused: count_each(self, counters).await? })
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        let millis = lifetime.min(LONGEST).as_millis().max(1).to_string();
        self.0.named("remember", name, millis).await.map(drop)
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.0.named("remembers", name, String::new()).await
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        let asked = within.as_millis().to_string().into_bytes();
        let first = self.0.partitions.first();
        let reply = self.0.run(first, &NODES, vec![first.keys.named("n")], vec![asked]).await?;
        let mut answer = reply.with_status("nodes")?;
        let now = answer.time;
        // A scan may return a node twice.
        let mut nodes = BTreeMap::new();
        let mut found = answer.list()?.into_iter();
        while let (Some(id), Some(age), Some(row)) = (found.next(), found.next(), found.next()) {
            let (Some(id), Value::Int(age), Some(row)) = (bytes(id), age, bytes(row)) else {
                return Err(unexpected("no row of a node"));
            };
            let by = Duration::from_millis(age.unsigned_abs());
            // A heartbeat may be in the future if the server's clock was ahead.
            let beat = if age < 0 { now.plus(by) } else { now.minus(by) };
            nodes.insert(id, NodeSeen { row: NodeRow::decode(&row)?, beat });
        }
        Ok(nodes.into_values().collect())
    }

    /// Also stores the record as a hint for the revocation.
    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let partition = self.0.partitions.of_session(id);
        let (key, entries, of) = (partition.keys.session(id), partition.keys.named("r"), target(&Target::Session(id))?);
        let read = |pipeline: &mut Pipeline| drop_mut(pipeline.cmd("GET").arg(key).cmd("HGET").arg(entries).arg(&of));
        let mut replies = self.0.read(&self.0.revokes, partition, read).await?;
        let record = value_in(replies.next())?.map(|record| decode_record(id, &record)).transpose()?;
        let entry = replies.next().and_then(bytes).and_then(|entry| decode_live(&of, &entry).ok());
        self.0.hints.note(id, record.clone(), entry.map(|(entry, _)| entry));
        Ok(record)
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.0.settle().await
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        Ok(Box::new(RedisFeed::new(&self.0, &from, &follow)?))
    }

    /// Starts a new history in the partitions that lost writes, or in all if no loss is known. The other partitions
    /// keep their history, or take the one that other nodes have set.
    async fn adopt(&self) -> Result<(), StoreError> {
        let partitions = &self.0.partitions;
        let none = !partitions.iter().any(Partition::is_lost);
        let adopt = async |partition: &Partition| self.0.adopt_one(partition, none || partition.is_lost()).await;
        in_each(partitions.iter().map(adopt)).await?;
        // A lower mark is written. Otherwise a later start would refuse the store because of this known loss.
        self.0.mark.set(partitions.writes()).await;
        Ok(())
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        let mut restored = 0;
        for some in records.chunks(RESTORED_AT_ONCE) {
            let sorted = self.0.partitions.sort(some, |record| record.id);
            let written = in_each(sorted.iter().map(|(partition, records)| self.0.restore_in(partition, records)));
            restored += written.await?.into_iter().sum::<usize>();
        }
        Ok(restored)
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        let answers = in_each(self.0.partitions.iter().map(async |partition| {
            let keys = vec![partition.keys.named("n"), partition.keys.named("f")];
            let args = vec![self.0.node.to_vec(), patience.as_millis().to_string().into_bytes()];
            let mut answer = self.0.run(partition, &RESTORATION, keys, args).await?.with_status("restoration")?;
            Ok((answer.moment()?, answer.number()? == 1))
        }))
        .await?;
        Ok(Restoration {
            adopted: answers.iter().map(|(adopted, _)| *adopted).max().unwrap_or_default(),
            is_complete: answers.iter().all(|(_, is_complete)| *is_complete),
        })
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        let partition = self.0.partitions.of_session(id);
        let history = partition.history();
        let (head, key) = (partition.keys.named("h"), partition.keys.session(id));
        let read = |pipeline: &mut Pipeline| {
            drop_mut(pipeline.cmd("HGET").arg(head).arg("adopted").cmd("GET").arg(key));
        };
        let mut replies = self.0.read(&self.0.commands, partition, read).await?;
        let is_first = matches!(replies.next(), Some(Value::Nil));
        let written = replies.next().and_then(bytes);
        Ok(!is_first && written.is_some_and(|record| record.get(HISTORY) != Some(&history[..])))
    }

    /// Returns the record if its last write was an uncertain swap, and its tokens are still unused.
    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some(ops) = self.0.doubts.ops(id) else { return Ok(None) };
        let partition = self.0.partitions.of_session(id);
        let Some(record) = self.0.value_of(partition, partition.keys.session(id)).await? else { return Ok(None) };
        let session = decode_record(id, &record)?;
        let is_own = op_of(&record).is_some_and(|op| ops.contains(&op)) && !session.confirmed;
        Ok(is_own.then_some(session))
    }

    fn resolved(&self, id: SessionId) {
        self.0.doubts.forget(id);
    }
}
