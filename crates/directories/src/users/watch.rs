//! Watches `users.toml` for changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use parking_lot::{Mutex, MutexGuard};

use super::FileDirectory;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::directory::DirectoryError;
use rotogate_kit::file_stamp::{CHECK_INTERVAL, ChangeDetector};

/// Watches the users file until this value is dropped. Changes take effect within a second.
#[derive(Debug)]
#[must_use = "the file is watched until this is dropped"]
pub struct FileWatcher(#[expect(dead_code, reason = "dropping the sender ends the watch")] Sender<()>);

#[derive(Debug, Default)]
pub(super) struct UsersFileState {
    clock: SystemTime,
    detector: Mutex<ChangeDetector>,
}

impl UsersFileState {
    /// Must be called before the file is read, so that later changes are detected.
    pub(super) fn begin(&self, path: &Path) {
        self.detector().note_read([path.to_owned()], self.clock.wall());
    }

    fn has_changed(&self, path: &Path) -> bool {
        self.detector().poll_changed([path.to_owned()], self.clock.wall())
    }

    fn detector(&self) -> MutexGuard<'_, ChangeDetector> {
        self.detector.lock()
    }
}

pub(super) fn start(directory: &Arc<FileDirectory>) -> Result<FileWatcher, DirectoryError> {
    let held = Arc::downgrade(directory);
    let (watch, dropped) = channel();
    // The file may have changed since it was opened. `reload` logs errors.
    let _ = directory.reload();
    let run = move || {
        while let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(CHECK_INTERVAL) {
            let Some(directory) = held.upgrade() else { return };
            if directory.last_read.has_changed(&directory.file.path) {
                // `reload` logs errors.
                let _ = directory.reload();
            }
        }
    };
    std::thread::Builder::new().name("users-watch".to_owned()).spawn(run).map_err(|error| {
        DirectoryError::Unavailable(format!("{}: cannot be watched: {error}", directory.file.path.display()))
    })?;
    Ok(FileWatcher(watch))
}
