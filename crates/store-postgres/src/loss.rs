//! Recovery from lost writes: the data gets a new history, and the nodes write their records back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::call::ResultRow;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::fields::History;

pub(super) struct KnownHistory {
    history: AtomicU64,
    /// Whether the server may have lost acknowledged writes.
    lost: AtomicBool,
    pub(super) server: Mutex<ServerPosition>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerPosition {
    /// The database system's identifier, and the timeline.
    pub(super) name: String,
    /// The log position that is on the server's disk.
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

    /// Records a loss of writes, unless the history has changed in the meantime.
    pub(super) fn flag_lost(&self, history: History) {
        let server = self.server.lock();
        if self.history() == history && !self.lost.swap(true, Ordering::AcqRel) {
            tracing::info!(
                server = %server.name,
                "PostgreSQL lost writes or was replaced; the gates are writing their revocations back"
            );
        }
    }

    pub(super) fn to_send(&self, history: History) -> Vec<u8> {
        let server = self.server.lock();
        let timeline = server.name.rsplit(' ').next().unwrap_or_default();
        [&history[..], &server.written.to_be_bytes(), timeline.as_bytes()].concat()
    }

    /// Switches to the new history after a loss.
    pub(super) fn adopt(&self, history: History, server: ServerPosition) {
        let mut known = self.server.lock();
        *known = server;
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// Records which server responded. Another server may lack the last acknowledged writes.
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
