//! Sees that `users.toml` changed. The directory is watched and not the file: editors, our own commands and mounted
//! secrets all replace the file, and a watch on it would stay with the old one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::FileDirectory;
use crate::directory::DirectoryError;

/// How long a change may still go on when it is seen first: an editor writes, renames and sets modes.
const SETTLE: Duration = Duration::from_millis(200);

/// Keeps the users up to date for as long as it lives.
#[derive(Debug)]
#[must_use = "the file is watched until this is dropped"]
pub struct Watch(#[expect(dead_code, reason = "held: dropping it ends the watching")] RecommendedWatcher);

pub(super) fn start(directory: &Arc<FileDirectory>) -> Result<Watch, DirectoryError> {
    let path = &directory.path;
    let fail = |what: String| DirectoryError::Unavailable(format!("{}: cannot be watched: {what}", path.display()));
    let mut places = vec![parent(path)];
    let mut names: Vec<OsString> = path.file_name().map(Into::into).into_iter().collect();
    // A link may lead to another directory, where the change happens.
    if let Ok(real) = path.canonicalize() {
        names.extend(real.file_name().map(Into::into));
        let real = parent(&real);
        if places.iter().all(|place| place.canonicalize().ok().as_ref() != Some(&real)) {
            places.push(real);
        }
    }
    let (tell, told) = mpsc::sync_channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, |event| concerns(event, &names)) {
            // A full channel: somebody is about to look anyway.
            let _ = tell.try_send(());
        }
    })
    .map_err(|e| fail(e.to_string()))?;
    for place in &places {
        watcher.watch(place, RecursiveMode::NonRecursive).map_err(|e| fail(e.to_string()))?;
    }
    let held = Arc::downgrade(directory);
    let run = move || {
        while told.recv().is_ok() {
            // Not started anew by each event: a file that is written without a pause is read all the same.
            std::thread::sleep(SETTLE);
            while told.try_recv().is_ok() {}
            let Some(directory) = held.upgrade() else { return };
            // Logged there.
            let _ = directory.reload();
        }
    };
    std::thread::Builder::new().name("users-watch".to_owned()).spawn(run).map_err(|e| fail(e.to_string()))?;
    // What changed between the opening and now was seen by nobody. Logged there.
    let _ = directory.reload();
    Ok(Watch(watcher))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Reading the file is an event too, and would never end; the directory may hold files that change all the time.
fn concerns(event: &Event, names: &[OsString]) -> bool {
    let reading = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let ours = |path: &PathBuf| {
        let Some(name) = path.file_name() else { return true };
        // Mounted secrets are replaced by exchanging the link `..data`.
        names.iter().any(|ours| ours == name) || name.as_encoded_bytes().starts_with(b"..")
    };
    !reading && (event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(ours))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, ModifyKind};

    use super::*;

    #[test]
    fn our_own_reading_and_other_files_are_no_change() {
        let names = [OsString::from("users.toml")];
        let seen = |kind, path: &str| concerns(&Event::new(kind).add_path(path.into()), &names);
        let modified = EventKind::Modify(ModifyKind::Any);
        assert!(seen(modified, "data/users.toml"));
        assert!(seen(EventKind::Access(AccessKind::Close(AccessMode::Write)), "data/users.toml"));
        assert!(seen(EventKind::Create(CreateKind::Any), "data/..data"), "a mounted secret is replaced");
        assert!(!seen(EventKind::Access(AccessKind::Open(AccessMode::Any)), "data/users.toml"));
        assert!(!seen(EventKind::Access(AccessKind::Close(AccessMode::Read)), "data/users.toml"));
        assert!(!seen(modified, "data/rotogate.redb"), "the store writes all the time");
    }
}
