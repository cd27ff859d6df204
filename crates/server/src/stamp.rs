//! What tells whether a file is another than it was, without reading it: not only its size and its time, which images,
//! archives and `cp -p` keep, but which file it is and when anything of it last changed.
//!
//! Files are looked at a few times a second instead of waiting for the system to report a change: a report comes from the
//! folder that was watched, and a mounted secret, a link to elsewhere or another machine changes the file without one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rotogate::clock::Timestamp;

/// How often files are looked at. A change is taken up once a second look finds the files as the first did, so that a file
/// is not read while it is being written: after twice as long, or a little more.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So many looks in a row find other files, and they are read all the same.
const PATIENCE: u32 = 2;
/// A file that changed less than this ago may change again without another time: file systems count in steps, some of
/// them in seconds.
const YOUNG: Duration = Duration::from_millis(2500);

/// A file as it was; `None` where there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Option<Is>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Is {
    /// Device and inode; nothing of a folder but its mode and owner counts.
    file: (u64, u64),
    length: u64,
    /// Seconds and nanoseconds of the last change of content, and of anything.
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl Stamp {
    /// Of the file that a path leads to now, through links.
    pub(crate) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(std::fs::metadata(path).ok().map(|meta| {
            let is = Is {
                file: (meta.dev(), meta.ino()),
                length: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
            };
            if meta.is_dir() { Is { length: 0, modified: (0, 0), changed: (0, 0), ..is } } else { is }
        }))
    }

    /// Is it a file with content?
    pub(crate) fn is_file(self) -> bool {
        self.0.is_some_and(|is| is.mode & 0o170_000 == 0o100_000)
    }

    /// Who may do what with it, as bytes; nothing of a file that is not there.
    pub(crate) fn rights(self) -> Option<[u32; 3]> {
        self.0.map(|is| [is.mode, is.owner.0, is.owner.1])
    }

    fn is_young(self, now: Timestamp) -> bool {
        let changed = self.0.and_then(|is| u64::try_from(is.changed.0).ok()).map(Timestamp::from_secs);
        changed.is_some_and(|at| at.plus(YOUNG) > now && now.plus(YOUNG) > at)
    }
}

/// Files that are looked at again and again.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// As they were when they were last read.
    read: Vec<(PathBuf, Stamp)>,
    /// As the last look found them, if that was otherwise, and how many looks did.
    found: Option<(Vec<(PathBuf, Stamp)>, u32)>,
    /// One of them was young when it was read.
    again: bool,
}

impl Looked {
    /// Begins with files that are about to be read.
    pub(crate) fn at(paths: impl IntoIterator<Item = PathBuf>, now: Timestamp) -> Self {
        let read = stamps(paths);
        let again = read.iter().any(|(_, stamp)| stamp.is_young(now));
        Self { read, found: None, again }
    }

    /// Looks at the files. True if they are to be read now, because they changed, or may have.
    pub(crate) fn look(&mut self, paths: impl IntoIterator<Item = PathBuf>, now: Timestamp) -> bool {
        let is = stamps(paths);
        if is == self.read {
            self.found = None;
            if self.again && !is.iter().any(|(_, stamp)| stamp.is_young(now)) {
                self.again = false;
                return true;
            }
            return false;
        }
        let looks = match &self.found {
            Some((found, looks)) if *found == is || *looks >= PATIENCE => {
                self.again = is.iter().any(|(_, stamp)| stamp.is_young(now));
                (self.read, self.found) = (is, None);
                return true;
            }
            Some((_, looks)) => looks + 1,
            None => 1,
        };
        self.found = Some((is, looks));
        false
    }
}

fn stamps(paths: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, Stamp)> {
    let mut stamps: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let stamp = Stamp::of(&path);
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

    /// Long after everything that the test does.
    const LATER: Timestamp = Timestamp::from_secs(10_000_000_000);

    #[test]
    fn j21_a_file_of_the_same_size_and_time_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("key.pem"), dir.path().join("new.pem"));
        std::fs::write(&path, "old").unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut looked = Looked::at([path.clone()], LATER);
        assert!(!looked.look([path.clone()], LATER));
        std::fs::write(&other, "new").unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(!looked.look([path.clone()], LATER), "it may be under way");
        assert!(looked.look([path.clone()], LATER));
        assert!(!looked.look([path.clone()], LATER), "once");

        // Written in place, and its time put back.
        std::fs::write(&path, "odd").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert!(!looked.look([path.clone()], LATER));
        assert!(looked.look([path], LATER));
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
        let mut looked = Looked::at([at("key")], LATER);
        std::os::unix::fs::symlink("two", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert!(!looked.look([at("key")], LATER));
        assert!(looked.look([at("key")], LATER));
    }

    #[test]
    fn j21_what_has_only_just_changed_is_read_once_more_and_what_never_rests_is_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "old").unwrap();
        let now = rotogate::clock::TimeSource::wall(&rotogate::clock::SystemTime::new());
        let mut looked = Looked::at([path.clone()], now);
        assert!(!looked.look([path.clone()], now), "not while it is young");
        assert!(looked.look([path.clone()], LATER));
        assert!(!looked.look([path.clone()], LATER));
        let mut looks = 0;
        loop {
            looks += 1;
            std::fs::write(&path, "x".repeat(looks)).unwrap();
            if looked.look([path.clone()], LATER) {
                break;
            }
        }
        assert_eq!(looks, 3);
    }
}
