//! Files with secrets: read only if no other user can read them, and written so that no other user ever could
//! (requirement O2). Keys, users, the store and its mark, and the admin token use this module.
//!
//! Such a file belongs to our user or to root, and others have no rights on it. One of our user's groups may read it,
//! because orchestrators mount secrets that way. The check applies to the opened file, not to its name, so nothing can
//! be swapped in between. A symbolic link may be read through, because mounted secrets are links, but is never written
//! through.
//!
//! Root works on a service's files on its behalf (requirement O17): it reads files that belong to the owner of their
//! folder, and gives new files to that owner, so that the service can use them. The service could set a trap for root:
//! `place` opens every file.
//!
//! `fs-mistrust` trusts at most one group, while orchestrators mount secrets for a group of their choice, and it does
//! not cover root's work on behalf of a service. `atomic-write-file` writes, but checks nothing.
//!
//! Files that are not secret but decide about trust use [`trusted`].

mod place;
pub mod trusted;
mod user;

use crate::random::random;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The longest file of secrets that is read as text, in bytes: far above any sensible token or list of users.
pub const MAX_LEN: u64 = 64 << 20;

/// The remedy for an error of the system, to append to the error.
fn remedy(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => user::advice(path),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "; correct the path, or create the file".to_owned(),
        _ => String::new(),
    }
}

/// Opens a private file, for reading, or for reading and writing.
///
/// # Errors
/// A text that names the file, the problem and the remedy: it cannot be opened, is no regular file, belongs to another
/// user, or others may read or write it.
pub fn open_private(path: &Path, writing: bool) -> Result<File, String> {
    let cannot = |e: io::Error| format!("{}: cannot be opened: {e}{}", path.display(), remedy(path, &e));
    // Without NONBLOCK, opening a named pipe would block.
    let flags = if writing { OFlags::RDWR } else { OFlags::RDONLY } | OFlags::NONBLOCK;
    let file = place::open(path, flags, 0).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    check(path, &meta)?;
    Ok(file)
}

/// Opens a log, to append to it. A missing one is created with this mode.
///
/// # Errors
/// I/O; or root finds a link, or another user's file, in a folder of the service.
pub fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    place::open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, mode)
}

/// Reads a private file of at most `max` bytes.
///
/// # Errors
/// As [`open_private`], or the file is longer.
pub fn read_private_bytes(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |e: io::Error| format!("{}: cannot be read: {e}", path.display());
    let file = open_private(path, false)?;
    let len = file.metadata().map_err(cannot)?.len().min(max);
    // Allocate the whole size at once: a growing buffer would leave copies behind that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(format!("{}: is longer than {max} bytes", path.display()));
    }
    Ok(bytes)
}

/// Reads a private file of text.
///
/// # Errors
/// As [`open_private`], or the file is not UTF-8 text.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut bytes = read_private_bytes(path, MAX_LEN)?;
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        // Wiped as well.
        drop(Zeroizing::new(e.into_bytes()));
        format!("{}: is not UTF-8 text, from byte {at} on", path.display())
    })
}

#[cfg(unix)]
fn check(path: &Path, meta: &Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    if !meta.is_file() {
        return Err(format!("{shown}: is not a regular file"));
    }
    let us = rustix::process::geteuid().as_raw();
    let folder = fs::metadata(parent(path)).ok();
    // Root acts for the owner of the folder.
    let for_folder = |is: fn(&Metadata) -> u32, id: u32| us == 0 && folder.as_ref().is_some_and(|f| is(f) == id);
    let group_is_ours = user::is_our_group(meta.gid()) || for_folder(Metadata::gid, meta.gid());
    match objection(meta.mode(), meta.uid(), us, group_is_ours, for_folder(Metadata::uid, meta.uid())) {
        None => Ok(()),
        Some(Objection::Owner(what)) => Err(format!("{shown}: {what}{}", user::advice(path))),
        // The advice of mode 600 would lock our user out.
        Some(Objection::Mode(what)) if meta.uid() != us && us != 0 => {
            let group = rustix::process::getegid().as_raw();
            Err(format!("{shown}: {what}: as root, chgrp {group} {shown} && chmod 640 {shown}"))
        }
        Some(Objection::Mode(what)) => Err(format!("{shown}: {what}: chmod 600 {shown}")),
    }
}

/// The problem of a file.
#[cfg(unix)]
enum Objection {
    Owner(String),
    Mode(String),
}

/// The problem of a file with this mode and owner, if there is one.
#[cfg(unix)]
fn objection(mode: u32, owner: u32, us: u32, group_is_ours: bool, is_of_its_folder: bool) -> Option<Objection> {
    if owner != us && owner != 0 && !is_of_its_folder {
        return Some(Objection::Owner(format!(
            "belongs to user {}, and must belong to us (user {}) or to root",
            user::name(owner),
            user::name(us)
        )));
    }
    let mode = mode & 0o777;
    if mode & 0o007 != 0 {
        return Some(Objection::Mode(format!("its mode {mode:03o} gives others access")));
    }
    if mode & 0o030 != 0 {
        return Some(Objection::Mode(format!("its mode {mode:03o} gives the group more than read access")));
    }
    if mode & 0o040 != 0 && !group_is_ours {
        return Some(Objection::Mode(format!(
            "its mode {mode:03o} lets a group read it, and this process is not in that group"
        )));
    }
    None
}

#[cfg(not(unix))]
fn check(path: &Path, meta: &Metadata) -> Result<(), String> {
    if meta.is_file() { Ok(()) } else { Err(format!("{}: is not a regular file", path.display())) }
}

/// Checks that no other user can exchange this directory, or our files in it.
///
/// # Errors
/// A text that names the directory, the problem and the remedy.
pub fn check_private_dir(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|e| format!("{shown}: cannot be read: {e}"))?;
    if !meta.is_dir() {
        return Err(format!("{shown}: is not a directory"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let us = rustix::process::geteuid().as_raw();
        match dir_objection(meta.mode(), meta.uid(), us) {
            None => {}
            Some(Objection::Owner(what)) => {
                return Err(format!("{shown}: {what}, who could exchange its files{}", user::advice(path)));
            }
            Some(Objection::Mode(what)) => {
                return Err(format!("{shown}: {what}, who could exchange its files: chmod 700 {shown}"));
            }
        }
    }
    trusted::check_folders(path)
}

/// The problem of a directory with this mode and owner. Root reads a service's folder on its behalf.
#[cfg(unix)]
fn dir_objection(mode: u32, owner: u32, us: u32) -> Option<Objection> {
    if owner != us && owner != 0 && us != 0 {
        return Some(Objection::Owner(format!("belongs to user {}", user::name(owner))));
    }
    // In a sticky directory, such as that of mounted secrets, a user can exchange only their own files.
    (mode & 0o022 != 0 && mode & 0o1000 == 0)
        .then(|| Objection::Mode(format!("may be written by others (mode {:04o})", mode & 0o7777)))
}

/// Why this process may not read a file that the gate's user may read, although the file itself is fine. `None` if this
/// process may read it, or if there is another problem.
pub fn denied(path: &Path) -> Option<String> {
    let shown = path.display();
    match user::may(path, rustix::fs::Access::READ_OK) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            Some(format!("{shown}: may not be read by user {}{}", user::name(user::ours()), user::advice(path)))
        }
        Ok(()) | Err(_) => None,
    }
}

/// Like [`denied`], but also refuses a private file of the gate that belongs to another user, even if this process can
/// open it.
pub fn denied_as_another(path: &Path) -> Option<String> {
    denied(path).or_else(|| {
        let owner = user::owner(path)?;
        let us = user::ours();
        (owner != us && owner != 0 && us != 0).then(|| {
            let shown = path.display();
            format!(
                "{shown}: belongs to user {}, and we are user {}{}",
                user::name(owner),
                user::name(us),
                user::advice(path)
            )
        })
    })
}

/// Why a missing file cannot be created, or an existing one cannot be written. The flag is true if only a permission is
/// missing, which another user may have.
pub fn unwritable(path: &Path) -> Option<(String, bool)> {
    let shown = path.display();
    let there = path.ancestors().find(|at| at.as_os_str().is_empty() || at.symlink_metadata().is_ok());
    let there = there.filter(|at| !at.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if there != path && !there.is_dir() {
        return Some((format!("{shown}: cannot be made, because {} is not a directory", there.display()), false));
    }
    let wanted = if there.is_dir() {
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK
    } else {
        rustix::fs::Access::WRITE_OK
    };
    match user::may(there, wanted) {
        Ok(()) => None,
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            let us = user::name(user::ours());
            let is_missing = |at: &&Path| !at.as_os_str().is_empty() && at.symlink_metadata().is_err();
            let advice = match path.ancestors().skip(1).take_while(is_missing).last() {
                Some(folder) if user::owner(there) == Some(0) => user::advice_to_make(folder),
                Some(_) | None => user::advice(there),
            };
            Some((format!("{shown}: may not be written by user {us}{advice}"), true))
        }
        Err(error) => Some((format!("{shown}: cannot be written: {}", io::Error::from(error)), false)),
    }
}

/// The mode of this folder, if others may list it but not change it.
pub fn is_open(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let mode = fs::metadata(path).ok().filter(Metadata::is_dir)?.mode() & 0o777;
    (mode & 0o055 != 0).then_some(mode)
}

/// Creates a private directory (0700) and its missing parent directories, durably. An existing directory stays
/// unchanged.
///
/// # Errors
/// The directory cannot be created, or another file has its name.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    if missing.is_empty() && !path.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    // The outermost directory is created first, so that each takes its owner from the directory above it.
    for dir in missing.into_iter().rev() {
        place::make_dir(dir)?;
        sync_dir(dir)?;
    }
    Ok(())
}

/// Replaces a private file (0600) as a whole, or creates it. A reader sees either the old or the new content, even
/// after a crash. The new content is durable when this returns.
///
/// # Errors
/// An I/O error; or the path is a symbolic link, which is not written through, or no regular file.
pub fn write_private_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    refuse_link(path)?;
    let temp = Unpublished::with(path, bytes)?;
    rename_durably(&temp.0, path)
}

/// Gives a file another name in its folder, durably. An existing file of that name is replaced.
///
/// # Errors
/// I/O.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(to)
}

/// Creates a private file (0600) like [`write_private_atomic`], but never replaces an existing file.
///
/// # Errors
/// I/O; [`io::ErrorKind::AlreadyExists`] if the name is taken, even by a broken link.
pub fn create_private_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Unpublished::with(path, bytes)?.publish_new(path)
}

/// A lock for changes of `path`, held until it is dropped. It is a file beside `path`, because the file itself is
/// replaced.
#[derive(Debug)]
pub struct EditLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock beside `path`.
///
/// # Errors
/// An I/O error; or the lock file is a symbolic link.
pub fn lock_for_edit(path: &Path) -> io::Result<EditLock> {
    let lock = beside(path, "lock")?;
    refuse_link(&lock)?;
    let file = place::open(&lock, OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW, 0o600)?;
    file.lock()?;
    Ok(EditLock(file))
}

/// Waits until no process holds the lock beside `path`, and keeps others from taking it until the value is dropped.
/// Creates no file: `None` if no process ever took the lock.
///
/// # Errors
/// As [`lock_for_edit`].
pub fn wait_for_edit(path: &Path) -> io::Result<Option<EditLock>> {
    let lock = beside(path, "lock")?;
    refuse_link(&lock)?;
    match place::open(&lock, OFlags::RDONLY | OFlags::NOFOLLOW, 0) {
        Ok(file) => file.lock_shared().map(|()| Some(EditLock(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A private file (0600) with a temporary name until it is complete. If it is never completed, it is removed.
#[derive(Debug)]
pub struct Unpublished(PathBuf);

impl Unpublished {
    /// A new file beside `path`, with a unique name.
    ///
    /// # Errors
    /// An I/O error, or `path` names no file.
    pub fn beside(path: &Path) -> io::Result<(Self, File)> {
        let random = *random::<8>()?;
        let name = beside(path, &format!("{:016x}.tmp", u64::from_ne_bytes(random)))?;
        // O_EXCL also refuses to follow a link.
        let file = place::open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600)?;
        Ok((Self(name), file))
    }

    fn with(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let (temp, mut file) = Self::beside(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temp)
    }

    /// Gives the file its final name, durably. Its content must be durable already.
    ///
    /// # Errors
    /// An I/O error; [`io::ErrorKind::AlreadyExists`] if the name is taken, even by a broken link. The existing file
    /// stays unchanged.
    pub fn publish_new(self, path: &Path) -> io::Result<()> {
        // Unlike a rename, a link fails if the name is taken: of two concurrent processes, only one succeeds.
        match fs::hard_link(&self.0, path) {
            // The file system has no hard links. A file that appears between these two steps would be replaced.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
                    && fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) =>
            {
                fs::rename(&self.0, path)?;
            }
            linked => linked?,
        }
        drop(self);
        sync_dir(path)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // After a rename the temporary name is gone, so the removal may fail.
        let _ = fs::remove_file(&self.0);
    }
}

fn refuse_link(path: &Path) -> io::Result<()> {
    let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is {what}", path.display())));
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_symlink() => refuse("a symbolic link, which is not written through"),
        Ok(meta) if !meta.is_file() => refuse("not a regular file"),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{suffix}"));
    Ok(path.with_file_name(hidden))
}

/// The directory of a file.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the name of a file durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(parent(path))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
