//! Recovery after a loss of acknowledged writes: the data gets a new history, and the nodes write back their records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::call::ResultRow;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::fields::History;

/// What a node knows about the data: its history, and the server's position.
pub(super) struct KnownHistory {
    /// The history that every call expects.
    history: AtomicU64,
    /// Whether the server has lost acknowledged writes, or may have lost some.
    lost: AtomicBool,
    pub(super) server: Mutex<ServerPosition>,
}

/// The last known position of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerPosition {
    /// The identifier of the database system, and the timeline.
    pub(super) name: String,
    /// The log position up to which the server has written to its disk.
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

    /// Records that writes of this history appear to be lost. Does nothing if another history was adopted in the
    /// meantime.
    pub(super) fn flag_lost(&self, history: History) {
        let server = self.server.lock();
        if self.history() == history && !self.lost.swap(true, Ordering::AcqRel) {
            tracing::info!(
                server = %server.name,
                "PostgreSQL lost writes or was replaced; the gates are writing their revocations back"
            );
        }
    }

    /// Returns the first argument of every call: the history, the position and the timeline.
    pub(super) fn to_send(&self, history: History) -> Vec<u8> {
        let server = self.server.lock();
        let timeline = server.name.rsplit(' ').next().unwrap_or_default();
        [&history[..], &server.written.to_be_bytes(), timeline.as_bytes()].concat()
    }

    /// Switches to the new history that was given to the data after a loss.
    pub(super) fn adopt(&self, history: History, server: ServerPosition) {
        let mut known = self.server.lock();
        *known = server;
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// Records which server responded. If it is another server than before, it may lack the last acknowledged writes.
    pub(super) fn saw(&self, history: History, server: &ServerPosition) {
        let mut known = self.server.lock();
        if known.name == server.name && self.history() == history {
            known.written = known.written.max(server.written);
            return;
        }
        drop(known);
        self.flag_lost(history);
    }
}
