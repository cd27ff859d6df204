//! Files that others must not read or write: the store and its high-water mark.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Makes the directory that `path` lies in, and those above it, for us alone (0700), where they are missing.
pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(parent(path))
}

/// Makes a new file for us alone (0600). Fails if there is anything at `path`, a dangling link too.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that has a name of its own until it is published, and goes away if it never is.
#[derive(Debug)]
pub(super) struct Unpublished {
    path: PathBuf,
}

impl Unpublished {
    /// A new file beside `path`, with a name that nothing else has.
    pub(super) fn beside(path: &Path) -> io::Result<(Self, File)> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or_else(|| io::Error::other("not the name of a file"))?);
        name.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
        let temporary = parent(path).join(name);
        let file = create_new(&temporary)?;
        Ok((Self { path: temporary }, file))
    }

    /// Gives it its name, durably. Whatever is at `path`, a link too, stays as it is and is an error.
    pub(super) fn publish_new(self, path: &Path) -> io::Result<()> {
        match std::fs::hard_link(&self.path, path) {
            // A file system without hard links. A file that appears between these two steps would be replaced.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
                    && std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) =>
            {
                std::fs::rename(&self.path, path)?;
            }
            linked => linked?,
        }
        sync_directory(path)
    }

    /// Gives it its name, durably, in the place of what is there. A link is replaced, never written through.
    fn publish_over(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        sync_directory(path)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // After a rename there is nothing under this name any more; that is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes a small file so that a crash leaves the old or the new one, whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    create_parent(path)?;
    let (unpublished, mut file) = Unpublished::beside(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    unpublished.publish_over(path)
}

/// Refuses a file that is no regular file, belongs to somebody else, or is open to others.
pub(super) fn check_private(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    if !metadata.is_file() {
        return Err(StoreError::new(format!("{} is not a regular file", path.display())));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let groups = || {
            let mut all = rustix::process::getgroups().unwrap_or_default();
            all.push(rustix::process::getegid());
            all.into_iter().map(rustix::process::Gid::as_raw).collect::<Vec<_>>()
        };
        let us = rustix::process::geteuid().as_raw();
        if let Some(problem) = problem(metadata.mode(), metadata.uid(), metadata.gid(), us, &groups()) {
            let shown = path.display();
            return Err(StoreError::new(format!("{shown} {problem}: `chown {us} {shown}` and `chmod 600 {shown}`")));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn problem(mode: u32, owner: u32, group: u32, us: u32, groups: &[u32]) -> Option<String> {
    if owner != us && owner != 0 {
        Some(format!("belongs to user {owner}, and we are {us}"))
    } else if mode & 0o007 != 0 {
        Some(format!("is open to everyone (mode {:04o})", mode & 0o7777))
    } else if mode & 0o020 != 0 {
        Some(format!("may be written by its group (mode {:04o})", mode & 0o7777))
    } else if mode & 0o050 != 0 && !groups.contains(&group) {
        Some(format!("may be read by group {group}, which is not ours (mode {:04o})", mode & 0o7777))
    } else {
        None
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(parent(path))?.sync_all() } else { Ok(()) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn o2_only_files_closed_to_others_are_good() {
        let good = |mode: u32, owner, group| problem(0o100_000 | mode, owner, group, 1000, &[1000, 7]).is_none();
        assert!(good(0o600, 1000, 1000) && good(0o400, 0, 0) && good(0o640, 1000, 7));
        assert!(!good(0o600, 1001, 1000), "another user's");
        assert!(!good(0o640, 1000, 8), "readable by a group that is not ours");
        assert!(!good(0o660, 1000, 1000), "writable by the group");
        for open in [0o604, 0o602, 0o601, 0o666] {
            assert!(!good(open, 1000, 1000), "{open:o}");
        }
    }

    #[test]
    fn o2_a_link_is_replaced_and_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("mark"), dir.path().join("victim"));
        std::fs::write(&victim, "theirs").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        replace(&link, b"ours").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"theirs");
        assert_eq!(std::fs::read(&link).unwrap(), b"ours");
        assert_eq!(std::fs::symlink_metadata(&link).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn o2_nothing_is_published_through_a_dangling_link_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("store"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let (unpublished, _file) = Unpublished::beside(&link).unwrap();
        assert!(unpublished.publish_new(&link).is_err());
        assert!(!target.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the link alone");
    }
}
