//! Detection of changed files. Size and modification time can be preserved, so a stamp also has device, inode and
//! change time.
//!
//! Files are polled. System notifications would miss changes of mounted secrets, of link targets, or by other machines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rotogate_core::clock::Timestamp;

/// The interval of checks. A change is reported when two consecutive checks find the same state, because a file may
/// still be written.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The maximum number of consecutive checks that each find a new state and report no change. The next check then
/// reports a change even if the state has changed again.
const MAX_UNSTABLE_CHECKS: u32 = 2;
/// Some file systems store times in whole seconds. Two changes within this time may therefore have the same timestamp.
const TIME_GRANULARITY: Duration = Duration::from_millis(2500);

/// The attributes of a file that identify its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<Attributes>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    /// The device and inode.
    file: (u64, u64),
    length: u64,
    /// Modification time and change time, in seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl Stamp {
    /// Reads the stamp of a file. Links are followed.
    pub fn read(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(std::fs::metadata(path).ok().map(|meta| {
            let is = Attributes {
                file: (meta.dev(), meta.ino()),
                length: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
            };
            if meta.is_dir() { Attributes { length: 0, modified: (0, 0), changed: (0, 0), ..is } } else { is }
        }))
    }

    /// Returns whether this is a regular file.
    pub fn is_file(self) -> bool {
        self.0.is_some_and(|is| is.mode & 0o170_000 == 0o100_000)
    }

    /// Mode and owner, or `None` if the file is missing.
    pub fn rights(self) -> Option<[u32; 3]> {
        self.0.map(|is| [is.mode, is.owner.0, is.owner.1])
    }

    fn is_recent(self, now: Timestamp) -> bool {
        let changed = self.0.and_then(|is| u64::try_from(is.changed.0).ok()).map(Timestamp::from_secs);
        changed.is_some_and(|at| at.plus(TIME_GRANULARITY) > now && now.plus(TIME_GRANULARITY) > at)
    }
}

/// Files that are checked repeatedly.
#[derive(Debug, Default)]
pub struct ChangeDetector {
    read: Vec<(PathBuf, Stamp)>,
    /// The last changed state, and how many checks in a row found a change.
    found: Option<(Vec<(PathBuf, Stamp)>, u32)>,
    /// Whether a file must be read again, because it changed just before the last read.
    again: bool,
}

impl ChangeDetector {
    /// Creates a detector. Call this function before the first read of the files.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>, now: Timestamp) -> Self {
        let read = stamps(paths);
        let again = read.iter().any(|(_, stamp)| stamp.is_recent(now));
        Self { read, found: None, again }
    }

    /// Records that the files are about to be read.
    pub fn note_read(&mut self, paths: impl IntoIterator<Item = PathBuf>, now: Timestamp) {
        *self = Self::new(paths, now);
    }

    /// Checks the files. Returns whether the files must be read again now.
    pub fn poll_changed(&mut self, paths: impl IntoIterator<Item = PathBuf>, now: Timestamp) -> bool {
        let is = stamps(paths);
        if is == self.read {
            self.found = None;
            if self.again && !is.iter().any(|(_, stamp)| stamp.is_recent(now)) {
                self.again = false;
                return true;
            }
            return false;
        }
        let checks = match &self.found {
            Some((found, checks)) if *found == is || *checks >= MAX_UNSTABLE_CHECKS => {
                self.again = is.iter().any(|(_, stamp)| stamp.is_recent(now));
                (self.read, self.found) = (is, None);
                return true;
            }
            Some((_, checks)) => checks + 1,
            None => 1,
        };
        self.found = Some((is, checks));
        false
    }
}

fn stamps(paths: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, Stamp)> {
    let mut stamps: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let stamp = Stamp::read(&path);
            (path, stamp)
        })
        .collect();
    stamps.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    stamps.dedup_by(|(a, _), (b, _)| a == b);
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time later than all changes in the test.
    const LATER: Timestamp = Timestamp::from_secs(10_000_000_000);

    #[test]
    fn j21_a_file_of_the_same_size_and_time_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("key.pem"), dir.path().join("new.pem"));
        std::fs::write(&path, "old").unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut detector = ChangeDetector::new([path.clone()], LATER);
        assert!(!detector.poll_changed([path.clone()], LATER));
        std::fs::write(&other, "new").unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(!detector.poll_changed([path.clone()], LATER), "it may be under way");
        assert!(detector.poll_changed([path.clone()], LATER));
        assert!(!detector.poll_changed([path.clone()], LATER), "once");

        // The file is changed in place and keeps its modification time.
        std::fs::write(&path, "odd").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert!(!detector.poll_changed([path.clone()], LATER));
        assert!(detector.poll_changed([path], LATER));
    }

    #[test]
    fn j21_a_link_that_leads_elsewhere_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("one", "old"), ("two", "new")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::write(at(folder).join("key"), text).unwrap();
        }
        std::os::unix::fs::symlink("one", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", at("key")).unwrap();
        let mut detector = ChangeDetector::new([at("key")], LATER);
        std::os::unix::fs::symlink("two", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert!(!detector.poll_changed([at("key")], LATER));
        assert!(detector.poll_changed([at("key")], LATER));
    }

    #[test]
    fn j21_what_has_only_just_changed_is_read_once_more_and_what_never_rests_is_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "old").unwrap();
        let now = rotogate_core::clock::TimeSource::wall(&rotogate_core::clock::SystemTime::new());
        let mut detector = ChangeDetector::new([path.clone()], now);
        assert!(!detector.poll_changed([path.clone()], now), "not while it is young");
        assert!(detector.poll_changed([path.clone()], LATER));
        assert!(!detector.poll_changed([path.clone()], LATER));
        let mut checks = 0;
        loop {
            checks += 1;
            std::fs::write(&path, "x".repeat(checks)).unwrap();
            if detector.poll_changed([path.clone()], LATER) {
                break;
            }
        }
        assert_eq!(checks, 3);
    }
}
