//! Buffered log output. Each output has a writer thread. Requests never wait for output. Lines that do not fit into a
//! buffer are dropped and counted.
//!
//! Each worker has its own buffer for access lines, which avoids locks. Application lines share a buffer.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use rotogate_config::{LogOutput, OnAuditFailure};
use rotogate_core::private_file;
use rotogate_kit::worker_id::WorkerId;

mod thread;

use thread::Writer;

/// A buffer of this size is written immediately. The size is large, because waking the writer thread is expensive.
const CHUNK_BYTES: usize = 256 * 1024;
/// The maximum size of the buffer for application lines, in bytes. Important lines may also use the reserve.
const APPLICATION_BYTES: usize = 192 * 1024;
const RESERVE_BYTES: usize = 64 * 1024;

/// True while a required audit log cannot be written.
pub(super) static AUDIT_IS_FAILING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
pub(crate) struct Sink {
    output: LogOutput,
    workers: Box<[Mutex<Buffer>]>,
    /// The maximum size of each buffer, in bytes.
    share: AtomicUsize,
    application: Mutex<Buffer>,
    /// The flush interval, in milliseconds.
    interval: AtomicU64,
    /// Set when no configured log uses this output any more.
    is_retired: AtomicBool,
    /// Whether the audit log uses this output.
    is_audit: AtomicBool,
    pending: AtomicBool,
    urgent: AtomicBool,
    reopen: AtomicBool,
    writer: Mutex<Option<Thread>>,
    asked: AtomicU64,
    done: Mutex<u64>,
    is_done: Condvar,
    keeps_lines: AtomicBool,
    app: WriterCounts,
    access: WriterCounts,
}

#[derive(Debug, Default)]
pub(crate) struct WriterCounts {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Sink {
    /// Opens an output and starts its thread. The `workers` threads have `buffer` bytes in total for access lines.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(output: LogOutput, workers: usize, buffer: usize, interval: Duration) -> io::Result<Arc<Self>> {
        let file = open(&output)?;
        let workers = WorkerId::per_worker(workers, Mutex::default);
        let sink = Arc::new(Self {
            output,
            workers,
            share: AtomicUsize::new(0),
            application: Mutex::default(),
            interval: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
            is_audit: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            writer: Mutex::new(None),
            asked: AtomicU64::new(0),
            done: Mutex::new(0),
            is_done: Condvar::new(),
            keeps_lines: AtomicBool::new(false),
            app: WriterCounts::default(),
            access: WriterCounts::default(),
        });
        sink.set(buffer, interval);
        let writer = Writer::new(Arc::clone(&sink), file);
        let thread = std::thread::Builder::new().name("rotogate-log".to_owned()).spawn(move || writer.run())?;
        *sink.writer.lock() = Some(thread.thread().clone());
        Ok(sink)
    }

    pub(super) fn output(&self) -> &LogOutput {
        &self.output
    }

    pub(super) fn set(&self, buffer: usize, interval: Duration) {
        // The buffer has two halves: one is written while the other fills.
        self.share.store((buffer / 2 / self.workers.len()).max(16 * 1024), Ordering::Relaxed);
        self.interval.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.is_retired.store(false, Ordering::Relaxed);
        self.is_audit.store(false, Ordering::Relaxed);
        self.keeps_lines.store(false, Ordering::Relaxed);
    }

    /// Closes the file. A later line opens the file again.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
        self.hurry();
    }

    pub(super) fn set_audit(&self, on_failure: OnAuditFailure) {
        self.is_audit.store(true, Ordering::Relaxed);
        self.keeps_lines.store(on_failure == OnAuditFailure::Refuse, Ordering::Relaxed);
    }

    pub(super) fn is_audit(&self) -> bool {
        self.is_audit.load(Ordering::Relaxed)
    }

    pub(crate) fn app_counts(&self) -> &WriterCounts {
        &self.app
    }

    pub(crate) fn access_counts(&self) -> &WriterCounts {
        &self.access
    }

    fn keeps_lines(&self) -> bool {
        self.keeps_lines.load(Ordering::Relaxed)
    }

    fn set_failing(&self, is_failing: bool) {
        if self.keeps_lines() && !self.is_retired.load(Ordering::Relaxed) {
            AUDIT_IS_FAILING.store(is_failing, Ordering::SeqCst);
        }
    }

    fn dropped(&self) -> u64 {
        self.app.dropped.load(Ordering::Relaxed) + self.access.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn access(&self, line: &[u8]) {
        let Some(buffer_of_worker) = WorkerId::current(&self.workers) else { return };
        let (was_empty, is_large) = {
            let share = self.share.load(Ordering::Relaxed);
            let mut buffer = buffer_of_worker.lock();
            if buffer.bytes.len() + line.len() > share {
                // The line is counted here, because a blocked writer cannot count it (requirement O32).
                self.access.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let was_empty = buffer.bytes.is_empty();
            let before = buffer.bytes.len();
            buffer.bytes.extend_from_slice(line);
            buffer.lines += 1;
            let mark = CHUNK_BYTES.min(share / 2);
            (was_empty, before < mark && buffer.bytes.len() >= mark)
        };
        if is_large {
            self.hurry();
        } else if was_empty {
            self.wake();
        }
    }

    /// Adds an application line. Important lines may use the reserve.
    pub(super) fn application(&self, line: &[u8], is_important: bool) {
        {
            let most = if is_important { APPLICATION_BYTES + RESERVE_BYTES } else { APPLICATION_BYTES };
            let mut buffer = self.application.lock();
            if buffer.bytes.len() + line.len() > most {
                self.app.dropped.fetch_add(1, Ordering::Relaxed);
                self.set_failing(true);
                return;
            }
            buffer.bytes.extend_from_slice(line);
            buffer.lines += 1;
        }
        self.hurry();
    }

    /// Returns whether there are lines to write, or requests to the writer.
    fn has_work(&self) -> bool {
        let mut buffers = self.workers.iter().chain([&self.application]);
        self.urgent.load(Ordering::Acquire) || buffers.any(|buffer| !buffer.lock().bytes.is_empty())
    }

    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.unpark();
        }
    }

    fn hurry(&self) {
        self.pending.store(true, Ordering::Release);
        if !self.urgent.swap(true, Ordering::AcqRel) {
            self.unpark();
        }
    }

    fn unpark(&self) {
        // The writer does not hold this lock while it writes.
        if let Some(thread) = &*self.writer.lock() {
            thread.unpark();
        }
    }

    /// Reopens the file. Earlier lines are still written to the old file.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.hurry();
    }

    /// Waits up to `at_most` until all earlier lines are written.
    pub(super) fn flush(&self, at_most: Duration) {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.hurry();
        let mut done = self.done.lock();
        let _ = self.is_done.wait_while_for(&mut done, |done| *done < asked, at_most);
    }
}

fn open(output: &LogOutput) -> io::Result<File> {
    match output {
        LogOutput::Stderr => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        LogOutput::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogOutput::File(path) => private_file::open_to_append(path, 0o640),
    }
}

#[cfg(test)]
mod tests;
