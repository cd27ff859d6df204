//! The one writer: a thread that takes all that is queued into one transaction, commits it durably, and answers only then.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::super::StoreError;
use super::super::highwater::{self, HighWater, Mark};
use super::super::rules::{Failure, Rules};
use super::schema::{Head, Writing};

/// How many operations may wait. Who finds the queue full waits for a place in it.
pub(super) const QUEUE: usize = 4096;
/// The most operations of one transaction: all that may wait, so that a steady stream cannot put off its commit.
const BATCH: usize = QUEUE;
/// After how many commits a mark that could not be written is tried again.
const MARK_RETRY: u64 = 256;

/// An operation in the queue, whatever it gives back.
pub(super) trait Job: Send {
    /// Does it, inside the transaction. An error is the store's: the whole transaction is given up.
    fn apply(&mut self, rules: &Rules, state: &mut Writing<'_>) -> Result<(), StoreError>;
    /// Tells who waits: what it came to, or why the transaction failed.
    fn answer(self: Box<Self>, committed: Result<(), Arc<StoreError>>);
}

/// An operation and who waits for it.
pub(super) struct Call<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Call<F, T> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), outcome: None, reply }
    }
}

impl<F, T> Job for Call<F, T>
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
            (Ok(()), None) => Err(StoreError::new("the store did not come to this operation")),
            (Err(fault), _) => Err(not_written(fault)),
        };
        // Whoever asked may have gone away; what was written stays.
        let _ = self.reply.send(outcome);
    }
}

fn not_written(fault: Arc<StoreError>) -> StoreError {
    StoreError::caused_by("the store failed, and whether this was written is not known until it is opened again", fault)
}

/// What the handles of a store share with its writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Commits since the store was opened.
    pub(super) commits: AtomicU64,
    /// Why nothing can be written any more.
    pub(super) fault: OnceLock<Arc<StoreError>>,
}

/// The mark and when to write it next.
pub(super) struct Marker {
    file: HighWater,
    /// The sequence that it was last written with.
    written: u64,
    /// The sequence to write it at.
    pub(super) next: u64,
}

impl Marker {
    pub(super) fn new(file: HighWater, written: u64) -> Self {
        Self { file, written, next: written.saturating_add(highwater::EVERY) }
    }

    pub(super) fn write(&mut self, head: Head) -> Result<(), StoreError> {
        if head.sequence == self.written {
            return Ok(());
        }
        let result = self.file.write(Mark { store: head.store, sequence: head.sequence });
        match result {
            Ok(()) => {
                self.written = head.sequence;
                self.next = head.sequence.saturating_add(highwater::EVERY);
            }
            Err(_) => self.next = head.sequence.saturating_add(MARK_RETRY),
        }
        result
    }
}

pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) queue: mpsc::Receiver<Box<dyn Job>>,
    pub(super) rules: Rules,
    /// As of the last commit.
    pub(super) head: Head,
    pub(super) shared: Arc<Shared>,
    pub(super) marker: Option<Marker>,
}

impl Writer {
    /// Works until every handle is gone and the queue is empty; then writes the mark, closes the file and says so.
    pub(super) fn run(mut self, closed: oneshot::Sender<Result<(), StoreError>>) {
        let mut batch = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH
                && let Ok(next) = self.queue.try_recv()
            {
                batch.push(next);
            }
            self.batch(std::mem::take(&mut batch));
            if let Some(marker) = &mut self.marker
                && self.head.sequence >= marker.next
                && let Err(error) = marker.write(self.head)
            {
                tracing::error!(%error, "an older store put in the place of this one would not be noticed");
            }
        }
        let Self { database, head, marker, .. } = self;
        let marked = marker.map_or(Ok(()), |mut marker| marker.write(head));
        // Usually the last reference, so the file is closed and unlocked when the answer goes out.
        drop(database);
        let _ = closed.send(marked);
    }

    fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let result = match self.shared.fault.get() {
            // Once a write has failed, memory and disk may differ. Only opening the file again tells.
            Some(fault) => Err(Arc::clone(fault)),
            None => self.transact(&mut jobs).map_err(|error| {
                tracing::error!(%error, "the store failed: nothing is written until it is opened again");
                Arc::clone(self.shared.fault.get_or_init(|| Arc::new(error)))
            }),
        };
        for job in jobs {
            job.answer(result.clone());
        }
    }

    /// Decides and commits. With the failpoint `ack-before-commit`, the jobs are gone afterwards: answered too early.
    fn transact(&mut self, jobs: &mut Vec<Box<dyn Job>>) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        // One sync a commit. A transaction torn by a crash is told by its checksum, which is not cryptographic; but to
        // forge one takes control of every byte of the pages, and each holds keys that an attacker does not choose.
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        let Some(head) = Self::decide(&self.rules, self.head, &transaction, jobs)? else {
            return transaction.abort().map_err(failed);
        };
        #[cfg(feature = "failpoints")]
        if crate::failpoint::ack_before_commit() {
            jobs.drain(..).for_each(|job| job.answer(Ok(())));
            crate::failpoint::pause();
        }
        transaction.commit().map_err(failed)?;
        #[cfg(feature = "failpoints")]
        crate::failpoint::after_commit();
        self.head = head;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn decide(
        rules: &Rules,
        head: Head,
        transaction: &WriteTransaction,
        jobs: &mut [Box<dyn Job>],
    ) -> Result<Option<Head>, StoreError> {
        let mut state = Writing::open(transaction, head).map_err(failed)?;
        for job in jobs {
            job.apply(rules, &mut state)?;
        }
        Ok(state.finish()?)
    }
}

/// A redb error, for the operator.
pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    StoreError::caused_by(format!("the store cannot be read or written: {error}"), error)
}
