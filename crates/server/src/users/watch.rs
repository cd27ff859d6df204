//! Sees that `users.toml` changed, and has it read again.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use super::FileDirectory;
use crate::stamp::{LOOK_EVERY, Looked};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::directory::DirectoryError;

/// Keeps the users up to date for as long as it lives: a change counts within a second.
#[derive(Debug)]
#[must_use = "the file is watched until this is dropped"]
pub struct Watch(#[expect(dead_code, reason = "held: dropping it ends the watching")] Sender<()>);

pub(super) fn start(directory: &Arc<FileDirectory>) -> Result<Watch, DirectoryError> {
    let clock = SystemTime::new();
    let path = directory.path.clone();
    let mut looked = Looked::at([path.clone()], clock.wall());
    let held = Arc::downgrade(directory);
    let (watch, dropped) = channel();
    let run = move || {
        while let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(LOOK_EVERY) {
            let Some(directory) = held.upgrade() else { return };
            if looked.look([path.clone()], clock.wall()) {
                // Logged there.
                let _ = directory.reload();
            }
        }
    };
    std::thread::Builder::new().name("users-watch".to_owned()).spawn(run).map_err(|error| {
        DirectoryError::Unavailable(format!("{}: cannot be watched: {error}", directory.path.display()))
    })?;
    // What changed between the opening and now was seen by nobody. Logged there.
    let _ = directory.reload();
    Ok(Watch(watch))
}
