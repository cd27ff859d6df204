//! The way of log lines to their output. Whoever logs appends to a buffer in memory and goes on; one thread for each output
//! writes what is there. A request never waits for an output, whatever that does: beyond the bound lines are dropped and
//! counted.
//!
//! Access lines have a buffer for each thread of requests, so that none waits for another. The lines of the application
//! share one: they are few.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::settings::LogOutput;
use crate::lane::Lane;
use rotogate::clock::{SystemTime, TimeSource};

/// A buffer of this size is written at once; a smaller one when its time has come.
const CHUNK: usize = 64 * 1024;
/// What lines of the application may fill, and what errors, warnings and audit events may fill beyond that.
const APPLICATION: usize = 192 * 1024;
const RESERVE: usize = 64 * 1024;
/// How often dropped lines are told of.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long to wait before an output that takes nothing just now is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// What waits to be written, and what did not fit.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sink {
    output: LogOutput,
    lanes: Box<[Mutex<Buffer>]>,
    /// The most bytes in one of them.
    share: usize,
    application: Mutex<Buffer>,
    /// How long a line may wait.
    interval: Duration,
    /// There is something to write; there is no time to lose; the file is to be opened again.
    pending: AtomicBool,
    urgent: AtomicBool,
    reopen: AtomicBool,
    writer: Mutex<Option<Thread>>,
    /// How many flushes were asked for, and how many are done.
    asked: AtomicU64,
    done: Mutex<u64>,
    is_done: Condvar,
    /// Of the application's lines, and of access lines.
    app: Counts,
    access: Counts,
}

/// What became of lines so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) errors: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Opens an output and starts its thread. `lanes` threads write access lines, which share `buffer` bytes.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(output: LogOutput, lanes: usize, buffer: usize, interval: Duration) -> io::Result<Arc<Self>> {
        let file = open(&output)?;
        let lanes = Lane::each(lanes, Mutex::default);
        // Half of it is being written while the other half fills.
        let share = (buffer / 2 / lanes.len()).max(16 * 1024);
        let sink = Arc::new(Self {
            output,
            lanes,
            share,
            application: Mutex::default(),
            interval,
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            writer: Mutex::new(None),
            asked: AtomicU64::new(0),
            done: Mutex::new(0),
            is_done: Condvar::new(),
            app: Counts::default(),
            access: Counts::default(),
        });
        let (own, spare) = (Arc::clone(&sink), (0..sink.lanes.len()).map(|_| Vec::new()).collect());
        let writer = Writer { sink: own, file, spare, torn: false, told: 0, told_at: None, time: SystemTime::new() };
        let thread = std::thread::Builder::new().name("rotogate-log".to_owned()).spawn(move || writer.run())?;
        *lock(&sink.writer) = Some(thread.thread().clone());
        Ok(sink)
    }

    /// What became of lines of the application.
    pub(crate) fn app_counts(&self) -> &Counts {
        &self.app
    }

    /// What became of access lines.
    pub(crate) fn access_counts(&self) -> &Counts {
        &self.access
    }

    fn dropped(&self) -> u64 {
        self.app.dropped.load(Ordering::Relaxed) + self.access.dropped.load(Ordering::Relaxed)
    }

    /// Takes an access line of this thread's.
    pub(super) fn access(&self, line: &[u8]) {
        let Some(lane) = Lane::of(&self.lanes) else { return };
        let (was_empty, is_large) = {
            let mut buffer = lock(lane);
            if buffer.bytes.len() + line.len() > self.share {
                buffer.dropped += 1;
                return;
            }
            let was_empty = buffer.bytes.is_empty();
            let before = buffer.bytes.len();
            buffer.bytes.extend_from_slice(line);
            buffer.lines += 1;
            let mark = CHUNK.min(self.share / 2);
            (was_empty, before < mark && buffer.bytes.len() >= mark)
        };
        if is_large {
            self.hurry();
        } else if was_empty {
            self.wake();
        }
    }

    /// Takes a line of the application. Important ones have a reserve.
    pub(super) fn application(&self, line: &[u8], is_important: bool) {
        {
            let most = if is_important { APPLICATION + RESERVE } else { APPLICATION };
            let mut buffer = lock(&self.application);
            if buffer.bytes.len() + line.len() > most {
                buffer.dropped += 1;
                return;
            }
            buffer.bytes.extend_from_slice(line);
            buffer.lines += 1;
        }
        self.hurry();
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
        // Held for no longer than this takes, and by nobody who writes.
        if let Some(thread) = &*lock(&self.writer) {
            thread.unpark();
        }
    }

    /// Opens the file anew, once what was logged so far is in the old one.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.hurry();
    }

    /// Waits until all that was logged so far is written, but not longer than this.
    pub(super) fn flush(&self, at_most: Duration) {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.hurry();
        let done = lock(&self.done);
        let _ = self.is_done.wait_timeout_while(done, at_most, |done| *done < asked);
    }
}

/// Opens an output for appending.
fn open(output: &LogOutput) -> io::Result<File> {
    match output {
        LogOutput::Stderr => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        LogOutput::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogOutput::File(path) => OpenOptions::new().create(true).append(true).mode(0o640).open::<&PathBuf>(path),
    }
}

/// The thread of an output.
struct Writer {
    sink: Arc<Sink>,
    file: File,
    /// Empty buffers, to be given for full ones.
    spare: Vec<Vec<u8>>,
    /// The last line is there in part only.
    torn: bool,
    /// How many dropped lines were told of, and when.
    told: u64,
    told_at: Option<Duration>,
    time: SystemTime,
}

impl Writer {
    fn run(mut self) {
        loop {
            while !self.sink.pending.swap(false, Ordering::AcqRel) {
                match self.untold() {
                    // What was dropped meanwhile is to be told of.
                    Some(wait) => std::thread::park_timeout(wait),
                    None => std::thread::park(),
                }
                self.tell();
            }
            let begun = self.time.monotonic();
            while !self.sink.urgent.swap(false, Ordering::AcqRel) {
                let Some(left) = self.sink.interval.checked_sub(self.time.monotonic().saturating_sub(begun)) else {
                    break;
                };
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            let asked = self.sink.asked.load(Ordering::Acquire);
            let reopen = self.sink.reopen.swap(false, Ordering::AcqRel);
            self.pass();
            if reopen {
                self.open_again();
            }
            *lock(&self.sink.done) = asked;
            self.sink.is_done.notify_all();
            self.tell();
        }
    }

    /// Writes what there is.
    fn pass(&mut self) {
        let sink = Arc::clone(&self.sink);
        let mut spare = std::mem::take(&mut self.spare);
        // Taken first and written last: whoever reads an event has all access lines from before it.
        let events = std::mem::take(&mut *lock(&sink.application));
        for (lane, spare) in sink.lanes.iter().zip(&mut spare) {
            let taken = {
                let mut buffer = lock(lane);
                let empty = Buffer { bytes: std::mem::take(spare), ..Buffer::default() };
                std::mem::replace(&mut *buffer, empty)
            };
            *spare = self.write_out(taken, &sink.access);
        }
        self.spare = spare;
        self.write_out(events, &sink.app);
    }

    /// Writes a buffer, counts what became of it, and gives it back empty.
    fn write_out(&mut self, buffer: Buffer, counts: &Counts) -> Vec<u8> {
        let Buffer { mut bytes, lines, dropped } = buffer;
        let lost = if bytes.is_empty() { 0 } else { self.write(&bytes, counts) };
        bytes.clear();
        counts.written.fetch_add(lines.saturating_sub(lost), Ordering::Relaxed);
        counts.dropped.fetch_add(dropped + lost, Ordering::Relaxed);
        bytes
    }

    /// Writes whole lines; gives how many were lost.
    fn write(&mut self, mut bytes: &[u8], counts: &Counts) -> u64 {
        // What comes after a torn line is a line of its own.
        if self.torn && self.put(&mut &b"\n"[..]).is_ok() {
            self.torn = false;
        }
        if self.put(&mut bytes).is_ok() {
            return 0;
        }
        counts.errors.fetch_add(1, Ordering::Relaxed);
        u64::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
    }

    /// Leaves in `bytes` what could not be written.
    fn put(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = bytes.get(written.saturating_sub(1)) != Some(&b'\n');
                    *bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
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
            Ok(file) => (self.file, self.torn) = (file, false),
            Err(error) => {
                self.sink.app.errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(output = %self.sink.output, %error, "a log file cannot be opened again; the old one stays in use");
            }
        }
    }

    /// How long until dropped lines may be told of, if there are any.
    fn untold(&self) -> Option<Duration> {
        (self.sink.dropped() > self.told).then(|| {
            let since = self.told_at.map_or(TELL_EVERY, |at| self.time.monotonic().saturating_sub(at));
            TELL_EVERY.saturating_sub(since).max(PAUSE)
        })
    }

    /// Says how many lines were dropped, once a minute.
    fn tell(&mut self) {
        let now = self.time.monotonic();
        let dropped = self.sink.dropped();
        if dropped <= self.told || self.told_at.is_some_and(|at| now.saturating_sub(at) < TELL_EVERY) {
            return;
        }
        let lines = dropped - self.told;
        (self.told, self.told_at) = (dropped, Some(now));
        tracing::error!(output = %self.sink.output, lines, "log lines were dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn in_file(lanes: usize, buffer: usize) -> (tempfile::TempDir, PathBuf, Arc<Sink>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let sink = Sink::open(LogOutput::File(path.clone()), lanes, buffer, Duration::from_millis(200)).unwrap();
        (folder, path, sink)
    }

    #[test]
    fn o24_what_was_logged_is_there_after_a_flush_each_line_once_and_whole() {
        let (_folder, path, sink) = in_file(2, 1 << 20);
        std::thread::scope(|scope| {
            for lane in Lane::all(std::num::NonZeroUsize::new(2).unwrap()) {
                let sink = &sink;
                scope.spawn(move || {
                    lane.take();
                    for number in 0..500 {
                        sink.access(format!("{lane} {number}\n").as_bytes());
                    }
                });
            }
            sink.application(b"said\n", false);
        });
        sink.flush(SOON);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1001);
        for lane in [1, 2] {
            let of_lane: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{lane} "))).collect();
            let expected: Vec<_> = (0..500).map(|number| format!("{lane} {number}")).collect();
            assert_eq!(of_lane, expected, "in order");
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
        sink.flush(SOON);
        sink.access(b"after\n");
        sink.flush(SOON);
        assert_eq!(std::fs::read_to_string(old).unwrap(), "before\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after\n");
    }

    #[test]
    fn o24_an_output_that_takes_nothing_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Somebody has it open, and reads nothing.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let sink = Sink::open(LogOutput::File(path), 1, 64 * 1024, Duration::from_millis(50)).unwrap();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let all = 10_000;
        for number in 0..all {
            // Comes back, though nobody reads: that is the test.
            sink.access(&line);
            if number % 100 == 0 {
                sink.application(&line, true);
            }
        }
        sink.flush(Duration::from_millis(10));
        // Now somebody reads: what was kept comes, and later lines do too.
        let mut piece = vec![0; 1 << 16];
        let more = Arc::clone(&sink);
        let writes = std::thread::spawn(move || {
            more.flush(SOON);
            more.access(b"later\n");
            more.flush(SOON);
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
    fn o24_a_full_disk_costs_lines_that_are_counted() {
        let sink = Sink::open(LogOutput::File("/dev/full".into()), 1, 1 << 20, Duration::from_millis(50)).unwrap();
        (0..10).for_each(|_| sink.access(b"lost\n"));
        sink.flush(SOON);
        assert_eq!(sink.access_counts().dropped.load(Ordering::Relaxed), 10);
        assert!(sink.access_counts().errors.load(Ordering::Relaxed) > 0);
        assert_eq!(sink.access_counts().written.load(Ordering::Relaxed), 0);
    }
}
