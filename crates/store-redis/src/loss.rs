//! Recovery after a loss of acknowledged writes: the data gets a new history, and the nodes write back their
//! records.

use std::time::Duration;

use redis::Value;

use super::commit::CommitCall;
use super::partitions::{Partition, in_each};
use super::record::{HISTORY, new_op};
use super::script::{ADOPT, RESTORATION, bytes, unexpected};
use super::{RedisInner, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::kit::commit::{Operation, decide_each};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::{Restoration, StoreError, WriteOutcome};

/// How many records are written at once.
const AT_ONCE: usize = 64;

impl RedisInner {
    /// Adopts the partitions that lost writes, or all if no loss is known. For the other partitions, takes over the
    /// history that other nodes have given them.
    pub(super) async fn adopt(&self) -> Result<(), StoreError> {
        let none = !self.partitions.iter().any(Partition::is_lost);
        let adopt = async |partition: &Partition| self.adopt_one(partition, none || partition.is_lost()).await;
        in_each(self.partitions.iter().map(adopt)).await?;
        // Sets the mark to the lower number of writes, so that this known loss does not make a later start
        // refuse the store.
        self.mark.set(self.partitions.writes()).await;
        Ok(())
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
                "Redis was emptied, or has another store now: restore a back-up, or restart the gate to begin anew",
            )
            .with_outcome(WriteOutcome::NotDone)),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn restore(&self, records: &[Session]) -> Result<usize, StoreError> {
        let mut restored = 0;
        for some in records.chunks(AT_ONCE) {
            let sorted = self.partitions.sort(some, |record| record.id);
            let written =
                in_each(sorted.iter().map(|(partition, records)| self.restore_in(partition, records))).await?;
            restored += written.into_iter().sum::<usize>();
        }
        Ok(restored)
    }

    /// Writes records back. Returns how many of them the store lacked.
    async fn restore_in(&self, partition: &Partition, records: &[&Session]) -> Result<usize, StoreError> {
        let (op, history) = (new_op()?, partition.history());
        let call = CommitCall { inner: self, primaries: &self.commands, partition, op, history };
        let operations = records.iter().map(|record| (Operation::restoring(record), Snapshot::default()));
        let restore = |state: &mut Snapshot, place: usize| match records.get(place) {
            // Another node may have written the record back, with the current history. A later record is
            // kept.
            Some(record) if !state.is_current(record.id) => self.rules().restore(state, record),
            Some(_) | None => Ok(false),
        };
        let mut restored = 0;
        for (record, written) in records.iter().zip(decide_each(&call, operations, restore).await?) {
            match written {
                Ok(written) => restored += usize::from(written == Some(true)),
                // The failure of one record must not stop the others.
                Err(error) => tracing::error!(session.id = %record.id, %error, "session not written back"),
            }
        }
        Ok(restored)
    }

    pub(super) async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        let answers = in_each(self.partitions.iter().map(async |partition| {
            let keys = vec![partition.keys.named("n"), partition.keys.named("f")];
            let args = vec![self.node.to_vec(), patience.as_millis().to_string().into_bytes()];
            let mut answer = self.run(partition, &RESTORATION, keys, args).await?;
            if answer.status != "restoration" {
                return Err(answer.unknown());
            }
            let adopted = answer.text()?.parse().map_err(|_| unexpected("no time"))?;
            Ok((Timestamp::from_millis(adopted), answer.number()? == 1))
        }))
        .await?;
        Ok(Restoration {
            adopted: answers.iter().map(|(adopted, _)| *adopted).max().unwrap_or_default(),
            is_complete: answers.iter().all(|(_, is_complete)| *is_complete),
        })
    }

    pub(super) async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        let partition = self.partitions.of_session(id);
        let history = partition.history();
        let (head, key) = (partition.keys.named("h"), partition.keys.session(id));
        let mut replies = self
            .read(&self.commands, partition, |pipeline| {
                drop_mut(pipeline.cmd("HGET").arg(head).arg("adopted").cmd("GET").arg(key));
            })
            .await?;
        let is_first = matches!(replies.next(), Some(Value::Nil));
        let written = replies.next().and_then(bytes);
        let predates = !is_first && written.is_some_and(|record| record.get(HISTORY) != Some(&history[..]));
        Ok(predates)
    }
}
