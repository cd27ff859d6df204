//! The [`SharedStore`] in PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::call::{Arg, ResultRow, unexpected};
use super::feed::PostgresFeed;
use super::loss::ServerPosition;
use super::record::{self, time, uuid};
use super::store::row_of;
use super::{PostgresInner, PostgresStore};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::kit::commit::{Operation, decide_each};
use rotogate_core::store::kit::fields::{Op, new_op};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::{
    Admitted, CounterUse, Cursor, Feed, Follow, NodeRow, NodeSeen, Restoration, SharedCounter, SharedStore, StoreError,
    WriteOutcome,
};

const CHANGE_KEPT: Duration = Duration::from_secs(86_400);
/// A time plus twice this duration, in microseconds, does not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

fn micros(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_micros().max(1)).unwrap_or(i64::MAX)
}

impl PostgresInner {
    /// Returns `None` if `after` is too far ahead of the server's clock.
    async fn stamp(&self, creation: bool, after: Option<Timestamp>) -> Result<Option<Timestamp>, StoreError> {
        let after = Arg::big_or_null(after.map(record::millis));
        let pool = if creation { &*self.commands } else { &self.revocations };
        let answer = self.one_by(pool, "rg_stamp", vec![Arg::Bool(creation), after, self.leeway()]).await?;
        match answer.status()? {
            "ahead" => Ok(None),
            "stamp" => Ok(Some(time(answer.get("o_stamp")?))),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn admit(
        &self,
        op: Op,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        let caller_name = Arg::bytes_or_null(caller.as_ref().map(|caller| &caller.name[..]));
        let all: Vec<_> = caller.map(|caller| (caller, CounterUse::Take)).into_iter().chain(counters).collect();
        let how = |how: &CounterUse| match how {
            CounterUse::Take => 0,
            CounterUse::Charge => 1,
            CounterUse::Look => 2,
            CounterUse::GiveBack => 3,
        };
        let args = vec![
            Arg::bytes(&op),
            caller_name,
            Arg::byte_list(all.iter().map(|(counter, _)| counter.name.to_vec())),
            Arg::Bigs(all.iter().map(|(_, of)| how(of)).collect()),
            Arg::Bigs(all.iter().map(|(counter, _)| micros(counter.every)).collect()),
            Arg::Bigs(all.iter().map(|(counter, _)| micros(counter.depth())).collect()),
        ];
        let answer = self.one("rg_admit", args).await?.with_status("counted")?;
        let wait = answer.count("o_wait")?;
        let place = usize::try_from(answer.get::<Option<i64>>("o_place")?.unwrap_or_default()).unwrap_or_default();
        let refused = (wait > 0).then(|| (place, Duration::from_micros(wait)));
        Ok(Admitted { is_known: answer.get("o_is_known")?, refused })
    }

    /// Writes a record back. Returns true if the record was missing.
    async fn restore_one(&self, record: &Session) -> Result<bool, StoreError> {
        // Another node may have written the record back. A later record is kept.
        let restore = |state: &mut Snapshot, _| {
            if state.is_current(record.id) { Ok(false) } else { self.rules().restore(state, record) }
        };
        let call = self.commit_by(&self.commands)?;
        match decide_each(&call, [(Operation::restoring(record), Snapshot::default())], restore).await?.pop() {
            Some(Ok(written)) => Ok(written == Some(true)),
            // A failed record must not stop the others.
            Some(Err(error)) => {
                tracing::error!(
                    session.id = %record.id,
                    %error,
                    "session could not be written back to the store, which had lost it"
                );
                Ok(false)
            }
            None => Err(unexpected("no answer")),
        }
    }
}

#[async_trait]
impl SharedStore for PostgresStore {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.0.stamp(true, (after != Timestamp::ZERO).then_some(after)).await
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.0.stamp(false, None).await?.ok_or_else(|| unexpected("no stamp"))
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let args = vec![Arg::bytes(&name), Arg::bytes(&state), Arg::millis(CHANGE_KEPT)];
        let answer = self.0.one_by(&self.0.revocations, "rg_change", args).await?.with_status("stamp")?;
        Ok(time(answer.get("o_stamp")?))
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        let admitted = self.0.admit(new_op()?, None, vec![(counter, how)]).await?;
        Ok(admitted.refused.map(|(_, wait)| wait))
    }

    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        self.0.admit(new_op()?, caller, counters).await
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        let lifetime = lifetime.clamp(Duration::from_millis(1), LONGEST);
        let args = vec![Arg::bytes(&name), Arg::millis(lifetime)];
        self.0.one("rg_remember", args).await?.with_status("remembered").map(drop)
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.0.one("rg_remembers", vec![Arg::bytes(&name)]).await?.with_status("remembers")?.get("o_is_known")
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        let seen = |row: &ResultRow| {
            Ok(NodeSeen { row: NodeRow::decode(row.get("o_said")?)?, beat: time(row.get("o_beat")?) })
        };
        self.0.all("rg_nodes", vec![Arg::millis(within)]).await?.iter().map(seen).collect()
    }

    /// Caches the record and the entry, which the next revocation compares.
    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some((row, entry)) = self.0.read(&self.0.revocations, id).await? else { return Ok(None) };
        let record = row_of(&row, id)?;
        self.0.hints.note(id, Some(record.clone()), entry);
        Ok(Some(record))
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.0.one("rg_settle", Vec::new()).await?.with_status("settled").map(drop)
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        Ok(Box::new(PostgresFeed::new(Arc::clone(&self.0), &from, follow)?))
    }

    async fn adopt(&self) -> Result<(), StoreError> {
        let args = vec![Arg::bytes(&new_op()?), Arg::bytes(&self.0.store)];
        let answer = self.0.one("rg_adopt", args).await?;
        match answer.status()? {
            "adopted" => {
                let history: &[u8] = answer.get("o_history")?;
                let history = history.try_into().map_err(|_| unexpected("no history"))?;
                self.0.known.adopt(history, ServerPosition::in_answer(&answer)?);
                // A lower mark is written. Otherwise a later start would refuse the store because of this known loss.
                self.0.mark.set(answer.count("o_writes")?).await;
                Ok(())
            }
            "headless" | "differs" => Err(StoreError::new(
                "the database was emptied or has another store: restore a back-up, or restart the gate to begin with \
                 an empty store",
            )
            .with_outcome(WriteOutcome::NotDone)),
            _ => Err(answer.unknown()),
        }
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        let mut restored = 0;
        for some in records.chunks(self.0.options.connections) {
            for written in join_all(some.iter().map(|record| self.0.restore_one(record))).await {
                restored += usize::from(written?);
            }
        }
        Ok(restored)
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        let args = vec![Arg::bytes(&self.0.node), Arg::millis(patience)];
        let answer = self.0.one("rg_restoration", args).await?.with_status("restoration")?;
        Ok(Restoration { adopted: time(answer.get("o_adopted")?), is_complete: answer.get("o_complete")? })
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        self.0.one("rg_predates", vec![Arg::Id(uuid(id))]).await?.with_status("predates")?.get("o_predates")
    }

    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some(ops) = self.0.doubts.ops(id) else { return Ok(None) };
        let Some((row, _)) = self.0.read(&self.0.commands, id).await? else { return Ok(None) };
        let op: &[u8] = row.get("o_op")?;
        let record = row_of(&row, id)?;
        Ok((ops.iter().any(|own| own == op) && !record.confirmed).then_some(record))
    }

    fn resolved(&self, id: SessionId) {
        self.0.doubts.forget(id);
    }
}
