//! Files with secrets (requirement O2).
//!
//! A file with secrets must belong to our user or to root, and other users must not have rights to it. One of our
//! user's groups may read the file, because orchestrators mount secrets in that way.
//!
//! The check applies to the opened file, not to its name, so the file cannot be swapped in between. A symbolic link is
//! followed for reading, because mounted secrets are links, but not for writing.
//!
//! Root works on behalf of the service (requirement O17). Root may read a file of the folder's owner. New files belong
//! to the folder's owner. The service could trick root with links, so `place` opens every file.
//!
//! The crate `fs-mistrust` trusts at most one group, and root cannot use it on behalf of a service. The crate
//! `atomic-write-file` does not check owners or permissions.

mod place;
pub mod trusted;
mod user;

use crate::random::random;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The maximum size of a text file with secrets, in bytes.
pub const MAX_LEN: u64 = 64 << 20;

fn remedy(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => user::advice(path),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "; correct the path, or create the file".to_owned(),
        _ => String::new(),
    }
}

/// Opens a private file for reading, or for reading and writing.
///
/// # Errors
/// A message with the file, the problem and the remedy. The file cannot be opened, is not a regular file, belongs to
/// another user, or other users have rights to it.
pub fn open_private(path: &Path, writing: bool) -> Result<File, String> {
    let cannot = |e: io::Error| format!("{}: cannot be opened: {e}{}", path.display(), remedy(path, &e));
    // Without NONBLOCK, opening a named pipe could block.
    let flags = if writing { OFlags::RDWR } else { OFlags::RDONLY } | OFlags::NONBLOCK;
    let file = place::open(path, flags, 0).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    check(path, &meta)?;
    Ok(file)
}

/// Opens a log file for appending, and creates it with this mode if it is missing.
///
/// # Errors
/// An I/O error, or root finds a link or another user's file in the service's folder.
pub fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    place::open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, mode)
}

/// Reads a private file of at most `max` bytes.
///
/// # Errors
/// The errors of [`open_private`], or the file is longer.
pub fn read_private_bytes(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |e: io::Error| format!("{}: cannot be read: {e}", path.display());
    let file = open_private(path, false)?;
    let len = file.metadata().map_err(cannot)?.len().min(max);
    // Reserve the whole capacity, because a reallocation would leave copies that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(format!("{}: is longer than {max} bytes", path.display()));
    }
    Ok(bytes)
}

/// Reads a private text file.
///
/// # Errors
/// The errors of [`open_private`], or the file is not UTF-8 text.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut bytes = read_private_bytes(path, MAX_LEN)?;
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
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
    let for_folder = |is: fn(&Metadata) -> u32, id: u32| us == 0 && folder.as_ref().is_some_and(|f| is(f) == id);
    let group_is_ours = user::is_our_group(meta.gid()) || for_folder(Metadata::gid, meta.gid());
    match objection(meta.mode(), meta.uid(), us, group_is_ours, for_folder(Metadata::uid, meta.uid())) {
        None => Ok(()),
        Some(Objection::Owner(what)) => Err(format!("{shown}: {what}{}", user::advice(path))),
        // With mode 600, our user could no longer read the file.
        Some(Objection::Mode(what)) if meta.uid() != us && us != 0 => {
            let group = rustix::process::getegid().as_raw();
            Err(format!("{shown}: {what}: as root, chgrp {group} {shown} && chmod 640 {shown}"))
        }
        Some(Objection::Mode(what)) => Err(format!("{shown}: {what}: chmod 600 {shown}")),
    }
}

#[cfg(unix)]
enum Objection {
    Owner(String),
    Mode(String),
}

#[cfg(unix)]
fn objection(mode: u32, owner: u32, us: u32, group_is_ours: bool, is_of_its_folder: bool) -> Option<Objection> {
    if owner != us && owner != 0 && !is_of_its_folder {
        return Some(Objection::Owner(format!(
            "belongs to user {}, but must belong to root or to user {}, who runs this process",
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
            "its mode {mode:03o} lets a group read it, but this process is not in that group"
        )));
    }
    None
}

#[cfg(not(unix))]
fn check(path: &Path, meta: &Metadata) -> Result<(), String> {
    if meta.is_file() { Ok(()) } else { Err(format!("{}: is not a regular file", path.display())) }
}

/// Checks that other users cannot replace this directory or our files in it.
///
/// # Errors
/// A message with the directory, the problem and the remedy.
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
                return Err(format!("{shown}: {what}, who could replace its files{}", user::advice(path)));
            }
            Some(Objection::Mode(what)) => {
                return Err(format!("{shown}: {what}, who could replace its files: chmod 700 {shown}"));
            }
        }
    }
    trusted::check_folders(path)
}

#[cfg(unix)]
fn dir_objection(mode: u32, owner: u32, us: u32) -> Option<Objection> {
    if owner != us && owner != 0 && us != 0 {
        return Some(Objection::Owner(format!("belongs to user {}", user::name(owner))));
    }
    // In a sticky directory, users can replace only their own files.
    (mode & 0o022 != 0 && mode & 0o1000 == 0)
        .then(|| Objection::Mode(format!("may be written by others (mode {:04o})", mode & 0o7777)))
}

/// Returns why this process has no permission to read a file, or `None` if it has.
pub fn denied(path: &Path) -> Option<String> {
    let shown = path.display();
    match user::may(path, rustix::fs::Access::READ_OK) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            Some(format!("{shown}: may not be read by user {}{}", user::name(user::ours()), user::advice(path)))
        }
        Ok(()) | Err(_) => None,
    }
}

/// Like [`denied`], but also refuses a private file that belongs to another user.
pub fn denied_as_another(path: &Path) -> Option<String> {
    denied(path).or_else(|| {
        let owner = user::owner(path)?;
        let us = user::ours();
        (owner != us && owner != 0 && us != 0).then(|| {
            let shown = path.display();
            format!(
                "{shown}: belongs to user {}, but this process runs as user {}{}",
                user::name(owner),
                user::name(us),
                user::advice(path)
            )
        })
    })
}

/// Returns why a file cannot be created or written. The `bool` is true if the only problem is a missing permission.
pub fn unwritable(path: &Path) -> Option<(String, bool)> {
    let shown = path.display();
    let there = path.ancestors().find(|at| at.as_os_str().is_empty() || at.symlink_metadata().is_ok());
    let there = there.filter(|at| !at.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if there != path && !there.is_dir() {
        return Some((format!("{shown}: cannot be created, because {} is not a directory", there.display()), false));
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

/// Returns the folder's mode if the group or other users may read or enter it.
pub fn is_open(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let mode = fs::metadata(path).ok().filter(Metadata::is_dir)?.mode() & 0o777;
    (mode & 0o055 != 0).then_some(mode)
}

/// Creates a private directory (0700) and its missing parents, durably. An existing directory is not changed.
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
    // Create the outermost directory first, because each directory gets the owner of its parent.
    for dir in missing.into_iter().rev() {
        place::make_dir(dir)?;
        sync_dir(dir)?;
    }
    Ok(())
}

/// Creates or replaces a private file (0600) atomically. Readers see either the old or the new content, even after a
/// crash. When this returns, the new content is durable.
///
/// # Errors
/// An I/O error, or the path is a symbolic link or not a regular file.
pub fn write_private_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    refuse_link(path)?;
    let temp = Unpublished::with(path, bytes)?;
    rename_durably(&temp.0, path)
}

/// Renames a file within its folder, durably. An existing file with the new name is replaced.
///
/// # Errors
/// An I/O error.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(to)
}

/// Creates a private file (0600) with all its content at once. Never replaces an existing file.
///
/// # Errors
/// An I/O error, or [`io::ErrorKind::AlreadyExists`] if the name is taken, even by a broken link.
pub fn create_private_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Unpublished::with(path, bytes)?.publish_new(path)
}

/// A lock for changes to `path`, which is released when dropped. The lock is on a file beside `path`, because `path`
/// itself is replaced.
#[derive(Debug)]
pub struct EditLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock beside `path`.
///
/// # Errors
/// An I/O error, or the lock file is a symbolic link.
pub fn lock_for_edit(path: &Path) -> io::Result<EditLock> {
    let lock = beside(path, "lock")?;
    refuse_link(&lock)?;
    let file = place::open(&lock, OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW, 0o600)?;
    file.lock()?;
    Ok(EditLock(file))
}

/// Waits for the lock beside `path`, and holds a shared lock until the result is dropped. Does not create a file.
/// Returns `None` if the lock has never been taken.
///
/// # Errors
/// The errors of [`lock_for_edit`].
pub fn wait_for_edit(path: &Path) -> io::Result<Option<EditLock>> {
    let lock = beside(path, "lock")?;
    refuse_link(&lock)?;
    match place::open(&lock, OFlags::RDONLY | OFlags::NOFOLLOW, 0) {
        Ok(file) => file.lock_shared().map(|()| Some(EditLock(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A private file (0600) with a temporary name. Unless the file gets its final name, it is removed on drop.
#[derive(Debug)]
pub struct Unpublished(PathBuf);

impl Unpublished {
    /// Creates a new file beside `path`, with a unique name.
    ///
    /// # Errors
    /// An I/O error, or `path` does not name a file.
    pub fn beside(path: &Path) -> io::Result<(Self, File)> {
        let random = *random::<8>()?;
        let name = beside(path, &format!("{:016x}.tmp", u64::from_ne_bytes(random)))?;
        // O_EXCL also refuses to follow a symbolic link.
        let file = place::open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600)?;
        Ok((Self(name), file))
    }

    fn with(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let (temp, mut file) = Self::beside(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temp)
    }

    /// Gives the file its final name, durably. The file's content must already be durable.
    ///
    /// # Errors
    /// An I/O error, or [`io::ErrorKind::AlreadyExists`] if the name is taken, even by a broken link.
    pub fn publish_new(self, path: &Path) -> io::Result<()> {
        // Unlike a rename, creating a link fails if the name is taken.
        match fs::hard_link(&self.0, path) {
            // If hard links are unsupported, the rename may replace a concurrently created file.
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
        // The removal fails after a rename, because the temporary name is gone.
        let _ = fs::remove_file(&self.0);
    }
}

fn refuse_link(path: &Path) -> io::Result<()> {
    let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is {what}", path.display())));
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_symlink() => refuse("a symbolic link, which is not followed for writing"),
        Ok(meta) if !meta.is_file() => refuse("not a regular file"),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not name a file", path.display())));
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

fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(parent(path))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
