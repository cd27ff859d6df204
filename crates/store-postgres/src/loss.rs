//! After a loss of acknowledged writes: a new history, and what the nodes write back.

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
    /// The server went back behind what it had acknowledged, or may have.
    lost: AtomicBool,
    server: Mutex<ServerPosition>,
}

/// A server as it was last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerPosition {
    /// Its system and its timeline.
    pub(super) name: String,
    /// How far its disk was.
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

    /// Something shows that the data is no longer all of this history. It counts unless other data was adopted since.
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

    /// The data is of this history from now on, and what was lost is known.
    pub(super) fn adopt(&self, history: History, server: ServerPosition) {
        let mut known = self.server();
        *known = server;
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// A server answered. Another one may lack what was acknowledged last.
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
                // The loss is known: it must not keep a later start from the store.
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

    /// True if the store lacked it.
    async fn restore_one(&self, record: &Session) -> Result<bool, StoreError> {
        // What another node wrote back has another history: the later record stays.
        let restore = |state: &mut Snapshot, _| {
            if state.is_current(record.id) { Ok(false) } else { self.rules().restore(state, record) }
        };
        let call = self.commit_by(&self.commands)?;
        match decide_each(&call, [(Operation::restoring(record), Snapshot::default())], restore).await?.pop() {
            Some(Ok(written)) => Ok(written == Some(true)),
            // One record must not hold up the others.
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
