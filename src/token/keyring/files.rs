//! Files that hold secrets: who may own and read them, and how they are written (requirement O2).
//!
//! What is checked is the file that was opened, not its name, so nothing can be put in its place in between. Symlinks
//! may be read through, as mounted secrets need it, and are never written through.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{KeyError, random};

/// No key file is longer.
const MAX_LEN: u64 = 64 * 1024;

pub(super) fn io(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { path: path.display().to_string(), source }
}

pub(super) fn file_error(path: &Path, message: impl Into<String>) -> KeyError {
    KeyError::File { path: path.display().to_string(), message: message.into() }
}

/// Whoever runs this process.
struct Me {
    user: u32,
    groups: Vec<u32>,
}

impl Me {
    fn new() -> Self {
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self { user: rustix::process::geteuid().as_raw(), groups }
    }

    /// What is wrong with a secret file that has this owner, group and mode.
    fn objection(&self, owner: u32, group: u32, mode: u32) -> Option<&'static str> {
        if owner != self.user && owner != 0 {
            return Some("belongs to another user");
        }
        if mode & 0o007 != 0 {
            return Some("can be read or written by every user");
        }
        if mode & 0o030 != 0 {
            return Some("can be written or executed by its group");
        }
        if mode & 0o040 != 0 && !self.groups.contains(&group) {
            return Some("can be read by a group that is not ours");
        }
        None
    }

    /// What is wrong with the folder that secret files are in: nobody else may exchange them.
    fn folder_objection(&self, owner: u32, mode: u32) -> Option<&'static str> {
        if owner != self.user && owner != 0 {
            return Some("belongs to another user");
        }
        // In a sticky folder, as mounted secrets have it, nobody can exchange the files of others.
        (mode & 0o022 != 0 && mode & 0o1000 == 0).then_some("can be written by others")
    }
}

fn check(path: &Path, meta: &Metadata) -> Result<(), KeyError> {
    match Me::new().objection(meta.uid(), meta.gid(), meta.mode()) {
        Some(why) => Err(file_error(
            path,
            format!(
                "{why}; nobody else may have a part in it: chown it to the user of this process and chmod 600 {}",
                path.display()
            ),
        )),
        None => Ok(()),
    }
}

/// Reads a file that holds a secret, after checking who else may.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Without NONBLOCK, opening a named pipe would wait for ever.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| io(path, e))?;
    let meta = file.metadata().map_err(|e| io(path, e))?;
    if !meta.is_file() {
        return Err(file_error(path, "is not a file"));
    }
    check(path, &meta)?;
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len().min(MAX_LEN)).unwrap_or_default()));
    file.take(MAX_LEN + 1).read_to_end(&mut text).map_err(|e| io(path, e))?;
    if text.len() as u64 > MAX_LEN {
        return Err(file_error(path, "is too long to be a key"));
    }
    Ok(text)
}

/// Checks the folder that secret files are read from.
pub(super) fn check_folder(dir: &Path) -> Result<(), KeyError> {
    let meta = std::fs::metadata(dir).map_err(|e| io(dir, e))?;
    if !meta.is_dir() {
        return Err(file_error(dir, "is not a folder"));
    }
    match Me::new().folder_objection(meta.uid(), meta.mode()) {
        Some(why) => Err(file_error(dir, format!("{why}; nobody else may exchange keys: chmod 700 {}", dir.display()))),
        None => Ok(()),
    }
}

/// A folder that is ours to write into, held against every other process that would write into it. Ends when dropped.
pub(super) struct Writing(File);

impl Writing {
    /// Makes the folder where it is missing, with mode 0700, and waits until nobody else writes into it.
    pub(super) fn begin(dir: &Path) -> Result<Self, KeyError> {
        match std::fs::symlink_metadata(dir) {
            Ok(meta) if meta.is_symlink() => {
                return Err(file_error(
                    dir,
                    "is a symlink, and keys are not written through one: name the folder itself",
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io(dir, e))?;
                if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                    File::open(parent).and_then(|p| p.sync_all()).map_err(|e| io(parent, e))?;
                }
            }
            Err(e) => return Err(io(dir, e)),
        }
        check_folder(dir)?;
        let folder = File::open(dir).map_err(|e| io(dir, e))?;
        folder.lock().map_err(|e| io(dir, e))?;
        Ok(Self(folder))
    }

    /// Writes a file that must not be there yet. It is durable once [`Writing::replace`] has followed.
    pub(super) fn create(&self, path: &Path, text: &[u8]) -> Result<(), KeyError> {
        // `create_new` is O_EXCL, which does not follow a symlink either.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| io(path, e))?;
        file.write_all(text).and_then(|()| file.sync_all()).map_err(|e| io(path, e))
    }

    /// Writes a file in the place of what is there, if anything, in one step: whoever reads it finds the old or the new.
    pub(super) fn replace(&self, path: &Path, text: &[u8]) -> Result<(), KeyError> {
        if std::fs::symlink_metadata(path).is_ok_and(|m| !m.is_file()) {
            return Err(file_error(path, "is a symlink or no file, and is not written through"));
        }
        let suffix = u64::from_ne_bytes(*random::<8>()?);
        let temporary = path.with_extension(format!("tmp-{suffix:016x}"));
        let written =
            self.create(&temporary, text).and_then(|()| std::fs::rename(&temporary, path).map_err(|e| io(path, e)));
        if written.is_err() {
            // Best effort: what failed is reported, and a left-over file is never read.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        self.0.sync_all().map_err(|e| io(path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_only_we_and_root_may_own_or_read_a_secret() {
        let me = Me { user: 1000, groups: vec![1000, 50] };
        for (owner, group, mode, good) in [
            (1000, 1000, 0o100_600, true),
            (0, 0, 0o100_400, true),
            (0, 50, 0o100_440, true),
            (1000, 1000, 0o100_640, true),
            (0, 51, 0o100_440, false),
            (0, 0, 0o100_640, false),
            (1001, 1000, 0o100_600, false),
            (1000, 1000, 0o100_604, false),
            (1000, 1000, 0o100_602, false),
            (1000, 1000, 0o100_660, false),
            (1000, 1000, 0o100_644, false),
        ] {
            assert_eq!(me.objection(owner, group, mode).is_none(), good, "{owner} {group} {mode:o}");
        }
        for (owner, mode, good) in [
            (1000, 0o40_700, true),
            (0, 0o40_755, true),
            (0, 0o41_777, true),
            (0, 0o40_777, false),
            (1000, 0o40_770, false),
            (1001, 0o40_700, false),
        ] {
            assert_eq!(me.folder_objection(owner, mode).is_none(), good, "{owner} {mode:o}");
        }
    }

    #[test]
    fn o2_a_key_file_is_never_written_over_or_through_anything() {
        let home = tempfile::tempdir().unwrap();
        let folder = Writing::begin(&home.path().join("keys")).unwrap();
        let (target, there) = (home.path().join("target"), home.path().join("there"));
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(folder.create(&link, b"secret").is_err());
        assert!(!target.exists());
        std::fs::write(&there, b"before").unwrap();
        assert!(folder.create(&there, b"secret").is_err());
        assert_eq!(std::fs::read(&there).unwrap(), b"before");
    }
}
