//! A store in memory with the faults of stores and disks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use rotogate::clock::Timestamp;
use rotogate::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate::store::{Cursor, Filter, Inserted, MemoryStore, Page, Store, StoreError, SubjectBound, Swap, Swept};
use rotogate_core::revocation::{Revocation, Target};

use crate::oracle::Commits;
use support::random::Random;

pub(crate) const ISSUER: &str = "https://gate.test";
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);
/// One operation in this number fails before its write, and one after.
const FAILS_ONE_IN: u64 = 20;
/// A store that loses writes loses one acknowledged write in this number.
const LIES_ONE_IN: u64 = 30;

/// Does an acknowledgement of this store mean anything?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    KeepsItsWord,
    LosesWrites,
}

/// A planted fault of a store that claims to be reliable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// A swap is acknowledged now and done with the next operation, if the process lives that long.
    AcknowledgesFirst,
    /// A fault of the gate, because the store's records are sealed: it replays for twice as long as it promises.
    ReplaysPastGrace,
    RevocationIsForgotten,
    /// As above, for a repetition of a failed operation.
    RepetitionIsForgotten,
    SwapsWithoutComparing,
    /// Every new generation counts as seen in use.
    ConfirmsByItself,
}

#[derive(Clone)]
enum Write {
    Insert(Session, SubjectBound),
    Swap(u64, Session, Option<Revocation>),
    Revoke(Revocation, RevokedBecause),
    Confirm(Vec<(SessionId, Generation)>),
}

enum Wrote {
    Inserted(Inserted),
    Swapped(Swap),
    Revoked(Revocation),
    Confirmed(Vec<SessionId>),
}

impl Write {
    fn to(self, store: &MemoryStore) -> Result<Wrote, StoreError> {
        let at_once = "memory waits for nothing";
        Ok(match self {
            Self::Insert(session, bound) => {
                Wrote::Inserted(store.insert(session, bound).now_or_never().expect(at_once)?)
            }
            Self::Swap(expected, record, revocation) => {
                Wrote::Swapped(store.compare_and_swap(expected, record, revocation).now_or_never().expect(at_once)?)
            }
            Self::Revoke(entry, because) => {
                Wrote::Revoked(store.revoke(entry, because).now_or_never().expect(at_once)?)
            }
            Self::Confirm(seen) => Wrote::Confirmed(store.confirm(seen).now_or_never().expect(at_once)?),
        })
    }
}

struct Disk {
    tables: Arc<MemoryStore>,
    /// All writes so far. After a loss, a prefix of them remains.
    log: Vec<Write>,
    /// The length of the prefix that cannot be lost.
    safe: usize,
    random: Random,
    /// The store has no faults.
    quiet: bool,
    /// Of [`Plant::RepetitionIsForgotten`].
    failed: Vec<Target>,
    /// Of [`Plant::AcknowledgesFirst`].
    not_yet_done: Option<Write>,
}

pub(crate) struct Faulty {
    trust: Trust,
    plant: Plant,
    disk: Mutex<Disk>,
    pub(crate) commits: Mutex<Commits>,
}

rotogate_core::debug_with!(Faulty);

impl Faulty {
    pub(crate) fn new(trust: Trust, plant: Plant, random: Random) -> Self {
        let disk = Disk {
            tables: Arc::new(MemoryStore::new(ISSUER, LEEWAY)),
            log: Vec::new(),
            safe: 0,
            random,
            quiet: true,
            failed: Vec::new(),
            not_yet_done: None,
        };
        Self { trust, plant, disk: Mutex::new(disk), commits: Mutex::default() }
    }

    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.disk.lock().unwrap().quiet = quiet;
    }

    /// The content for a process that starts now.
    pub(crate) fn tables(&self) -> Arc<MemoryStore> {
        let mut disk = self.disk.lock().unwrap();
        // The process that should have executed the swap has ended.
        disk.not_yet_done = None;
        Arc::clone(&disk.tables)
    }

    pub(crate) fn record(&self, id: SessionId) -> Option<Session> {
        let tables = Arc::clone(&self.disk.lock().unwrap().tables);
        tables.load(id).now_or_never().expect("memory waits for nothing").unwrap()
    }

    /// Makes all writes so far durable.
    pub(crate) fn save(&self) {
        let mut disk = self.disk.lock().unwrap();
        disk.safe = disk.log.len();
    }

    /// Loses the last writes, like a replica that takes over before it has all of them.
    pub(crate) fn lose_writes(&self) {
        let mut disk = self.disk.lock().unwrap();
        let unsafe_ones = (disk.log.len() - disk.safe) as u64;
        let lost = usize::try_from(disk.random.below(unsafe_ones + 1)).unwrap();
        let kept = disk.log.len() - lost;
        disk.log.truncate(kept);
        disk.tables = Arc::new(MemoryStore::new(ISSUER, LEEWAY));
        for write in disk.log.clone() {
            let _ = write.to(&disk.tables);
        }
    }

    async fn pause(&self) {
        let times = {
            let mut disk = self.disk.lock().unwrap();
            if disk.quiet { 0 } else { disk.random.below(3) }
        };
        for _ in 0..times {
            Pause(false).await;
        }
    }

    fn happens(&self, one_in: u64) -> bool {
        let mut disk = self.disk.lock().unwrap();
        !disk.quiet && disk.random.one_in(one_in)
    }

    async fn read<T>(&self, read: impl FnOnce(&MemoryStore) -> T) -> Result<T, StoreError> {
        self.pause().await;
        if self.happens(FAILS_ONE_IN) {
            return Err(StoreError::new("reading fails"));
        }
        let got = read(&self.disk.lock().unwrap().tables);
        self.pause().await;
        Ok(got)
    }

    async fn write(&self, write: Write) -> Result<Wrote, StoreError> {
        self.pause().await;
        if self.happens(FAILS_ONE_IN) {
            if let Write::Revoke(entry, _) = &write {
                self.disk.lock().unwrap().failed.push(entry.target.clone());
            }
            return Err(StoreError::new("writing fails"));
        }
        let wrote = if self.trust == Trust::LosesWrites && self.happens(LIES_ONE_IN) {
            // Acknowledges the write without executing it, because the store is never read again.
            let aside = MemoryStore::new(ISSUER, LEEWAY);
            for earlier in self.disk.lock().unwrap().log.clone() {
                let _ = earlier.to(&aside);
            }
            write.to(&aside)?
        } else {
            self.commit(write)?
        };
        self.pause().await;
        if self.happens(FAILS_ONE_IN) {
            return Err(StoreError::new("it is written, but that is not known"));
        }
        Ok(wrote)
    }

    fn commit(&self, write: Write) -> Result<Wrote, StoreError> {
        let mut disk = self.disk.lock().unwrap();
        if let Some(late) = disk.not_yet_done.take() {
            let _ = late.to(&disk.tables);
        }
        let mut done = write.clone();
        match (&write, self.plant) {
            (Write::Swap(_, record, _), Plant::AcknowledgesFirst) => {
                let now = disk.tables.load(record.id).now_or_never().expect("memory waits for nothing")?;
                if now.is_some_and(|now| now.revision + 1 == record.revision) {
                    disk.not_yet_done = Some(write);
                    return Ok(Wrote::Swapped(Swap::Swapped));
                }
            }
            (Write::Revoke(entry, _), Plant::RevocationIsForgotten) => return Ok(Wrote::Revoked(entry.clone())),
            (Write::Revoke(entry, _), Plant::RepetitionIsForgotten) if disk.failed.contains(&entry.target) => {
                return Ok(Wrote::Revoked(entry.clone()));
            }
            (Write::Swap(_, record, revocation), Plant::SwapsWithoutComparing) => {
                let now = disk.tables.load(record.id).now_or_never().expect("memory waits for nothing")?;
                let expected = now.map_or(0, |now| now.revision);
                let record = Session { revision: expected + 1, ..record.clone() };
                done = Write::Swap(expected, record, revocation.clone());
            }
            (Write::Swap(expected, record, revocation), Plant::ConfirmsByItself) => {
                done = Write::Swap(*expected, Session { confirmed: true, ..record.clone() }, revocation.clone());
            }
            _ => {}
        }
        let before = match &done {
            Write::Swap(_, record, _) => {
                disk.tables.load(record.id).now_or_never().expect("memory waits for nothing")?
            }
            Write::Insert(..) | Write::Revoke(..) | Write::Confirm(_) => None,
        };
        let wrote = done.clone().to(&disk.tables)?;
        if let (Write::Swap(_, record, revocation), Wrote::Swapped(Swap::Swapped), Some(before)) =
            (&done, &wrote, before)
        {
            self.commits.lock().unwrap().swapped(&before, record, revocation.as_ref());
        }
        disk.log.push(done);
        Ok(wrote)
    }
}

/// Ready at the second poll: a point where the process can die, or other requests can run first.
struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.read(|tables| tables.load(id).now_or_never().expect("memory waits for nothing")).await?
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        match self.write(Write::Insert(session, bound)).await? {
            Wrote::Inserted(inserted) => Ok(inserted),
            Wrote::Swapped(_) | Wrote::Revoked(_) | Wrote::Confirmed(_) => unreachable!(),
        }
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        match self.write(Write::Swap(expected, record, revocation)).await? {
            Wrote::Swapped(swap) => Ok(swap),
            Wrote::Inserted(_) | Wrote::Revoked(_) | Wrote::Confirmed(_) => unreachable!(),
        }
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        match self.write(Write::Revoke(entry, because)).await? {
            Wrote::Revoked(entry) => Ok(entry),
            Wrote::Inserted(_) | Wrote::Swapped(_) | Wrote::Confirmed(_) => unreachable!(),
        }
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        match self.write(Write::Confirm(seen)).await? {
            Wrote::Confirmed(marked) => Ok(marked),
            Wrote::Inserted(_) | Wrote::Swapped(_) | Wrote::Revoked(_) => unreachable!(),
        }
    }

    async fn revocations_since(&self, _: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        unreachable!("a starting process reads the tables")
    }

    async fn list(&self, _: Filter, _: Option<SessionId>, _: usize) -> Result<Page, StoreError> {
        unreachable!("nobody lists sessions here")
    }

    async fn sweep(&self, _: Timestamp) -> Result<Swept, StoreError> {
        unreachable!("nobody sweeps here")
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        unreachable!("a starting process reads the tables")
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
