//! Watches `users.toml` and reloads it when it changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use parking_lot::{Mutex, MutexGuard};

use super::FileDirectory;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::directory::DirectoryError;
use rotogate_kit::file_stamp::{CHECK_INTERVAL, ChangeDetector};

/// Watches the users file until it is dropped. A change of the file takes effect within a second.
#[derive(Debug)]
#[must_use = "the file is watched until this is dropped"]
pub struct FileWatcher(#[expect(dead_code, reason = "held: dropping it ends the watching")] Sender<()>);

/// The state of the file when it was last read.
#[derive(Debug, Default)]
pub(super) struct UsersFileState {
    clock: SystemTime,
    detector: Mutex<ChangeDetector>,
}

impl UsersFileState {
    /// Records that the file is about to be read, so that the next check finds only later changes.
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
    // Picks up changes that were made since the file was opened. `reload` logs the error.
    let _ = directory.reload();
    let run = move || {
        while let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(CHECK_INTERVAL) {
            let Some(directory) = held.upgrade() else { return };
            if directory.last_read.has_changed(&directory.file.path) {
                // `reload` logs the error.
                let _ = directory.reload();
            }
        }
    };
    std::thread::Builder::new().name("users-watch".to_owned()).spawn(run).map_err(|error| {
        DirectoryError::Unavailable(format!("{}: cannot be watched: {error}", directory.file.path.display()))
    })?;
    Ok(FileWatcher(watch))
}
