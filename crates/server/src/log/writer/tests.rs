use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

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
    // A reader has the pipe open but reads nothing.
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sink = Sink::open(LogOutput::File(path), 1, 64 * 1024, Duration::from_millis(50)).unwrap();
    let line = [&[b'x'; 99][..], b"\n"].concat();
    let all = 10_000;
    for number in 0..all {
        // The test is that this returns although nothing is read.
        sink.access(&line);
        if number % 100 == 0 {
            sink.application(&line, true);
        }
    }
    // The drops are counted while the writer hangs, so that a metric shows them in time.
    let lost = |counts: &WriterCounts| counts.dropped.load(Ordering::Relaxed);
    assert!(lost(sink.access_counts()) > 0 && lost(sink.app_counts()) == 0);
    (0..all).for_each(|_| sink.application(&line, false));
    assert!(lost(sink.app_counts()) > 0);
    // From now on the reader reads: the buffered lines arrive, and later lines, too.
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

#[test]
fn p42_a_line_that_a_command_writes_meanwhile_stays() {
    let (_folder, path, sink) = in_file(1, 1 << 20);
    sink.set_audit(OnAuditFailure::Refuse);
    let mut writer = Writer::new(Arc::clone(&sink), open(sink.output()).unwrap());
    writer.sync_data = |mut file| {
        file.write_all(b"of a command\n")?;
        Err(ErrorKind::StorageFull.into())
    };
    writer.write_audit(&Buffer { bytes: b"one\ntwo\n".to_vec(), lines: 2 });
    writer.sync_data = |_| Ok(());
    writer.write_audit(&Buffer::default());
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\nof a command\none\ntwo\n");
}

#[test]
fn p42_lines_whose_synchronisation_fails_are_kept_and_the_next_attempt_clears_the_state() {
    static IS_FULL: AtomicBool = AtomicBool::new(true);
    let (_folder, path, sink) = in_file(1, 1 << 20);
    sink.set_audit(OnAuditFailure::Refuse);
    let mut writer = Writer::new(Arc::clone(&sink), open(sink.output()).unwrap());
    writer.sync_data = |_| if IS_FULL.load(Ordering::Relaxed) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) };
    let written = || sink.app_counts().written.load(Ordering::Relaxed);
    writer.write_audit(&Buffer { bytes: b"one\ntwo\n".to_vec(), lines: 2 });
    assert_eq!((written(), sink.app_counts().errors.load(Ordering::Relaxed)), (0, 1));
    assert!(AUDIT_IS_FAILING.load(Ordering::SeqCst));
    IS_FULL.store(false, Ordering::Relaxed);
    // No line arrives: the retry alone ends the state.
    writer.write_audit(&Buffer::default());
    assert!(!AUDIT_IS_FAILING.load(Ordering::SeqCst));
    assert_eq!((written(), std::fs::read_to_string(path).unwrap().as_str()), (2, "one\ntwo\n"));
}
