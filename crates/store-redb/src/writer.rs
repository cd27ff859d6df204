//! The writer thread, which commits all queued operations in one transaction, and then replies.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::schema::{StoreHead, Writing, failed};
use super::{Options, open};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::counters::Commits;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::highwater::{self, HighWater, Mark};
use rotogate_core::store::rules::{Failure, Rules};

/// Callers wait while the queue is full.
pub(super) const QUEUE_LENGTH: usize = 4096;
/// A batch is limited to the queue's length, so that a steady stream cannot delay the commit.
const MAX_BATCH: usize = QUEUE_LENGTH;
/// After a failed write of the mark, the gate tries again after this number of commits.
const MARK_RETRY_COMMITS: u64 = 256;

/// The shortest and the longest pause before the file is reopened.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The interval between reports that the file cannot be reopened.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A queued operation with any result type.
pub(super) trait Job: Send {
    /// Runs the operation in the transaction. An error aborts the whole transaction.
    fn apply(&mut self, rules: &Rules, state: &mut Writing<'_>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), Arc<StoreError>>);
}

pub(super) struct QueuedOperation<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> QueuedOperation<F, T> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), outcome: None, reply }
    }
}

impl<F, T> Job for QueuedOperation<F, T>
where
    T: Send,
    F: FnOnce(&Rules, &mut Writing<'_>) -> Result<T, Failure> + Send,
{
    fn apply(&mut self, rules: &Rules, state: &mut Writing<'_>) -> Result<(), StoreError> {
        if let Some(work) = self.work.take() {
            self.outcome = Some(match work(rules, state) {
                Ok(value) => Ok(value),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Broken(error)) => return Err(error),
            });
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<StoreError>>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::new("the store did not execute this operation")),
            (Err(fault), _) => Err(not_written(fault)),
        };
        // The write is kept even if the caller no longer waits.
        let _ = self.reply.send(outcome);
    }
}

fn not_written(fault: Arc<StoreError>) -> StoreError {
    StoreError::caused_by(
        "the store failed, and whether this change was written is unknown until the store is reopened",
        fault,
    )
}

#[derive(Debug)]
pub(super) struct WriterShared {
    /// `None` while the file is being reopened, and after the close.
    pub(super) database: ArcSwapOption<Database>,
    closed: AtomicBool,
    pub(super) commits: Commits,
    /// The fault that prevents writes, and its time.
    fault: ArcSwapOption<(Arc<StoreError>, Duration)>,
    clock: SystemTime,
}

impl WriterShared {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self {
            database: ArcSwapOption::new(Some(database)),
            closed: AtomicBool::new(false),
            commits: Commits::default(),
            fault: ArcSwapOption::empty(),
            clock: SystemTime::new(),
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.database.store(None);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn fault(&self) -> Option<Arc<StoreError>> {
        self.fault.load().as_ref().map(|fault| Arc::clone(&fault.0))
    }

    pub(super) fn failed_for(&self) -> Option<Duration> {
        self.fault.load().as_ref().map(|fault| self.clock.monotonic().saturating_sub(fault.1))
    }

    fn fail(&self, error: Arc<StoreError>) {
        self.fault.store(Some(Arc::new((error, self.clock.monotonic()))));
    }

    /// Sets the database for readers, unless the store is closed.
    fn read_from(&self, database: Option<Arc<Database>>) {
        self.database.store(database);
        if self.is_closed() {
            self.database.store(None);
        }
    }
}

pub(super) struct MarkSchedule {
    file: HighWater,
    written: u64,
    /// The sequence number at which the mark is written again.
    pub(super) next: u64,
}

impl MarkSchedule {
    pub(super) fn new(file: HighWater, written: u64) -> Self {
        Self { file, written, next: written.saturating_add(highwater::COMMITS_PER_MARK) }
    }

    pub(super) fn write(&mut self, head: StoreHead) -> Result<(), StoreError> {
        if head.sequence == self.written {
            return Ok(());
        }
        let result = self.file.write(Mark { store: head.store, sequence: head.sequence });
        match result {
            Ok(()) => {
                self.written = head.sequence;
                self.next = head.sequence.saturating_add(highwater::COMMITS_PER_MARK);
            }
            Err(_) => self.next = head.sequence.saturating_add(MARK_RETRY_COMMITS),
        }
        result
    }
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    /// `None` while the file cannot be reopened.
    pub(super) database: Option<Arc<Database>>,
    pub(super) queue: mpsc::Receiver<Box<dyn Job>>,
    pub(super) rules: Rules,
    pub(super) head: StoreHead,
    pub(super) shared: Arc<WriterShared>,
    pub(super) marker: Option<MarkSchedule>,
    /// `Some` while the store cannot be written.
    pub(super) trouble: Option<ReopenSchedule>,
    pub(super) reports: Reports,
}

pub(super) struct ReopenSchedule {
    wait: Duration,
    due: Duration,
    has_view: bool,
}

impl ReopenSchedule {
    fn begin(now: Duration) -> Self {
        Self { wait: FIRST_RETRY, due: now + FIRST_RETRY, has_view: false }
    }

    fn postpone(&mut self, now: Duration) {
        self.wait = (self.wait * 2).min(LAST_RETRY);
        self.due = now + self.wait;
    }
}

/// Limits failure messages to one per minute.
#[derive(Default)]
pub(super) struct Reports {
    last: Option<Duration>,
    is_told: bool,
}

impl Reports {
    /// Returns whether to report a failure now, and records the report.
    fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_sub(last) >= REPORT_INTERVAL);
        if is_due {
            *self = Self { last: Some(now), is_told: true };
        }
        is_due
    }

    /// Ends the failure. Returns whether to report the recovery.
    fn end(&mut self) -> bool {
        std::mem::take(&mut self.is_told)
    }
}

impl Writer {
    /// Runs until all handles are dropped and the queue is empty. Finally writes the mark and closes the file.
    pub(super) fn run(mut self, closed: oneshot::Sender<Result<(), StoreError>>) {
        let mut batch = Vec::new();
        while let Some(first) = self.next() {
            batch.push(first);
            while batch.len() < MAX_BATCH
                && let Ok(next) = self.queue.try_recv()
            {
                batch.push(next);
            }
            self.batch(std::mem::take(&mut batch));
        }
        let Self { database, head, marker, .. } = self;
        let marked = marker.map_or(Ok(()), |mut marker| marker.write(head));
        // Usually this drops the last reference, which closes the file before the reply.
        drop(database);
        let _ = closed.send(marked);
    }

    /// Returns the next operation, or `None` if the queue is closed. After a failure, also tries to reopen the file.
    fn next(&mut self) -> Option<Box<dyn Job>> {
        loop {
            let Some(trouble) = &self.trouble else { return self.queue.blocking_recv() };
            if trouble.due <= self.shared.clock.monotonic() {
                self.reopen();
                continue;
            }
            match self.queue.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(CHECK_INTERVAL),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
            }
        }
    }

    fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let result = match self.shared.fault() {
            // After a failed write, memory and disk may differ until the file is reopened.
            Some(fault) => Err(fault),
            None => self.transact(&mut jobs).map_err(|error| {
                self.shared.commits.add(Duration::ZERO, false);
                let now = self.shared.clock.monotonic();
                if self.reports.is_due(now) {
                    tracing::error!(
                        %error,
                        "store failed, so the gate does not write until it can reopen the store, which it tries \
                         repeatedly. Check that the disk is neither full nor read-only"
                    );
                }
                let error = Arc::new(error);
                self.shared.fail(Arc::clone(&error));
                self.trouble = Some(ReopenSchedule::begin(now));
                error
            }),
        };
        // The mark is written before the replies. Otherwise the gate could accept an older copy of the store that lacks
        // an acknowledged revocation of an API key.
        if let Some(marker) = &mut self.marker
            && self.head.sequence >= marker.next
            && let Err(error) = marker.write(self.head)
        {
            tracing::error!(
                %error,
                "high-water mark could not be written, so the gate would not notice if an older copy replaced the \
                 store. Check that the folder of the mark is writable"
            );
        }
        for job in jobs {
            job.answer(result.clone());
        }
    }

    fn reopen(&mut self) {
        let opened = self.opened_again();
        let now = self.shared.clock.monotonic();
        match opened {
            Ok(()) => {
                self.trouble = None;
                let failed_for = self.shared.failed_for().unwrap_or_default();
                let failed_for = humantime::format_duration(Duration::from_secs(failed_for.as_secs()));
                self.shared.fault.store(None);
                if self.reports.end() {
                    tracing::info!(store = %self.path.display(), %failed_for, "store reopened: writes work again");
                }
            }
            Err(error) => {
                self.keep_reading();
                let Some(trouble) = &mut self.trouble else { return };
                trouble.postpone(now);
                if self.reports.is_due(now) {
                    tracing::error!(
                        %error,
                        "store still cannot be written. Check that the disk is neither full nor read-only"
                    );
                }
            }
        }
    }

    fn opened_again(&mut self) -> Result<(), StoreError> {
        open::has_room(&self.path)?;
        if let Some(trouble) = &mut self.trouble {
            trouble.has_view = false;
        }
        self.let_go();
        let opened = open::again(&self.path, &self.options, self.head)?;
        let database = Arc::new(opened.database);
        self.head = opened.head;
        self.marker = opened.marker;
        self.database = Some(Arc::clone(&database));
        self.shared.read_from(Some(database));
        Ok(())
    }

    /// The file is locked while the database is open.
    fn let_go(&mut self) {
        self.shared.read_from(None);
        self.database = None;
    }

    /// Opens another database for readers, because the failed one can only read pages that are in memory.
    fn keep_reading(&mut self) {
        let Some(trouble) = &mut self.trouble else { return };
        if trouble.has_view {
            return;
        }
        trouble.has_view = true;
        self.let_go();
        match open::view(&self.path, self.options.cache_size) {
            Ok(database) => {
                let database = Arc::new(database);
                self.database = Some(Arc::clone(&database));
                self.shared.read_from(Some(database));
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "store cannot be read either. If its file is missing or damaged, stop the gate and restore a \
                     back-up with `rotogate store restore FILE`"
                );
                if let Some(trouble) = &mut self.trouble {
                    trouble.has_view = false;
                }
            }
        }
    }

    /// Executes and commits the jobs. With the failpoint `ack-before-commit`, the reply precedes the commit.
    fn transact(&mut self, jobs: &mut Vec<Box<dyn Job>>) -> Result<(), StoreError> {
        let database = self.database.as_ref().ok_or_else(super::being_opened)?;
        let mut transaction = database.begin_write().map_err(failed)?;
        // A commit takes one sync. A checksum detects torn transactions. To forge the checksum, an attacker would have
        // to choose the row keys.
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        let Some((head, ends_keys)) = Self::decide(&self.rules, self.head, &transaction, jobs)? else {
            return transaction.abort().map_err(failed);
        };
        #[cfg(feature = "failpoints")]
        if rotogate_core::failpoint::ack_before_commit() {
            jobs.drain(..).for_each(|job| job.answer(Ok(())));
            rotogate_core::failpoint::pause();
        }
        let begun = self.shared.clock.monotonic();
        transaction.commit().map_err(failed)?;
        #[cfg(feature = "failpoints")]
        rotogate_core::failpoint::after_commit();
        self.head = head;
        if let Some(marker) = self.marker.as_mut().filter(|_| ends_keys) {
            marker.next = head.sequence;
        }
        self.shared.commits.add(self.shared.clock.monotonic().saturating_sub(begun), true);
        Ok(())
    }

    fn decide(
        rules: &Rules,
        head: StoreHead,
        transaction: &WriteTransaction,
        jobs: &mut [Box<dyn Job>],
    ) -> Result<Option<(StoreHead, bool)>, StoreError> {
        let mut state = Writing::open(transaction, head).map_err(failed)?;
        for job in jobs {
            job.apply(rules, &mut state)?;
        }
        let ends_keys = state.ends_keys;
        Ok(state.finish()?.map(|head| (head, ends_keys)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p59_a_failed_store_is_tried_twice_a_minute_at_least_and_reported_once_a_minute_at_most() {
        let mut reports = Reports::default();
        let mut said = Vec::new();
        let mut now = Duration::from_secs(7);
        // The file cannot be reopened for an hour.
        assert!(reports.is_due(now));
        said.push(now);
        let mut schedule = ReopenSchedule::begin(now);
        while now < Duration::from_secs(3600) {
            assert!(schedule.due > now && schedule.due - now <= Duration::from_secs(30), "{now:?}");
            now = schedule.due;
            schedule.postpone(now);
            if reports.is_due(now) {
                said.push(now);
            }
        }
        assert!(reports.end() && !reports.end());
        assert!(said.len() >= 59, "{said:?}");
        // For an hour, the store alternates between failure and recovery.
        let before = said.len();
        let mut ends = 0;
        for second in 3600..7200 {
            if reports.is_due(Duration::from_secs(second)) {
                said.push(Duration::from_secs(second));
            }
            ends += usize::from(reports.end());
        }
        assert_eq!(ends, said.len() - before, "each reported failure has a reported end");
        assert!(said.is_sorted_by(|one, next| *next - *one >= Duration::from_secs(60)), "{said:?}");
    }
}
