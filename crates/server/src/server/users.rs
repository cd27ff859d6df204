//! Whoever was disabled, removed, moved to another account or given another password is out with the first request after
//! the file was read, and not at the next refresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::users::{FileDirectory, UserChange, Watch};
use rotogate::directory::User;
use rotogate::fault::Chain;
use rotogate::gate::Gate;
use rotogate::revocation::Revocation;

/// How long to wait before what a change has ended is written once more, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long whoever asked for a change waits until all that it has ended is durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(5);

/// The users of a gate.
#[derive(Debug)]
pub(crate) struct Users {
    directory: Arc<FileDirectory>,
    _watch: Watch,
    /// How much of what changes have ended is not durable yet. It counts on this gate all the same.
    unwritten: watch::Receiver<usize>,
}

/// Why a change of the file was not taken up as a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The file is broken: the users stay as they were.
    #[error("{0}")]
    Broken(String),
    /// It counts, but the store does not know of all that it has ended.
    #[error(
        "the change counts on this gate, but the store cannot be written: the sessions that it ends may be back after a restart"
    )]
    NotDurable,
}

impl Users {
    /// Ends sessions as the file changes.
    pub(super) fn follow(directory: Arc<FileDirectory>, watch: Watch, gate: &Gate) -> Self {
        let (unwritten, waiting) = watch::channel(0);
        let (gate, runtime) = (gate.clone(), tokio::runtime::Handle::current());
        directory.on_change(move |changes| {
            for change in changes {
                let Some(entry) = ended(change, &gate) else { continue };
                // Here and now: the request after this one is refused.
                gate.sessions().refuse(&entry);
                unwritten.send_modify(|number| *number += 1);
                let (gate, unwritten) = (gate.clone(), unwritten.clone());
                runtime.spawn(async move {
                    write(&gate, entry).await;
                    unwritten.send_modify(|number| *number -= 1);
                });
            }
        });
        Self { directory, _watch: watch, unwritten: waiting }
    }

    /// Who they are.
    pub(crate) fn directory(&self) -> &FileDirectory {
        &self.directory
    }

    /// Reads the file now, and waits until all that it has ended is durable.
    pub(crate) async fn reload(&self) -> Result<(), NotTaken> {
        let directory = Arc::clone(&self.directory);
        let read = tokio::task::spawn_blocking(move || directory.reload()).await;
        match read {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(NotTaken::Broken(error.to_string())),
            Err(error) => return Err(NotTaken::Broken(error.to_string())),
        }
        let mut unwritten = self.unwritten.clone();
        match tokio::time::timeout(DURABLE_WITHIN, unwritten.wait_for(|number| *number == 0)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotTaken::NotDurable),
        }
    }
}

/// What a change ends, if anything: every session that has begun so far, where the user may not come in as before.
fn ended(change: &UserChange, gate: &Gate) -> Option<Revocation> {
    let UserChange { before, after } = change;
    let before = before.as_ref()?;
    let sessions = gate.sessions();
    // A stamp of now and not of when the file was written: what began in between began by what the file said before.
    let now = || sessions.now();
    let moment = match after {
        None => now(),
        Some(after) if is_another(before, after) => after.sessions_valid_from.max(now()),
        Some(after) if after.sessions_valid_from > before.sessions_valid_from => after.sessions_valid_from,
        Some(_) => return None,
    };
    Some(sessions.subject_before(&before.subject, moment))
}

/// May the user not come in any more, or only in another way, or as a member of another account?
fn is_another(before: &User, after: &User) -> bool {
    (before.active && !after.active) || before.password_mark != after.password_mark || before.account != after.account
}

/// Writes it, as often as that takes.
async fn write(gate: &Gate, entry: Revocation) {
    let mut wait = FIRST_RETRY;
    while let Err(error) = gate.sessions().write(entry.clone()).await {
        let why = match &error {
            rotogate::fault::Error::Failed(fault) => format!("{:?}", Chain(fault)),
            rotogate::fault::Error::Denied(denial) => denial.reason().to_owned(),
        };
        tracing::error!(error = why, "sessions of a changed user are refused here; the store does not know it yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}
