//! Moves to another store while gates run (requirement C31).
//!
//! Each gate works on [`MovingStore`]: the *old* store decides every operation. What it has written is then put into the
//! *next* store, a [copy](super::copy) that is not whole, and is acknowledged afterwards. The next store may fail without
//! harm: what it lacks is found by comparison.
//!
//! Which store is in charge is durable in the stores, and nowhere else:
//!
//! | step | old | next | in charge | cut short here |
//! |---|---|---|---|---|
//! | | serving | missing | old | nothing has begun |
//! | copy | serving | copying | old | the copy is run again, and goes on with what is there |
//! | fence | **moved** | copying | none | any gate, running or at its start, compares and ends the copy |
//! | end | moved | **serving**, copied from old | next | a gate starts on the next store |
//!
//! **One life.** The fence is one write of the old store: each operation of any gate is before it, or is refused. All that is
//! before it is compared afterwards, so the next store has it when the copy ends. What is put later is refused by a copy that
//! is whole. A failover of the old store may lose the fence, as any write. So a next store that serves as a copy of the old
//! one is in charge, whatever the old one says: a gate finds out at its next write, which the whole copy does not take, or
//! within half a second.
//!
//! **The file beside a redb store** keeps revocations that the store did not take, and no gate on the next store reads it. So
//! a switch does not begin while the file has any, and the file takes none from the fence on: a revocation that the moved store
//! refuses is answered with 503, and the client repeats it at a gate on the next store.
//!
//! **What is later.** Two gates may put two records of one session in either order. The later one stays.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::sync::{Mutex as AsyncMutex, watch};
use uuid::Uuid;

use super::copy::{CopyTarget, Put, Standing};
use super::shared::LiveRow;
use super::{Revocation, StoreError, WriteOutcome};
use crate::session::{Session, SessionId};

mod keep;
mod operations;
mod switch;
#[cfg(test)]
mod tests;

pub use switch::{Report, finish};

/// How often a gate looks how the two stores stand.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an operation waits for the next store.
const PUT_WITHIN: Duration = Duration::from_secs(1);
/// How many sessions that the next store lacks are remembered. Beyond it, only a comparison finds them.
const MAX_MISSED: usize = 10_000;

/// How a gate opens the two stores.
#[async_trait]
pub trait Opening: fmt::Debug + Send + Sync + 'static {
    /// Opens the next store as a copy of the store with this id.
    ///
    /// # Errors
    /// It does not answer; or it cannot be a copy, which is [refused](WriteOutcome::Refused).
    async fn next(&self, of: Uuid) -> Result<Arc<dyn CopyTarget>, StoreError>;

    /// Another handle on the old store, which reads it although it was moved.
    ///
    /// # Errors
    /// It does not answer.
    async fn moved(&self) -> Result<Arc<dyn CopyTarget>, StoreError>;

    /// How the next store stands.
    ///
    /// # Errors
    /// It does not answer.
    async fn standing(&self) -> Result<Standing, StoreError>;

    /// The copy was ended: gives the next store its name, if it had another one.
    ///
    /// # Errors
    /// The file cannot be renamed.
    async fn publish(&self) -> Result<(), StoreError>;

    /// Kind and address of the next store, for people.
    fn place(&self) -> String;

    /// Can several gates open the next store?
    fn is_shared(&self) -> bool;
}

/// What a gate has done for the next store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Operations whose outcome the next store has.
    pub put: u64,
    /// Operations whose outcome it did not take.
    pub failed: u64,
    /// Sessions that wait to be put again.
    pub missed: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct MovingStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    old: Arc<dyn CopyTarget>,
    /// The id of the old store.
    id: Uuid,
    opening: Box<dyn Opening>,
    next: ArcSwapOption<Next>,
    /// The next store failed: it is not waited for until it takes something again.
    is_down: AtomicBool,
    missed: Mutex<HashSet<SessionId>>,
    put: AtomicU64,
    failed: AtomicU64,
    /// What this gate says of itself on the old store.
    row: Mutex<Option<Arc<LiveRow>>>,
    /// One copy or switch at a time.
    job: AsyncMutex<()>,
    /// The next store is in charge: the gate must start on it.
    moved: watch::Sender<bool>,
}

#[derive(Debug)]
struct Next {
    store: Arc<dyn CopyTarget>,
    id: Uuid,
}

impl MovingStore {
    /// Works on `old`, and puts what it writes into the next store from now on. A next store that does not answer is opened
    /// later.
    ///
    /// # Errors
    /// The next store cannot be a copy of the old one.
    pub async fn begin(old: Arc<dyn CopyTarget>, opening: impl Opening) -> Result<Self, StoreError> {
        let id = match old.standing().await? {
            Standing::Serving { store, .. } => store,
            standing => return Err(StoreError::new(format!("a store cannot be moved that stands so: {standing:?}"))),
        };
        let inner = Arc::new(Inner {
            old,
            id,
            opening: Box::new(opening),
            next: ArcSwapOption::empty(),
            is_down: AtomicBool::new(false),
            missed: Mutex::default(),
            put: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            row: Mutex::default(),
            job: AsyncMutex::default(),
            moved: watch::Sender::new(false),
        });
        match inner.open_next().await {
            Err(error) if error.outcome() == WriteOutcome::Refused => return Err(error),
            Err(error) => {
                tracing::warn!(%error, next = inner.opening.place(), "next store not opened; it is tried again");
            }
            Ok(()) => {}
        }
        tokio::spawn(keep::keep(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Resolves when the next store is in charge: the gate must start on it.
    pub async fn moved(&self) {
        let mut moved = self.0.moved.subscribe();
        // The sender is in `self`.
        let _ = moved.wait_for(|moved| *moved).await;
    }

    /// What this gate has done for the next store.
    pub fn mirrored(&self) -> Mirrored {
        Mirrored {
            put: self.0.put.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
            missed: self.0.missed().len() as u64,
        }
    }
}

impl Inner {
    fn missed(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next store lacks what was written of these sessions.
    fn miss(&self, ids: impl IntoIterator<Item = SessionId>) {
        let mut missed = self.missed();
        for id in ids {
            if missed.len() >= MAX_MISSED {
                return;
            }
            missed.insert(id);
        }
    }

    async fn open_next(&self) -> Result<(), StoreError> {
        let store = self.opening.next(self.id).await?;
        let id = store.standing().await?.store().ok_or_else(|| StoreError::new("the next store has no id"))?;
        tracing::info!(next = self.opening.place(), store = %id, "all writes go to the next store, too");
        self.next.store(Some(Arc::new(Next { store, id })));
        self.is_down.store(false, Ordering::Release);
        self.say(Some(id));
        Ok(())
    }

    /// Tells the other gates which store this one writes to, too.
    fn say(&self, next: Option<Uuid>) {
        if let Some(row) = &*self.row.lock().unwrap_or_else(PoisonError::into_inner) {
            let next = next.map(|id| id.to_string().into_boxed_str());
            row.change(|row| row.next_store.clone_from(&next));
        }
    }

    /// Puts what the old store has written into the next one. A next store that fails is left behind.
    ///
    /// # Errors
    /// The next store is in charge, and the old one still took the write.
    async fn mirror(&self, records: Vec<Session>, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let next = self.next.load_full().filter(|_| !self.is_down.load(Ordering::Acquire));
        let Some(next) = next else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.miss(ids);
            return Ok(());
        };
        let put = async {
            let mut put = Put::Done;
            if !entries.is_empty() {
                put = next.store.put_revocations(entries).await?;
            }
            if !records.is_empty() && put == Put::Done {
                put = next.store.put_sessions(records).await?;
            }
            Ok::<_, StoreError>(put)
        };
        match tokio::time::timeout(PUT_WITHIN, put).await {
            Ok(Ok(Put::Done)) => {
                self.put.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(Ok(Put::Whole)) => self.written_late().await,
            Ok(Err(error)) => {
                self.left_behind(ids, &error);
                Ok(())
            }
            Err(_) => {
                self.left_behind(ids, &StoreError::new(format!("no answer within {} s", PUT_WITHIN.as_secs())));
                Ok(())
            }
        }
    }

    fn left_behind(&self, ids: Vec<SessionId>, error: &StoreError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.miss(ids);
        if !self.is_down.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, next = self.opening.place(), "next store left behind; it is tried again");
        }
    }

    /// The copy is whole. What was written before the fence is in it. If the fence is gone, the old store has taken a write
    /// that counts nowhere.
    async fn written_late(&self) -> Result<(), StoreError> {
        if matches!(self.old.standing().await, Ok(Standing::Moved { .. })) {
            return Ok(());
        }
        self.leave();
        Err(StoreError::new("the next store is in charge: the gate goes on there"))
    }

    /// The gate must start on the next store.
    fn leave(&self) {
        if !self.moved.send_replace(true) {
            tracing::info!(
                target: "rotogate::audit",
                event = "store_moved",
                next = self.opening.place(),
                "the next store is in charge"
            );
        }
    }
}
