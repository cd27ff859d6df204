//! Recovery after a loss of acknowledged writes: the data gets a new history, and the nodes write back their records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use super::record::{time, uuid};
use super::revoke::writes;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::kit::commit::{Operation, decide_each};
use rotogate_core::store::kit::fields::{History, new_op};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::{Restoration, StoreError, WriteOutcome};

/// The history of the data, and the server's position, as a node knows them.
pub(super) struct KnownHistory {
    /// The history that every call expects.
    history: AtomicU64,
    /// Whether the server has lost acknowledged writes, or may have.
    lost: AtomicBool,
    server: Mutex<ServerPosition>,
}

/// The last known position of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerPosition {
    /// The identifier of the database system, and the timeline.
    pub(super) name: String,
    /// The position up to which its disk was written.
    pub(super) written: i64,
}

impl ServerPosition {
    pub(super) fn in_answer(answer: &ResultRow) -> Result<Self, StoreError> {
        Ok(Self { name: answer.get("o_server")?, written: answer.get("o_written")? })
    }
}

impl KnownHistory {
    pub(super) fn new(history: History) -> Self {
        Self {
            history: AtomicU64::new(u64::from_be_bytes(history)),
            lost: AtomicBool::new(false),
            server: Mutex::new(ServerPosition { name: String::new(), written: 0 }),
        }
    }

    pub(super) fn history(&self) -> History {
        self.history.load(Ordering::Acquire).to_be_bytes()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(super) fn server(&self) -> MutexGuard<'_, ServerPosition> {
        self.server.lock()
    }

    /// Records a sign that writes of this history were lost. Does nothing if another history was adopted since.
    pub(super) fn flag_lost(&self, history: History) {
        let server = self.server();
        if self.history() == history && !self.lost.swap(true, Ordering::AcqRel) {
            tracing::info!(
                server = %server.name,
                "PostgreSQL has another history, or another server answers: the gates write back what it lacks"
            );
        }
    }

    /// The first argument of every call: history, position and timeline.
    pub(super) fn to_send(&self, history: History) -> Vec<u8> {
        let server = self.server();
        let timeline = server.name.rsplit(' ').next().unwrap_or_default();
        [&history[..], &server.written.to_be_bytes(), timeline.as_bytes()].concat()
    }

    /// Switches to the new history that was given to the data after a loss.
    pub(super) fn adopt(&self, history: History, server: ServerPosition) {
        let mut known = self.server();
        *known = server;
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// Records which server answered. Another server may lack the last acknowledged writes.
    pub(super) fn saw(&self, history: History, server: &ServerPosition) {
        let mut known = self.server();
        if known.name == server.name && self.history() == history {
            known.written = known.written.max(server.written);
            return;
        }
        drop(known);
        self.flag_lost(history);
    }
}

impl PostgresInner {
    pub(super) async fn adopt(&self) -> Result<(), StoreError> {
        let expected = self.known.history();
        let args = vec![Arg::bytes(&new_op()?), Arg::bytes(&self.store)];
        let answer = self.one_of(&self.commands, "rg_adopt", expected, args).await?;
        match answer.status()? {
            "adopted" => {
                let history: &[u8] = answer.get("o_history")?;
                let history = history.try_into().map_err(|_| unexpected("no history"))?;
                self.known.adopt(history, ServerPosition::in_answer(&answer)?);
                // Sets the mark to the lower number of writes, so that this known loss does not make a later start
                // refuse the store.
                self.mark.set(writes(&answer)?).await;
                Ok(())
            }
            "headless" | "differs" => Err(StoreError::new(
                "the database was emptied, or has another store now: restore a back-up, or restart the gate to begin anew",
            )
            .with_outcome(WriteOutcome::NotDone)),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn restore(&self, records: &[Session]) -> Result<usize, StoreError> {
        let mut restored = 0;
        for some in records.chunks(self.options.connections) {
            for written in futures_util::future::join_all(some.iter().map(|record| self.restore_one(record))).await {
                restored += usize::from(written?);
            }
        }
        Ok(restored)
    }

    /// Writes a record back. Returns true if the store lacked it.
    async fn restore_one(&self, record: &Session) -> Result<bool, StoreError> {
        // Another node may have written the record back, with the current history. A later record is kept.
        let restore = |state: &mut Snapshot, _| {
            if state.is_current(record.id) { Ok(false) } else { self.rules().restore(state, record) }
        };
        let call = self.commit_by(&self.commands)?;
        match decide_each(&call, [(Operation::restoring(record), Snapshot::default())], restore).await?.pop() {
            Some(Ok(written)) => Ok(written == Some(true)),
            // The failure of one record must not stop the others.
            Some(Err(error)) => {
                tracing::error!(session.id = %record.id, %error, "session not written back");
                Ok(false)
            }
            None => Err(unexpected("no answer")),
        }
    }

    pub(super) async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        let patience = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        let args = vec![Arg::bytes(&self.node), Arg::Big(patience)];
        let answer = self.one("rg_restoration", args).await?;
        match answer.status()? {
            "restoration" => {
                Ok(Restoration { adopted: time(answer.get("o_adopted")?), is_complete: answer.get("o_complete")? })
            }
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        let answer = self.one("rg_predates", vec![Arg::Id(uuid(id))]).await?;
        if answer.status()? == "predates" { answer.get("o_predates") } else { Err(answer.unknown()) }
    }
}
