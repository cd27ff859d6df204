//! Watches `users.toml` and reloads it when it changes.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use super::FileDirectory;
use crate::file_stamp::{CHECK_INTERVAL, ChangeDetector};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::directory::DirectoryError;

/// Watches the users file until dropped. A change counts within a second.
#[derive(Debug)]
#[must_use = "the file is watched until this is dropped"]
pub struct FileWatcher(#[expect(dead_code, reason = "held: dropping it ends the watching")] Sender<()>);

pub(super) fn start(directory: &Arc<FileDirectory>) -> Result<FileWatcher, DirectoryError> {
    let clock = SystemTime::new();
    let path = directory.file.path.clone();
    let mut detector = ChangeDetector::new([path.clone()], clock.wall());
    let held = Arc::downgrade(directory);
    let (watch, dropped) = channel();
    let run = move || {
        while let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(CHECK_INTERVAL) {
            let Some(directory) = held.upgrade() else { return };
            if detector.poll_changed([path.clone()], clock.wall()) {
                // `reload` logs the error.
                let _ = directory.reload();
            }
        }
    };
    std::thread::Builder::new().name("users-watch".to_owned()).spawn(run).map_err(|error| {
        DirectoryError::Unavailable(format!("{}: cannot be watched: {error}", directory.file.path.display()))
    })?;
    // Covers changes between opening the file and now. `reload` logs the error.
    let _ = directory.reload();
    Ok(FileWatcher(watch))
}
