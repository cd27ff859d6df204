//! This process's user, and owners of files.

use std::path::Path;

pub(super) fn ours() -> u32 {
    #[cfg(unix)]
    return rustix::process::geteuid().as_raw();
    #[cfg(not(unix))]
    0
}

#[cfg(unix)]
pub(super) fn is_our_group(group: u32) -> bool {
    let groups = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || groups.iter().any(|ours| ours.as_raw() == group)
}

pub(super) fn may(path: &Path, access: rustix::fs::Access) -> rustix::io::Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, access, rustix::fs::AtFlags::EACCESS)
}

pub(super) fn owner(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    return std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    #[cfg(not(unix))]
    return Some(path).and(None);
}

pub(super) fn name(user: u32) -> String {
    match login(user) {
        Some(name) => format!("{user} ({name})"),
        None => user.to_string(),
    }
}

pub(super) fn advice(path: &Path) -> String {
    let Some(owner) = path.ancestors().filter(|at| !at.as_os_str().is_empty()).find_map(owner) else {
        return String::new();
    };
    if owner == ours() {
        return String::new();
    }
    match login(owner) {
        Some(name) => format!(": run sudo -u {name} rotogate …"),
        None => format!(": run sudo -u '#{owner}' rotogate …"),
    }
}

/// Without `-o`, the new folder would belong to root.
pub(super) fn advice_to_make(folder: &Path) -> String {
    let owner = login(ours()).unwrap_or_else(|| ours().to_string());
    format!(": run sudo install -d -m 0700 -o {owner} {}", folder.display())
}

/// Reads only `/etc/passwd`, because a network look-up could delay the message.
fn login(user: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (is_plain && id.parse() == Ok(user)).then(|| name.to_owned())
    })
}
