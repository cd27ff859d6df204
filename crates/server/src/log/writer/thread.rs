//! The thread that writes an output.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Buffer, Sink, WriterCounts, open};
use rotogate_config::LogOutput;
use rotogate_core::clock::{SystemTime, TimeSource};

const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before a retry if an output would block.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const KEPT_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The limit in bytes.
const MAX_KEPT_BYTES: usize = 1 << 20;
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    sink: Arc<Sink>,
    /// `None` while no log uses the output. A new line opens the file again.
    file: Option<File>,
    spare: Vec<Vec<u8>>,
    /// Lines to retry after a failed write.
    kept: Buffer,
    /// Whether the last line was only partly written.
    torn: bool,
    /// The range at the end of the file that only this writer wrote.
    own: Range<u64>,
    synced_at: Option<Duration>,
    /// The number of dropped lines in the last report.
    reported: u64,
    reported_at: Option<Duration>,
    time: SystemTime,
    /// Tests replace this function.
    pub(super) sync_data: fn(&File) -> io::Result<()>,
}

impl Writer {
    pub(super) fn new(sink: Arc<Sink>, file: File) -> Self {
        Self {
            spare: (0..sink.workers.len()).map(|_| Vec::new()).collect(),
            sink,
            file: Some(file),
            kept: Buffer::default(),
            torn: false,
            own: 0..0,
            synced_at: None,
            reported: 0,
            reported_at: None,
            time: SystemTime::new(),
            sync_data: File::sync_data,
        }
    }

    /// Waits for a line, and then until the flush interval ends or a buffer is full. `pending` stays set, so that new
    /// lines do not wake the thread.
    pub(super) fn run(mut self) {
        loop {
            while !self.sink.pending.load(Ordering::Acquire) {
                let retry = (!self.kept.bytes.is_empty()).then_some(KEPT_RETRY_PAUSE);
                match self.report_due_in().into_iter().chain(retry).min() {
                    // The thread wakes up to report dropped lines.
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
                // The new file may be on another volume, where writing the kept lines may succeed.
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
                // A line that arrived before the reset did not wake this thread.
                if self.sink.has_work() {
                    self.sink.pending.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    fn pass(&mut self) -> bool {
        let sink = Arc::clone(&self.sink);
        let mut spare = std::mem::take(&mut self.spare);
        // Events are taken first and written last, so that older access lines precede the events.
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

    fn write_out(&mut self, buffer: Buffer, counts: &WriterCounts) -> Vec<u8> {
        let Buffer { mut bytes, lines } = buffer;
        let lost = if bytes.is_empty() { 0 } else { self.write(&bytes, counts) };
        bytes.clear();
        counts.written.fetch_add(lines.saturating_sub(lost), Ordering::Relaxed);
        counts.dropped.fetch_add(lost, Ordering::Relaxed);
        bytes
    }

    /// Lines that cannot be written are kept if the audit log must be complete.
    pub(super) fn write_audit(&mut self, events: &Buffer) {
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
        let is_written = match self.put(&mut rest) {
            Ok(()) if self.sync() => true,
            // After a failed sync, the operating system may drop data, so everything is written again.
            Ok(()) => {
                rest = &buffer.bytes;
                self.take_back(rest.len());
                false
            }
            Err(_) => false,
        };
        let left = if is_written { Vec::new() } else { rest.to_vec() };
        let lines_left = count_lines(&left);
        sink.app.written.fetch_add(buffer.lines.saturating_sub(lines_left), Ordering::Relaxed);
        if !is_written {
            sink.app.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.kept = Buffer { bytes: left, lines: lines_left };
        sink.set_failing(!is_written);
    }

    /// Removes bytes before they are written again, unless another process has appended to the file.
    /// Then the file contains the bytes twice.
    fn take_back(&self, written: usize) {
        if let Some(file) = &self.file
            && file.metadata().is_ok_and(|meta| meta.len() == self.own.end)
            && let Some(rest) = self.own.end.checked_sub(written as u64).filter(|rest| *rest >= self.own.start)
        {
            let _ = file.set_len(rest);
        }
    }

    fn sync(&mut self) -> bool {
        if !matches!(self.sink.output, LogOutput::File(_)) {
            return true;
        }
        let since = self.synced_at.map(|at| self.time.monotonic().saturating_sub(at));
        if let Some(wait) = since.and_then(|since| SYNC_INTERVAL.checked_sub(since)) {
            // Lines that arrive during the pause are synced together.
            std::thread::sleep(wait);
        }
        let Some(file) = &self.file else { return true };
        let synced = (self.sync_data)(file);
        self.synced_at = Some(self.time.monotonic());
        match synced {
            Ok(()) => true,
            // Pipes and devices cannot be synced.
            Err(error) if error.kind() == ErrorKind::InvalidInput => true,
            Err(_) => false,
        }
    }

    /// Returns the number of lost lines.
    fn write(&mut self, mut bytes: &[u8], counts: &WriterCounts) -> u64 {
        // End the partial line first.
        if self.torn && self.put(&mut &b"\n"[..]).is_ok() {
            self.torn = false;
        }
        if self.put(&mut bytes).is_ok() {
            return 0;
        }
        counts.errors.fetch_add(1, Ordering::Relaxed);
        count_lines(bytes)
    }

    /// On failure, the unwritten rest stays in `bytes`.
    fn put(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(open(&self.sink.output)?),
            };
            match file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    // In append mode, this is the end of the written bytes.
                    let end = file.stream_position().unwrap_or(0);
                    let begin = end.saturating_sub(written as u64);
                    self.own = if begin == self.own.end { self.own.start } else { begin }..end;
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
                tracing::error!(output = %self.sink.output, %error, "log file not reopened; the old file stays in use");
            }
        }
    }

    /// Returns the time until the next report of dropped lines, or `None` if there is nothing to report.
    fn report_due_in(&self) -> Option<Duration> {
        (self.sink.dropped() > self.reported).then(|| {
            let since = self.reported_at.map_or(REPORT_INTERVAL, |at| self.time.monotonic().saturating_sub(at));
            REPORT_INTERVAL.saturating_sub(since).max(RETRY_PAUSE)
        })
    }

    /// Logs the number of dropped lines, at most once a minute.
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

fn count_lines(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
}
