//! The embedded store: one redb file, used by one process.
//!
//! **Writing.** One thread puts all queued operations into one transaction, syncs the transaction, and then replies. An
//! `Ok` is therefore durable. After a failed commit, nothing is written until the writer has reopened the file. Reads
//! continue. Revocations that a failed store did not accept are kept in `<path>.owed`.
//!
//! **Opening.** A file is refused if it is damaged, unknown, in use, accessible to other users, or written with another
//! keyring. A refused file is not changed. Checksums are verified up to [`Options::check_up_to`] bytes, or after a
//! crash. A store older than its high-water mark needs the operator's consent.
//!
//! ```
//! # fn example(keyring: &rotogate::token::Keyring) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use rotogate::store::RedbStore;
//! use rotogate::store::RedbOptions;
//!
//! let options = RedbOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
//! let store = RedbStore::open("data/rotogate.redb", options.high_water("data/keys/high-water"))?;
//! let builder = rotogate::Gate::builder().store(store);
//! # let _ = builder;
//! # Ok(()) }
//! ```

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};

use rotogate_core::clock::Timestamp;
use rotogate_core::counters::CountedCommits;
use rotogate_core::revocation::{Revocation, RevocationList};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::kit::encoding::{decode, decode_session};
use rotogate_core::store::owed::OwedFile;
use rotogate_core::store::rules::{Failure, Rules};
use rotogate_core::store::{
    Cursor, Filter, Inserted, Page, Store, StoreError, SubjectBound, Swap, Swept, WriteOutcome,
};
#[cfg(feature = "test-util")]
pub use schema::records_read_back_the_same;
use schema::{
    BY_SUBJECT, FIRST_ID, HEAD_ROW, LAST_ID, LOG, REVOCATIONS, SESSIONS, StoreHead, Writing, decode_revocation, failed,
};
use writer::{Job, QueuedOperation, Writer, WriterShared};

mod backup;
mod copy;
mod load;
mod open;
mod options;
mod rows;
mod schema;
mod staged;
mod writer;

#[cfg(test)]
mod tests;

pub use options::Options;
pub use options::{DEFAULT_CACHE_SIZE, DEFAULT_CHECK_UP_TO};

/// Limited, so that other tasks can run between steps.
const REVOCATIONS_PER_READ: usize = 2048;
/// Limited, so that other tasks can run between steps.
const CONFIRMATIONS_PER_WRITE: usize = 256;

/// A handle to the store. Clones share the store. Dropping the last handle closes the store.
///
/// ```
/// use rotogate::store::RedbStore;
/// use rotogate::store::RedbOptions;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let (folder, keyring) = (tempfile::tempdir()?, rotogate::token::Keyring::ephemeral()?);
/// # let (file, copy) = (folder.path().join("rotogate.redb"), folder.path().join("copy.redb"));
/// # let options = RedbOptions::new("https://api.example.com", keyring.id(), rotogate::Gate::DEFAULT_LEEWAY);
/// let store = RedbStore::open(&file, options)?;
/// let builder = rotogate::Gate::builder().store(store.clone());
/// # let _ = builder;
/// store.backup_to(&copy).await?; // while the gate serves
/// store.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<RedbInner>,
}

struct RedbInner {
    path: PathBuf,
    owed: Option<Arc<OwedFile>>,
    /// `None` after the store is closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    shared: Arc<WriterShared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    closed: Mutex<Option<oneshot::Receiver<Result<(), StoreError>>>>,
    #[cfg(test)]
    backend: staged::StagedFile,
}

/// Checks that the mark is readable, and that the store named in the mark exists.
pub fn check_mark(mark: &Path, store: &Path, is_there: bool) -> Result<(), StoreError> {
    let file = rotogate_core::store::kit::highwater::HighWater::at(mark.to_owned());
    let known = file.read()?;
    if is_there {
        return Ok(());
    }
    let alarm = file.alarm(rotogate_core::store::kit::highwater::MarkVerdict::compare(known, None), known, store);
    alarm.map_or(Ok(()), |alarm| Err(StoreError::new(alarm)))
}

impl RedbStore {
    /// Opens or creates the store at `path`. The file (0600) and a new directory (0700) are private. This function
    /// blocks, because it reads a large file completely after an unclean close.
    ///
    /// # Errors
    /// The error text names the problem, the file and the remedy.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let opened = open::open(path, &options)?;
        let owed = options.copying.is_none().then(|| OwedFile::beside(path).map(Arc::new)).transpose()?;
        let database = Arc::new(opened.database);
        let shared = Arc::new(WriterShared::new(Arc::clone(&database)));
        let (sender, queue) = mpsc::channel(writer::QUEUE_LENGTH);
        let (done, closed) = oneshot::channel();
        let writer = Writer {
            path: path.to_owned(),
            database: Some(database),
            queue,
            rules: Rules::new(Arc::clone(&options.issuer), options.leeway),
            options,
            head: opened.head,
            shared: Arc::clone(&shared),
            marker: opened.marker,
            trouble: None,
            reports: writer::Reports::default(),
        };
        let writer = std::thread::Builder::new()
            .name("rotogate-store".to_owned())
            .spawn(move || writer.run(done))
            .map_err(|error| StoreError::caused_by("the thread of the store cannot be started", error))?;
        Ok(Self {
            inner: Arc::new(RedbInner {
                path: path.to_owned(),
                owed,
                queue: Mutex::new(Some(sender)),
                shared,
                writer: Mutex::new(Some(writer)),
                closed: Mutex::new(Some(closed)),
                #[cfg(test)]
                backend: opened.backend,
            }),
        })
    }

    /// Finishes the queued operations and closes the file. Later operations fail. Dropping the last handle has the same
    /// effect, and blocks until the file is closed.
    ///
    /// # Errors
    /// The mark could not be written, or the writer had stopped.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.shut();
        let closed = self.inner.closed.lock().take();
        match closed {
            Some(closed) => closed.await.map_err(|_| stopped())?,
            None => Ok(()),
        }
    }

    /// Returns the path of the store's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the number of commits since the store was opened.
    pub fn commits(&self) -> u64 {
        self.inner.shared.commits.counted().done.buckets.iter().sum()
    }

    /// Copies the present state into a new file at `path` (0600). Reads and writes continue in the meantime.
    ///
    /// # Errors
    /// A file exists at `path`, its folder is missing, or the file cannot be written.
    pub async fn backup_to(&self, path: impl AsRef<Path>) -> Result<(), StoreError> {
        let database = self.database()?;
        let path = path.as_ref().to_owned();
        let copy = move |database: &Database| {
            let read = database.begin_read().map_err(failed)?;
            backup::copy(&read, &path)
        };
        on_thread("rotogate-backup", "the backup", database, copy).await
    }

    /// Verifies an unused store in full, and copies the store without changing it. This function blocks.
    ///
    /// # Errors
    /// A gate uses the store, the store is damaged, or the copy cannot be written (see [`Self::backup_to`]).
    pub fn backup_file(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), StoreError> {
        backup::copy_file(from.as_ref(), to.as_ref())
    }

    /// Queues an operation, and waits until its effect is durable.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Rules, &mut Writing<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queue = self.inner.queue.lock().clone().ok_or_else(closed)?;
        queue.send(Box::new(QueuedOperation::new(work, reply))).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let shared = &self.inner.shared;
        shared.database.load_full().ok_or_else(|| if shared.is_closed() { closed() } else { being_opened() })
    }

    fn head(&self) -> Result<StoreHead, StoreError> {
        let row = schema::meta_row(&*self.database()?, HEAD_ROW)?;
        decode(
            "the head of the store",
            &row.ok_or_else(|| StoreError::new("the store is damaged: its main record is missing"))?,
        )
    }

    /// Returns the entries after a position, and the last position that was read.
    fn revocations_step(&self, after: u64) -> Result<(Vec<Revocation>, u64), StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let log = read.open_table(LOG).map_err(failed)?;
        let revocations = read.open_table(REVOCATIONS).map_err(failed)?;
        let mut entries = Vec::new();
        let mut end = after;
        let places = (Bound::Excluded(after), Bound::Unbounded);
        for row in log.range::<u64>(places).map_err(failed)?.take(REVOCATIONS_PER_READ) {
            let (place, target) = row.map_err(failed)?;
            let missing = || StoreError::new("the store is damaged: a revocation in its log is missing");
            let entry = revocations.get(target.value()).map_err(failed)?.ok_or_else(missing)?;
            entries.push(decode_revocation(target.value(), entry.value())?.1);
            end = place.value();
        }
        Ok((entries, end))
    }
}

impl RedbInner {
    fn shut(&self) {
        self.shared.close();
        *self.queue.lock() = None;
    }
}

impl Drop for RedbInner {
    fn drop(&mut self) {
        self.shut();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!(
                store = %self.path.display(),
                "the writer thread of the store panicked: a bug in rotogate. Report this line and the panic before it"
            );
        }
    }
}

rotogate_core::debug_with!(RedbStore { inner.path });

/// Runs `work` in a thread, which drops the database before it replies. Otherwise the database could still be open
/// after a close. `what` names the work in errors.
async fn on_thread<T: Send + 'static>(
    name: &str,
    what: &str,
    database: Arc<Database>,
    work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let done = work(&database);
            drop(database);
            let _ = reply.send(done);
        })
        .map_err(|error| StoreError::caused_by(format!("the thread for {what} cannot be started"), error))?;
    answer.await.map_err(|_| StoreError::new(format!("{what} was aborted")))?
}

fn closed() -> StoreError {
    StoreError::new("the store is closed").with_outcome(WriteOutcome::NotDone)
}

fn being_opened() -> StoreError {
    StoreError::new("the store is being reopened").with_outcome(WriteOutcome::NotDone)
}

fn stopped() -> StoreError {
    StoreError::new("the writer of the store has stopped: restart the gate").with_outcome(WriteOutcome::NotDone)
}

/// Counts the successful and failed commits since the store was opened.
pub fn counted_commits(store: &RedbStore) -> CountedCommits {
    store.inner.shared.commits.counted()
}

/// Returns the number of operations that wait for a commit.
pub fn queued_commits(store: &RedbStore) -> usize {
    store.inner.queue.lock().as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
}

#[async_trait]
impl Store for RedbStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let sessions = read.open_table(SESSIONS).map_err(failed)?;
        let row = sessions.get(id.as_bytes()).map_err(failed)?;
        row.map(|row| decode_session(id.as_bytes(), row.value())).transpose()
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.write(move |rules, state| rules.insert(state, &session, bound)).await
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.write(move |rules, state| rules.compare_and_swap(state, expected, &record, revocation.as_ref())).await
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.write(move |rules, state| rules.revoke(state, entry, because)).await
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        // Each step is a separate transaction. A changed entry moves to the log's end, where a later step finds it.
        let (mut entries, mut end) = self.revocations_step(cursor.place()?)?;
        let mut step = entries.len();
        while step == REVOCATIONS_PER_READ {
            tokio::task::yield_now().await;
            let (more, place) = self.revocations_step(end)?;
            step = more.len();
            entries.extend(more);
            end = place;
        }
        Ok((entries, Cursor::from_place(end)))
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        on_thread("rotogate-load", "reading the revocations", self.database()?, load::all).await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        // The confirmations are independent, so several transactions can apply them.
        let (mut rest, mut marked) = (seen.as_slice(), Vec::new());
        loop {
            let (step, more) = rest.split_at(rest.len().min(CONFIRMATIONS_PER_WRITE));
            let step = step.to_vec();
            marked.extend(self.write(move |rules, state| rules.confirm(state, &step)).await?);
            if more.is_empty() {
                return Ok(marked);
            }
            rest = more;
        }
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let limit = Rules::page_size(limit);
        let read = self.database()?.begin_read().map_err(failed)?;
        let table = read.open_table(SESSIONS).map_err(failed)?;
        let after = after.map(|id| *id.as_bytes());
        let mut sessions = Vec::new();
        // An undecodable record is omitted.
        let list = |sessions: &mut Vec<Session>, id: &schema::Id, record: &[u8]| match decode_session(id, record) {
            Ok(session) => sessions.push(session),
            Err(error) => tracing::error!(
                session = %SessionId::from_bytes(*id),
                %error,
                "session not listed, because its record cannot be read. If `error` names another version of \
                 rotogate, start that version; otherwise run `rotogate session revoke ID`"
            ),
        };
        match &filter {
            Filter::All => {
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                for row in table.range::<&schema::Id>((from, Bound::Unbounded)).map_err(failed)? {
                    let (id, record) = row.map_err(failed)?;
                    list(&mut sessions, id.value(), record.value());
                    if sessions.len() > limit {
                        break;
                    }
                }
            }
            Filter::Subject(subject) => {
                let index = read.open_table(BY_SUBJECT).map_err(failed)?;
                let from = match &after {
                    Some(id) => Bound::Excluded((&**subject, id)),
                    None => Bound::Included((&**subject, &FIRST_ID)),
                };
                let to = Bound::Included((&**subject, &LAST_ID));
                for row in index.range::<(&str, &schema::Id)>((from, to)).map_err(failed)? {
                    let (key, _) = row.map_err(failed)?;
                    let (_, id) = key.value();
                    // When an undecodable record is removed, its row in the index remains.
                    if let Some(record) = table.get(id).map_err(failed)? {
                        list(&mut sessions, id, record.value());
                    }
                    if sessions.len() > limit {
                        break;
                    }
                }
            }
        }
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        Ok(Page { next: sessions.last().map(|s| s.id).filter(|_| more), sessions })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            // Each step is queued separately, so that other operations can run in between.
            let step = self.write(move |rules, state| rules.sweep_step(state, now)).await?;
            if step == Swept::default() {
                return Ok(total);
            }
            total.sessions += step.sessions;
            total.revocations += step.revocations;
        }
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.head()?.last_known_time)
    }

    fn owed_file(&self) -> Option<&Arc<OwedFile>> {
        self.inner.owed.as_ref()
    }

    async fn check(&self) -> Result<(), StoreError> {
        if let Some(fault) = self.inner.shared.fault() {
            let message = format!("{fault}; the store is reopened as soon as it can be written");
            return Err(StoreError::caused_by(message, fault));
        }
        match &*self.inner.queue.lock() {
            Some(queue) if !queue.is_closed() => Ok(()),
            Some(_) => Err(stopped()),
            None => Err(closed()),
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.check().await?;
        let touch = |_: &Rules, state: &mut Writing<'_>| {
            state.touch();
            Ok(())
        };
        let written = self.write(touch).await;
        if written.is_err() {
            // The recorded fault of the store names the cause.
            self.check().await?;
        }
        written
    }
}
