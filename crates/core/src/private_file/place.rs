//! Opens and creates files in folders that another user can change. That user could place a link there to make root
//! open another file (requirement O17).
//!
//! In these folders, root does not follow links. Root opens only regular files that belong to the folder's owner, and
//! gives new files to that owner. Elsewhere, links are followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fchown, fstat, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};

use super::{parent, user};

/// With `O_PATH`, opening the folder does not need read permission.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PASS: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PASS: OFlags = OFlags::RDONLY;

/// Renaming or replacing the folder does not change which folder is used.
struct FolderEntry<'a> {
    /// `None` if this process follows links and `name` is the whole path.
    folder: Option<OwnedFd>,
    name: &'a OsStr,
    /// Set only if the process is root and another user can change the folder.
    foreign: Option<Stat>,
}

impl<'a> FolderEntry<'a> {
    fn locate(path: &'a Path) -> io::Result<Self> {
        if user::ours() != 0 {
            return Ok(Self { folder: None, name: path.as_os_str(), foreign: None });
        }
        let name =
            path.file_name().ok_or_else(|| io::Error::other(format!("{} does not name a file", path.display())))?;
        let mut folder = openat(CWD, if path.has_root() { "/" } else { "." }, PASS | OFlags::DIRECTORY, Mode::empty())?;
        let mut owner = foreign(&folder)?;
        for part in parent(path).components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)) {
            let flags = PASS | OFlags::DIRECTORY | links(owner.as_ref());
            let opened = openat(&folder, part.as_os_str(), flags, Mode::empty());
            folder = opened.map_err(|error| explained(error, owner.as_ref()))?;
            owner = foreign(&folder)?;
        }
        Ok(Self { folder: Some(folder), name, foreign: owner })
    }

    fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_ref().map_or(CWD, AsFd::as_fd)
    }

    fn open(&self, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | links(self.foreign.as_ref());
        retry_on_intr(|| openat(self.folder(), self.name, flags, Mode::from_raw_mode(mode)))
    }

    fn hand_over(&self, made: &impl AsFd) -> io::Result<()> {
        if let Some(folder) = self.foreign.as_ref().filter(|folder| folder.st_uid != 0) {
            let owner = rustix::fs::Uid::from_raw(folder.st_uid);
            fchown(made, Some(owner), Some(rustix::fs::Gid::from_raw(folder.st_gid)))?;
        }
        Ok(())
    }
}

/// In a sticky folder, users can replace only their own files.
fn foreign(folder: &OwnedFd) -> io::Result<Option<Stat>> {
    let stat = fstat(folder)?;
    let mode = stat.st_mode;
    let is_shared = mode & 0o1000 == 0 && (mode & 0o002 != 0 || mode & 0o020 != 0 && stat.st_gid != 0);
    Ok((stat.st_uid != 0 || is_shared).then_some(stat))
}

fn links(foreign: Option<&Stat>) -> OFlags {
    foreign.map_or(OFlags::empty(), |_| OFlags::NOFOLLOW)
}

fn explained(error: Errno, foreign: Option<&Stat>) -> io::Error {
    match foreign {
        Some(folder) if matches!(error, Errno::LOOP | Errno::NOTDIR) => io::Error::other(format!(
            "the path has a symbolic link in a folder of user {}, but root follows no links in other users' folders",
            user::name(folder.st_uid)
        )),
        Some(_) | None => error.into(),
    }
}

/// With `CREATE`, a missing file is created with this mode. With `EXCL`, the file must not exist yet.
pub(super) fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let place = FolderEntry::locate(path)?;
    let Some(folder) = &place.foreign else { return Ok(place.open(flags, mode)?.into()) };
    // Limit the attempts, because the folder's owner can make every attempt fail.
    for _ in 0..8 {
        if !flags.contains(OFlags::EXCL) {
            match place.open(flags.difference(OFlags::CREATE) | OFlags::NONBLOCK, 0) {
                Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {}
                opened => {
                    let file = opened.map_err(|error| explained(error, Some(folder)))?;
                    let stat = fstat(&file)?;
                    let is_the_owners = stat.st_uid == folder.st_uid || folder.st_uid == 0;
                    if is_the_owners && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                        return Ok(file.into());
                    }
                    let [owner, folder] = [stat.st_uid, folder.st_uid].map(user::name);
                    return Err(io::Error::other(format!(
                        "root opens only regular files of user {folder} in that user's folder; this one is not regular, or \
                         belongs to user {owner}"
                    )));
                }
            }
        }
        match place.open(flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
            made => {
                let made = made?;
                place.hand_over(&made)?;
                return Ok(made.into());
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Creates a directory, unless it exists.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    let place = FolderEntry::locate(path)?;
    let is_new = match mkdirat(place.folder(), place.name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let made = place.open(OFlags::RDONLY | OFlags::DIRECTORY, 0).map_err(|e| explained(e, place.foreign.as_ref()))?;
    if is_new && fstat(&made)?.st_uid == user::ours() {
        place.hand_over(&made)?;
    }
    Ok(())
}
