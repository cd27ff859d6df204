//! Public files that only trusted users may change (requirement O15), such as configuration and certificates.
//!
//! Only root, the file's owner, and this process's user and groups may write to these files. Group write access is
//! allowed, because files created with umask 002 have it.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{parent, remedy, user};

/// Reads a trusted file of at most `max` bytes.
///
/// # Errors
/// A message with the file, the problem and the remedy. The file cannot be read, is too long, or others may change it.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let cannot = |e: io::Error| format!("{shown}: cannot be read: {e}{}", remedy(path, &e));
    // Without NONBLOCK, opening a named pipe would block.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(format!("{shown}: is not a regular file"));
    }
    if let Some((who, cure)) = writers(&meta) {
        return Err(format!("{shown}: {who} may change it (mode {:03o}): chmod {cure} {shown}", meta.mode() & 0o777));
    }
    check_folders(path)?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(format!("{shown}: is longer than {max} bytes"));
    }
    Ok(bytes)
}

/// Checks that other users cannot replace this file. Examines the folder of the path and, for a link, the folder of its
/// target.
///
/// # Errors
/// A message with the other users and the remedy.
pub fn check_folders(path: &Path) -> Result<(), String> {
    let named = parent(path);
    let real = fs::canonicalize(path).ok();
    let real = real.as_deref().map(parent).filter(|real| fs::canonicalize(named).is_ok_and(|named| named != *real));
    [Some(named), real].into_iter().flatten().try_for_each(|folder| check_folder(path, folder))
}

fn check_folder(path: &Path, folder: &Path) -> Result<(), String> {
    let Ok(meta) = fs::metadata(folder) else { return Ok(()) };
    // In a sticky folder, users can replace only their own files. On a read-only mount, users cannot replace any file.
    let is_sticky = meta.mode() & 0o1000 != 0;
    let is_read_only =
        || rustix::fs::statvfs(folder).is_ok_and(|mount| mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    match writers(&meta) {
        Some((who, cure)) if !is_sticky && !is_read_only() => {
            let (shown, folder, mode) = (path.display(), folder.display(), meta.mode() & 0o777);
            Err(format!(
                "{shown}: {who} may replace the file, because its folder {folder} has mode {mode:03o}: chmod \
                 {cure} {folder}"
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns who else may write to the file, and the argument of `chmod` that removes this permission.
fn writers(meta: &Metadata) -> Option<(String, &'static str)> {
    objection(meta.mode(), user::is_our_group(meta.gid())).map(|(who, cure)| match who {
        Writers::Everyone => ("everyone".to_owned(), cure),
        Writers::Group => (format!("members of group {} (not a group of this process)", meta.gid()), cure),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    Everyone,
    Group,
}

fn objection(mode: u32, group_is_ours: bool) -> Option<(Writers, &'static str)> {
    if mode & 0o002 != 0 {
        return Some((Writers::Everyone, "o-w"));
    }
    (mode & 0o020 != 0 && !group_is_ours).then_some((Writers::Group, "g-w"))
}

/// Returns the mode of the file if all users may read the file.
pub fn is_for_everyone(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    (mode & 0o004 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn o15_only_our_own_group_may_write() {
        for mode in [0o600, 0o644, 0o444, 0o755] {
            assert_eq!(objection(mode, false), None, "{mode:o}");
        }
        // A git clone under umask 002 has this mode.
        assert_eq!(objection(0o664, true), None);
        assert_eq!(objection(0o664, false), Some((Writers::Group, "g-w")));
        for mode in [0o666, 0o602, 0o777] {
            assert_eq!(objection(mode, true), Some((Writers::Everyone, "o-w")), "{mode:o}");
        }
    }

    #[test]
    fn o15_what_everyone_may_write_or_exchange_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, other) = (dir.path().join("folder"), dir.path().join("other"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&other).unwrap();
        let (file, link) = (folder.join("idp.pem"), other.join("link.pem"));
        fs::write(&file, "key").unwrap();
        symlink(&file, &link).unwrap();
        for mode in [0o600, 0o644, 0o664] {
            set(&file, mode);
            assert_eq!(read(&file, 8).unwrap(), b"key", "{mode:o}");
        }
        set(&file, 0o666);
        for path in [&file, &link] {
            let said = read(path, 8).unwrap_err();
            assert!(said.contains("everyone may change it (mode 666): chmod o-w"), "{said}");
        }
        set(&file, 0o644);
        for (folder, refused) in [(&folder, vec![&file, &link]), (&other, vec![&link])] {
            set(folder, 0o777);
            for path in refused {
                let said = read(path, 8).unwrap_err();
                assert!(said.starts_with(&path.display().to_string()), "{said}");
                assert!(said.ends_with(&format!("chmod o-w {}", folder.display())), "{said}");
            }
            set(folder, 0o1777);
            assert_eq!(read(&link, 8).unwrap(), b"key");
            set(folder, 0o755);
        }
        assert!(read(&file, 2).unwrap_err().contains("longer than 2 bytes"));
        assert!(read(&folder, 8).unwrap_err().contains("not a regular file"));
        assert!(read(&folder.join("none"), 8).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn o15_a_file_as_kubernetes_mounts_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("..2026_01_31");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("gateway.toml"), "x").unwrap();
        symlink("..2026_01_31", dir.path().join("..data")).unwrap();
        symlink("..data/gateway.toml", dir.path().join("gateway.toml")).unwrap();
        set(dir.path(), 0o1777);
        assert_eq!(read(&dir.path().join("gateway.toml"), 8).unwrap(), b"x");
    }
}
