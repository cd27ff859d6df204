//! Writes log lines to their outputs. A thread that logs appends to a buffer in memory and continues; one thread for
//! each output writes the buffers. A request never waits for an output: beyond the bound, lines are dropped and
//! counted.
//!
//! Access lines have a buffer for each worker thread, so that no thread waits for another. Application lines share one
//! buffer: they are few.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::settings::{LogOutput, OnAuditFailure};
use crate::worker_id::WorkerId;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::private_file;

/// A buffer of this size is written at once; a smaller one after the flush interval. To wake the writer costs a worker more
/// than a hundred lines do, so the size is what half of the default `buffer` allows.
const CHUNK_BYTES: usize = 256 * 1024;
/// The bound on buffered application lines, and the reserve for errors, warnings and audit events.
const APPLICATION_BYTES: usize = 192 * 1024;
const RESERVE_BYTES: usize = 64 * 1024;
/// How often dropped lines are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before a retry when an output would block.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// The pause before lines that could not be written are tried again, where they are kept.
const KEPT_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The bound on lines that are kept.
const MAX_KEPT_BYTES: usize = 1 << 20;
/// A file whose lines must be durable is synchronised at most this often.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Set while lines of the audit log cannot be written, or do not fit, and none may be missing.
pub(super) static AUDIT_IS_FAILING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

/// One output, with its buffers and its writer thread.
#[derive(Debug)]
pub(crate) struct Sink {
    output: LogOutput,
    workers: Box<[Mutex<Buffer>]>,
    /// The bound of each of these buffers, in bytes.
    share: AtomicUsize,
    application: Mutex<Buffer>,
    /// How long a line may wait, in milliseconds.
    interval: AtomicU64,
    /// No log is configured to write here any more. Lines that began before are still written.
    is_retired: AtomicBool,
    /// Whether its application lines are those of the audit log.
    is_audit: AtomicBool,
    /// Flags for the writer: there are lines; write at once; reopen the file.
    pending: AtomicBool,
    urgent: AtomicBool,
    reopen: AtomicBool,
    writer: Mutex<Option<Thread>>,
    /// The number of flushes requested, and of those done.
    asked: AtomicU64,
    done: Mutex<u64>,
    is_done: Condvar,
    /// Lines that cannot be written are kept and tried again.
    keeps_lines: AtomicBool,
    /// Of application lines, and of access lines.
    app: Counts,
    access: Counts,
}

/// How many lines were written and dropped, and how many writes failed.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Sink {
    /// Opens an output and starts its thread. `workers` threads write access lines, which share `buffer` bytes.
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
            app: Counts::default(),
            access: Counts::default(),
        });
        sink.set(buffer, interval);
        let (own, spare) = (Arc::clone(&sink), (0..sink.workers.len()).map(|_| Vec::new()).collect());
        let writer = Writer {
            sink: own,
            file: Some(file),
            spare,
            kept: Buffer::default(),
            torn: false,
            synced_at: None,
            reported: 0,
            reported_at: None,
            time: SystemTime::new(),
        };
        let thread = std::thread::Builder::new().name("rotogate-log".to_owned()).spawn(move || writer.run())?;
        *sink.writer.lock() = Some(thread.thread().clone());
        Ok(sink)
    }

    pub(super) fn output(&self) -> &LogOutput {
        &self.output
    }

    /// From now on a log writes here, with these bounds.
    pub(super) fn set(&self, buffer: usize, interval: Duration) {
        // One half is written while the other half fills.
        self.share.store((buffer / 2 / self.workers.len()).max(16 * 1024), Ordering::Relaxed);
        self.interval.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.is_retired.store(false, Ordering::Relaxed);
        self.is_audit.store(false, Ordering::Relaxed);
        self.keeps_lines.store(false, Ordering::Relaxed);
    }

    /// No log writes here any more: the file is closed, and opened again for a line that began before.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
        self.hurry();
    }

    /// Its application lines are those of the audit log.
    pub(super) fn set_audit(&self, on_failure: OnAuditFailure) {
        self.is_audit.store(true, Ordering::Relaxed);
        self.keeps_lines.store(on_failure == OnAuditFailure::Refuse, Ordering::Relaxed);
    }

    pub(super) fn is_audit(&self) -> bool {
        self.is_audit.load(Ordering::Relaxed)
    }

    /// The counts of application lines.
    pub(crate) fn app_counts(&self) -> &Counts {
        &self.app
    }

    /// The counts of access lines.
    pub(crate) fn access_counts(&self) -> &Counts {
        &self.access
    }

    fn keeps_lines(&self) -> bool {
        self.keeps_lines.load(Ordering::Relaxed)
    }

    /// Says whether lines that must not be missing can be written.
    fn set_failing(&self, is_failing: bool) {
        if self.keeps_lines() && !self.is_retired.load(Ordering::Relaxed) {
            AUDIT_IS_FAILING.store(is_failing, Ordering::SeqCst);
        }
    }

    fn dropped(&self) -> u64 {
        self.app.dropped.load(Ordering::Relaxed) + self.access.dropped.load(Ordering::Relaxed)
    }

    /// Appends an access line to this thread's buffer.
    pub(super) fn access(&self, line: &[u8]) {
        let Some(buffer_of_worker) = WorkerId::current(&self.workers) else { return };
        let (was_empty, is_large) = {
            let share = self.share.load(Ordering::Relaxed);
            let mut buffer = buffer_of_worker.lock();
            if buffer.bytes.len() + line.len() > share {
                // Counted here: a writer that is stuck in its output counts nothing (requirement O32).
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

    /// Appends an application line. Important lines may use the reserve.
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

    /// Is there a line to write, or a request to the writer?
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
        // The lock is held for a moment only, and never by a writer.
        if let Some(thread) = &*self.writer.lock() {
            thread.unpark();
        }
    }

    /// Reopens the file, after everything logged so far has gone to the old one.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.hurry();
    }

    /// Waits until everything logged so far is written, but not longer than `at_most`.
    pub(super) fn flush(&self, at_most: Duration) {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.hurry();
        let mut done = self.done.lock();
        let _ = self.is_done.wait_while_for(&mut done, |done| *done < asked, at_most);
    }
}

/// Opens an output for appending.
fn open(output: &LogOutput) -> io::Result<File> {
    match output {
        LogOutput::Stderr => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        LogOutput::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o640).open::<&PathBuf>(path)?;
            // Root may make the file of a service.
            private_file::adopt(&file, path)?;
            Ok(file)
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
}

/// The writer thread of an output.
struct Writer {
    sink: Arc<Sink>,
    /// `None` once no log writes here, until there is a line.
    file: Option<File>,
    /// Empty buffers, to swap for full ones.
    spare: Vec<Vec<u8>>,
    /// Lines that could not be written and are tried again.
    kept: Buffer,
    /// The last line was written only in part.
    torn: bool,
    /// When the file was synchronised.
    synced_at: Option<Duration>,
    /// How many dropped lines were reported, and when.
    reported: u64,
    reported_at: Option<Duration>,
    time: SystemTime,
}

impl Writer {
    /// Waits for lines, then for the flush interval or a full buffer, and writes. `pending` stays set while lines come, so
    /// that a line in an empty buffer wakes only a writer that had nothing to write for a whole interval.
    fn run(mut self) {
        loop {
            while !self.sink.pending.load(Ordering::Acquire) {
                let retry = (!self.kept.bytes.is_empty()).then_some(KEPT_RETRY_PAUSE);
                match self.report_due_in().into_iter().chain(retry).min() {
                    // Wake up to report the lines dropped meanwhile.
                    Some(wait) => std::thread::park_timeout(wait),
                    None => std::thread::park(),
                }
                self.report_dropped();
                if retry.is_some() {
                    break;
                }
            }
            let begun = self.time.monotonic();
            while !self.sink.urgent.swap(false, Ordering::AcqRel) {
                let interval = Duration::from_millis(self.sink.interval.load(Ordering::Relaxed));
                let Some(left) = interval.checked_sub(self.time.monotonic().saturating_sub(begun)) else {
                    break;
                };
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            let asked = self.sink.asked.load(Ordering::Acquire);
            let reopen = self.sink.reopen.swap(false, Ordering::AcqRel);
            if reopen && !self.kept.bytes.is_empty() {
                // The new file may be where there is room.
                self.open_again();
            }
            let has_written = self.pass();
            if self.sink.is_retired.load(Ordering::Relaxed) {
                self.file = None;
            } else if reopen {
                self.open_again();
            }
            *self.sink.done.lock() = asked;
            self.sink.is_done.notify_all();
            self.report_dropped();
            if !has_written {
                self.sink.pending.store(false, Ordering::SeqCst);
                // A line that arrived between the pass and this found `pending` set, and did not wake this thread.
                if self.sink.has_work() {
                    self.sink.pending.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// Writes all buffers. `true` if there was a line.
    fn pass(&mut self) -> bool {
        let sink = Arc::clone(&self.sink);
        let mut spare = std::mem::take(&mut self.spare);
        // Taken first and written last: a reader of an event finds all earlier access lines.
        let events = std::mem::take(&mut *sink.application.lock());
        let mut has_lines = !events.bytes.is_empty();
        for (buffer_of_worker, spare) in sink.workers.iter().zip(&mut spare) {
            let taken = {
                let mut buffer = buffer_of_worker.lock();
                let empty = Buffer { bytes: std::mem::take(spare), ..Buffer::default() };
                std::mem::replace(&mut *buffer, empty)
            };
            has_lines |= !taken.bytes.is_empty();
            *spare = self.write_out(taken, &sink.access);
        }
        self.spare = spare;
        if sink.is_audit() || !self.kept.bytes.is_empty() {
            self.write_audit(&events);
        } else {
            self.write_out(events, &sink.app);
        }
        has_lines
    }

    /// Writes a buffer, counts its lines, and returns it empty.
    fn write_out(&mut self, buffer: Buffer, counts: &Counts) -> Vec<u8> {
        let Buffer { mut bytes, lines } = buffer;
        let lost = if bytes.is_empty() { 0 } else { self.write(&bytes, counts) };
        bytes.clear();
        counts.written.fetch_add(lines.saturating_sub(lost), Ordering::Relaxed);
        counts.dropped.fetch_add(lost, Ordering::Relaxed);
        bytes
    }

    /// Writes lines of the audit log. What cannot be written is tried again, if no line may be missing.
    fn write_audit(&mut self, events: &Buffer) {
        let mut buffer = std::mem::take(&mut self.kept);
        if buffer.bytes.len() + events.bytes.len() > MAX_KEPT_BYTES {
            self.sink.app.dropped.fetch_add(events.lines, Ordering::Relaxed);
        } else {
            buffer.bytes.extend_from_slice(&events.bytes);
            buffer.lines += events.lines;
        }
        if buffer.bytes.is_empty() {
            return;
        }
        let sink = Arc::clone(&self.sink);
        if !sink.keeps_lines() {
            self.write_out(buffer, &sink.app);
            if !self.sync() {
                sink.app.errors.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let mut rest = &*buffer.bytes;
        let is_written = self.put(&mut rest).is_ok() && self.sync();
        let left = if is_written { Vec::new() } else { rest.to_vec() };
        let lines_left = count_lines(&left);
        sink.app.written.fetch_add(buffer.lines.saturating_sub(lines_left), Ordering::Relaxed);
        if !is_written {
            sink.app.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.kept = Buffer { bytes: left, lines: lines_left };
        sink.set_failing(!is_written);
    }

    /// Makes what was written durable. False if that fails.
    fn sync(&mut self) -> bool {
        if !matches!(self.sink.output, LogOutput::File(_)) {
            return true;
        }
        let since = self.synced_at.map(|at| self.time.monotonic().saturating_sub(at));
        if let Some(wait) = since.and_then(|since| SYNC_INTERVAL.checked_sub(since)) {
            // What comes meanwhile is written and synchronised together.
            std::thread::sleep(wait);
        }
        let Some(file) = &self.file else { return true };
        let synced = file.sync_data();
        self.synced_at = Some(self.time.monotonic());
        match synced {
            Ok(()) => true,
            // A pipe or a device.
            Err(error) if error.kind() == ErrorKind::InvalidInput => true,
            Err(_) => false,
        }
    }

    /// Writes whole lines. Returns how many were lost.
    fn write(&mut self, mut bytes: &[u8], counts: &Counts) -> u64 {
        // End a torn line, so that the next line stays whole.
        if self.torn && self.put(&mut &b"\n"[..]).is_ok() {
            self.torn = false;
        }
        if self.put(&mut bytes).is_ok() {
            return 0;
        }
        counts.errors.fetch_add(1, Ordering::Relaxed);
        count_lines(bytes)
    }

    /// Leaves the unwritten rest in `bytes`.
    fn put(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(open(&self.sink.output)?),
            };
            match file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = bytes.get(written.saturating_sub(1)) != Some(&b'\n');
                    *bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open_again(&mut self) {
        if !matches!(self.sink.output, LogOutput::File(_)) {
            return;
        }
        match open(&self.sink.output) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            Err(error) => {
                self.sink.app.errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(output = %self.sink.output, %error, "log file not reopened; the old one stays in use");
            }
        }
    }

    /// The time until dropped lines may be reported, if there are any.
    fn report_due_in(&self) -> Option<Duration> {
        (self.sink.dropped() > self.reported).then(|| {
            let since = self.reported_at.map_or(REPORT_INTERVAL, |at| self.time.monotonic().saturating_sub(at));
            REPORT_INTERVAL.saturating_sub(since).max(RETRY_PAUSE)
        })
    }

    /// Logs how many lines were dropped, at most once a minute.
    fn report_dropped(&mut self) {
        let now = self.time.monotonic();
        let dropped = self.sink.dropped();
        if dropped <= self.reported || self.reported_at.is_some_and(|at| now.saturating_sub(at) < REPORT_INTERVAL) {
            return;
        }
        let lines = dropped - self.reported;
        (self.reported, self.reported_at) = (dropped, Some(now));
        tracing::error!(output = %self.sink.output, lines, "log lines dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

    fn in_file(workers: usize, buffer: usize) -> (tempfile::TempDir, PathBuf, Arc<Sink>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let sink = Sink::open(LogOutput::File(path.clone()), workers, buffer, Duration::from_millis(200)).unwrap();
        (folder, path, sink)
    }

    #[test]
    fn o24_what_was_logged_is_there_after_a_flush_each_line_once_and_whole() {
        let (_folder, path, sink) = in_file(2, 1 << 20);
        std::thread::scope(|scope| {
            for worker in WorkerId::ids(std::num::NonZeroUsize::new(2).unwrap()) {
                let sink = &sink;
                scope.spawn(move || {
                    worker.enter();
                    for number in 0..500 {
                        sink.access(format!("{worker} {number}\n").as_bytes());
                    }
                });
            }
            sink.application(b"said\n", false);
        });
        sink.flush(FLUSH_TIMEOUT);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1001);
        for worker in [1, 2] {
            let of_worker: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{worker} "))).collect();
            let expected: Vec<_> = (0..500).map(|number| format!("{worker} {number}")).collect();
            assert_eq!(of_worker, expected, "in order");
        }
        assert_eq!(sink.access_counts().written.load(Ordering::Relaxed), 1000);
        assert_eq!(sink.app_counts().written.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn o24_a_file_that_was_renamed_keeps_what_came_before_and_a_new_one_gets_the_rest() {
        let (folder, path, sink) = in_file(1, 1 << 20);
        let old = folder.path().join("access.log.1");
        sink.access(b"before\n");
        std::fs::rename(&path, &old).unwrap();
        sink.reopen();
        sink.flush(FLUSH_TIMEOUT);
        sink.access(b"after\n");
        sink.flush(FLUSH_TIMEOUT);
        assert_eq!(std::fs::read_to_string(old).unwrap(), "before\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after\n");
    }

    #[test]
    fn o32_p35_o24_an_output_that_takes_nothing_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // A reader that has it open but reads nothing.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let sink = Sink::open(LogOutput::File(path), 1, 64 * 1024, Duration::from_millis(50)).unwrap();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let all = 10_000;
        for number in 0..all {
            // Returns although nothing is read: that is the test.
            sink.access(&line);
            if number % 100 == 0 {
                sink.application(&line, true);
            }
        }
        // Counted while the writer is stuck, so that a metric tells in time.
        let lost = |counts: &Counts| counts.dropped.load(Ordering::Relaxed);
        assert!(lost(sink.access_counts()) > 0 && lost(sink.app_counts()) == 0);
        (0..all).for_each(|_| sink.application(&line, false));
        assert!(lost(sink.app_counts()) > 0);
        // From now on the reader reads: the buffered lines arrive, and later ones too.
        let mut piece = vec![0; 1 << 16];
        let more = Arc::clone(&sink);
        let writes = std::thread::spawn(move || {
            more.flush(FLUSH_TIMEOUT);
            more.access(b"later\n");
            more.flush(FLUSH_TIMEOUT);
        });
        let mut end = Vec::new();
        while !end.ends_with(b"later\n") {
            let length = reader.read(&mut piece).unwrap();
            end.extend_from_slice(&piece[..length]);
        }
        writes.join().unwrap();
        let dropped = sink.access_counts().dropped.load(Ordering::Relaxed);
        assert!(dropped > 0 && dropped < all, "{dropped}");
    }

    #[test]
    fn p35_a_reader_that_is_gone_costs_lines_that_are_counted_until_there_is_one_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let with_reader = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let reader = with_reader();
        let sink = Sink::open(LogOutput::File(path.clone()), 1, 1 << 20, Duration::from_millis(50)).unwrap();
        drop(reader);
        (0..3).for_each(|_| sink.access(b"lost\n"));
        sink.flush(FLUSH_TIMEOUT);
        let counts = sink.access_counts();
        assert_eq!((counts.dropped.load(Ordering::Relaxed), counts.written.load(Ordering::Relaxed)), (3, 0));
        assert!(counts.errors.load(Ordering::Relaxed) > 0);
        let mut reader = with_reader();
        sink.access(b"later\n");
        sink.flush(FLUSH_TIMEOUT);
        let mut bytes = [0; 16];
        let read = reader.read(&mut bytes).unwrap();
        assert!(bytes[..read].ends_with(b"later\n"));
        assert_eq!(counts.written.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_output_that_no_log_uses_is_closed_and_still_takes_a_line_that_comes_late() {
        let (folder, path, sink) = in_file(1, 1 << 20);
        sink.access(b"before\n");
        sink.retire();
        sink.flush(FLUSH_TIMEOUT);
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        sink.access(b"late\n");
        sink.flush(FLUSH_TIMEOUT);
        assert_eq!(std::fs::read_to_string(folder.path().join("old")).unwrap(), "before\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "late\n", "it was opened again");
    }

    #[test]
    fn p35_o24_a_full_disk_costs_lines_that_are_counted() {
        let sink = Sink::open(LogOutput::File("/dev/full".into()), 1, 1 << 20, Duration::from_millis(50)).unwrap();
        (0..10).for_each(|_| sink.access(b"lost\n"));
        sink.flush(FLUSH_TIMEOUT);
        assert_eq!(sink.access_counts().dropped.load(Ordering::Relaxed), 10);
        assert!(sink.access_counts().errors.load(Ordering::Relaxed) > 0);
        assert_eq!(sink.access_counts().written.load(Ordering::Relaxed), 0);
    }
}
