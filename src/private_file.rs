//! Files that hold secrets: read only where nobody else can, written so that nobody else ever could.
//!
//! Such a file belongs to us or to root, others have no right on it, and a group may at most read it, where the group
//! is ours (secrets that an orchestrator mounts are made that way). A symbolic link may be read through, because
//! mounted secrets are links, but is never written through.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The longest file of secrets that is read: far above any key, token or list of users that a file is right for.
const MAX_LEN: u64 = 64 << 20;

/// Is this file for our eyes only?
///
/// # Errors
/// A text that names the file, what is wrong and how to mend it: it cannot be looked at, is no regular file, belongs
/// to somebody else, or others may read or write it.
pub fn check_private_file(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    check(path, &meta)
}

/// Reads a file for our eyes only. The check is made on the open file, so that it cannot be exchanged in between.
///
/// # Errors
/// As [`check_private_file`], or the file is not UTF-8 text.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, String> {
    let name = path.display();
    let cannot = |e: io::Error| format!("{name}: cannot be read: {e}");
    // A FIFO would make `open` wait for a writer.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{name}: is not a regular file"));
    }
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    check(path, &meta)?;
    if meta.len() > MAX_LEN {
        return Err(format!("{name}: is longer than {MAX_LEN} bytes"));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(cannot)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(e) => Err(format!("{name}: is not UTF-8 text, from byte {} on", e.valid_up_to())),
    }
}

#[cfg(unix)]
fn check(path: &Path, meta: &Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let groups = rustix::process::getgroups().unwrap_or_default();
    let ours =
        |gid: u32| rustix::process::getegid().as_raw() == gid || groups.iter().any(|group| group.as_raw() == gid);
    let us = rustix::process::geteuid().as_raw();
    match verdict(meta.is_file(), meta.mode(), meta.uid(), us, ours(meta.gid())) {
        Ok(()) => Ok(()),
        Err(what) => Err(format!("{}: {what}", path.display())),
    }
}

#[cfg(unix)]
fn verdict(is_file: bool, mode: u32, owner: u32, us: u32, group_is_ours: bool) -> Result<(), String> {
    if !is_file {
        return Err("is not a regular file".to_owned());
    }
    if owner != us && owner != 0 {
        return Err(format!("belongs to user {owner}; it must belong to us (user {us}) or to root"));
    }
    let mode = mode & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("its mode {mode:03o} lets everyone at it; chmod 600 it"));
    }
    if mode & 0o030 != 0 {
        return Err(format!("its mode {mode:03o} gives the group more than reading; chmod 600 it"));
    }
    if mode & 0o040 != 0 && !group_is_ours {
        return Err(format!("its mode {mode:03o} lets a group read it that is not ours; chmod 600 it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check(path: &Path, meta: &Metadata) -> Result<(), String> {
    if meta.is_file() { Ok(()) } else { Err(format!("{}: is not a regular file", path.display())) }
}

/// Makes a directory, and those above it, for our eyes only (0700). One that is there stays as it is.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Replaces a file as a whole, or makes it, for our eyes only (0600): whoever reads it sees the old content or the new,
/// also after a crash, and once this returns the new content is on the disk.
///
/// # Errors
/// I/O; or the path is a symbolic link, which is not written through.
pub fn write_private_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    refuse_link(path)?;
    let temp = write_temp(path, bytes)?;
    fs::rename(&temp.0, path)?;
    sync_dir(path)
}

/// Makes a file for our eyes only (0600) where there is none: as [`write_private_atomic`], but never replaces.
///
/// # Errors
/// I/O; [`io::ErrorKind::AlreadyExists`] where something, even a broken link, has that name.
pub fn create_private_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = write_temp(path, bytes)?;
    // Unlike a rename, a link fails where the name is taken: of two that start together one wins.
    fs::hard_link(&temp.0, path)?;
    drop(temp);
    sync_dir(path)
}

/// A lock that keeps the commands that change `path` apart, until it is dropped. It lies in a file beside it, because
/// the file itself is replaced.
#[derive(Debug)]
pub struct EditLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock beside `path`.
///
/// # Errors
/// I/O; or the lock file is a symbolic link.
pub fn lock_for_edit(path: &Path) -> io::Result<EditLock> {
    let lock = beside(path, "lock")?;
    refuse_link(&lock)?;
    let file = private_options().create(true).truncate(false).open(lock)?;
    file.lock()?;
    Ok(EditLock(file))
}

/// Removed when dropped, unless it was renamed away.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn write_temp(path: &Path, bytes: &[u8]) -> io::Result<Temp> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let name = beside(path, &format!("{:016x}.tmp", u64::from_ne_bytes(random)))?;
    let mut file = private_options().create_new(true).open(&name)?;
    let temp = Temp(name);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temp)
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
        // A link put there between the check and now must not be followed either.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_symlink() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is a symbolic link, which is not written through", path.display()),
        )),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())));
    };
    Ok(path.with_file_name(format!(".{}.{suffix}", name.to_string_lossy())))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn o2_only_owner_or_our_group_may_have_rights() {
        const US: u32 = 1000;
        let ok = |mode, owner, ours| verdict(true, mode, owner, US, ours).is_ok();
        assert!(ok(0o100_600, US, false) && ok(0o400, US, false) && ok(0o600, 0, false));
        assert!(ok(0o640, US, true) && ok(0o440, 0, true), "a mounted secret");
        assert!(!ok(0o640, US, false), "a group that is not ours");
        assert!(!ok(0o660, US, true) && !ok(0o650, US, true), "a group that may do more than read");
        for others in [0o601, 0o602, 0o604, 0o644, 0o777] {
            assert!(!ok(others, US, true), "{others:o}");
        }
        assert!(!ok(0o600, 1001, true), "somebody else's");
        assert!(verdict(false, 0o600, US, US, true).is_err(), "no regular file");
    }

    #[test]
    fn o2_a_file_that_everyone_may_read_is_refused_with_its_name_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "s").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let said = read_private(&path).unwrap_err();
        assert!(said.contains("secret") && said.contains("644") && said.contains("chmod 600"), "{said}");
        assert_eq!(check_private_file(&path).unwrap_err(), said);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_private(&path).unwrap().as_str(), "s");
        assert!(read_private(dir.path()).unwrap_err().contains("not a regular file"));
    }

    #[test]
    fn o2_files_and_directories_are_made_for_us_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/secret");
        create_private_dir(path.parent().unwrap()).unwrap();
        write_private_atomic(&path, b"one").unwrap();
        write_private_atomic(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_str(), "two");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(create_private_new(&path, b"three").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read_private(&path).unwrap().as_str(), "two");
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "no temporary file stays");
    }

    #[test]
    fn o2_a_link_is_read_through_but_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write_private_atomic(&real, b"kept").unwrap();
        symlink(&real, &link).unwrap();
        assert_eq!(read_private(&link).unwrap().as_str(), "kept");
        assert!(write_private_atomic(&link, b"lost").unwrap_err().to_string().contains("symbolic link"));
        assert!(create_private_new(&link, b"lost").is_err());
        assert_eq!(fs::read(&real).unwrap(), b"kept");
        symlink(&real, dir.path().join(".real.lock")).unwrap();
        assert!(lock_for_edit(&real).unwrap_err().to_string().contains("symbolic link"));
    }
}
