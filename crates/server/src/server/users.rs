//! Acts on changes of the users file: a user that was disabled, removed, moved to another account or given another
//! password is refused from the first request after the file was read, not only at the next refresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::users::{FileDirectory, FileWatcher, UserChange};
use rotogate::directory::User;
use rotogate::fault::Chain;
use rotogate::gate::Gate;
use rotogate::revocation::Revocation;

/// The first and the longest pause before a revocation is written again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a reload waits until all revocations that it caused are durable.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The users of a gate.
#[derive(Debug)]
pub(crate) struct LiveUsers {
    directory: Arc<FileDirectory>,
    _watcher: FileWatcher,
    /// The number of revocations that are not durable yet. They already count on this gate.
    unwritten: watch::Receiver<usize>,
}

/// Why a change of the file was not applied completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file is broken; the users stay as they were.
    #[error("{0}")]
    Broken(String),
    /// The change counts here, but the store does not have all revocations that it caused.
    #[error(
        "the change counts on this gate, but the store cannot be written: the sessions that it ends may return after a restart"
    )]
    NotDurable,
}

impl LiveUsers {
    /// Ends sessions when the file changes.
    pub(super) fn watch(directory: Arc<FileDirectory>, watcher: FileWatcher, gate: &Gate) -> Self {
        let (unwritten, waiting) = watch::channel(0);
        let (gate, runtime) = (gate.clone(), tokio::runtime::Handle::current());
        directory.on_change(move |changes| {
            for change in changes {
                let Some(entry) = revocation_for(change, &gate) else { continue };
                // Synchronously: the next request is refused.
                gate.sessions().refuse(&entry);
                unwritten.send_modify(|number| *number += 1);
                let (gate, unwritten) = (gate.clone(), unwritten.clone());
                runtime.spawn(async move {
                    write_durably(&gate, entry).await;
                    unwritten.send_modify(|number| *number -= 1);
                });
            }
        });
        Self { directory, _watcher: watcher, unwritten: waiting }
    }

    /// The users file.
    pub(crate) fn directory(&self) -> &FileDirectory {
        &self.directory
    }

    /// Reads the file now, and waits until all revocations that it caused are durable.
    pub(crate) async fn reload(&self) -> Result<(), ReloadError> {
        let directory = Arc::clone(&self.directory);
        let read = tokio::task::spawn_blocking(move || directory.reload()).await;
        match read {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(ReloadError::Broken(error.to_string())),
            Err(error) => return Err(ReloadError::Broken(error.to_string())),
        }
        let mut unwritten = self.unwritten.clone();
        match tokio::time::timeout(DURABLE_TIMEOUT, unwritten.wait_for(|number| *number == 0)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReloadError::NotDurable),
        }
    }
}

/// The revocation that a change causes, if any: all sessions so far of a user that must log in again.
fn revocation_for(change: &UserChange, gate: &Gate) -> Option<Revocation> {
    let UserChange { before, after } = change;
    let sessions = gate.sessions();
    // The time of this moment, not of the file: a session that began in between began by the old file.
    let now = || sessions.now();
    let moment = match after {
        None => now(),
        Some(after) if must_log_in_again(before, after) => after.sessions_valid_from.max(now()),
        Some(after) if after.sessions_valid_from > before.sessions_valid_from => after.sessions_valid_from,
        Some(_) => return None,
    };
    Some(sessions.subject_before(&before.subject, moment))
}

/// Whether the user may no longer log in, or has another password or account.
fn must_log_in_again(before: &User, after: &User) -> bool {
    (before.active && !after.active) || before.password_mark != after.password_mark || before.account != after.account
}

/// Writes a revocation, and retries until it is durable.
async fn write_durably(gate: &Gate, entry: Revocation) {
    let mut wait = FIRST_RETRY;
    while let Err(error) = gate.sessions().write(entry.clone()).await {
        let why = match &error {
            rotogate::fault::Error::Failed(fault) => format!("{:?}", Chain(fault)),
            rotogate::fault::Error::Denied(denial) => denial.reason().to_owned(),
        };
        tracing::error!(error = why, "revocation of a changed user not written; refused on this node, retrying");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}
