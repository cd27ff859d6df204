//! Ends sessions when the users file changes. If a user was disabled, removed, moved to another account or given
//! another password, the gate refuses the user's tokens from the next request on, not only at the next refresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use rotogate::Gate;
use rotogate_core::directory::User;
use rotogate_core::fault::Chain;
use rotogate_core::revocation::Revocation;
use rotogate_directories::users::{FileDirectory, FileWatcher, UserChange};

/// The first pause before a failed write of a revocation is repeated, and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a reload waits until all revocations that it caused are durable.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The users of a running gate, whose file is watched.
#[derive(Debug)]
pub(crate) struct LiveUsers {
    directory: Arc<FileDirectory>,
    _watcher: FileWatcher,
    /// The number of revocations that are not durable yet. This gate already applies them.
    unwritten: watch::Receiver<usize>,
}

/// The reason why a change of the file was not applied completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file is invalid, so the old users are kept.
    #[error("{0}")]
    Broken(String),
    /// The change has taken effect on this gate, but the store does not have all of the resulting revocations.
    #[error(
        "the change has taken effect on this gate, but the store cannot be written. Sessions that the change ended \
         may be valid again after a restart"
    )]
    NotDurable,
}

impl LiveUsers {
    /// Starts to watch the file, and ends the sessions of changed users.
    pub(crate) fn watch(directory: Arc<FileDirectory>, watcher: FileWatcher, gate: &Gate) -> Self {
        let (unwritten, waiting) = watch::channel(0);
        gate.say_users(&directory.digest());
        let (said, speaks) = (Arc::downgrade(&directory), gate.clone());
        directory.on_reload(move || {
            if let Some(directory) = said.upgrade() {
                speaks.say_users(&directory.digest());
            }
        });
        let (gate, runtime) = (gate.clone(), tokio::runtime::Handle::current());
        directory.on_change(move |changes| {
            for change in changes {
                let Some(end) = end_of_sessions(change, &gate) else { continue };
                if let End::Now(entry) = &end {
                    // This call is synchronous, so that the very next request is refused.
                    gate.sessions().refuse(entry);
                }
                unwritten.send_modify(|number| *number += 1);
                let (gate, unwritten) = (gate.clone(), unwritten.clone());
                runtime.spawn(async move {
                    match end {
                        End::Now(entry) => write_durably(&gate, entry).await,
                        End::AsOfAll { subject, after } => end_as_of_all(&gate, &subject, after.as_ref()).await,
                    }
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

/// The way in which a change of a user ends the user's sessions.
enum End {
    /// With this revocation.
    Now(Revocation),
    /// With a revocation of the sessions up to the time at which the first gate of the store found the change.
    AsOfAll { subject: Box<str>, after: Option<User> },
}

/// Returns how a change ends sessions. `None` if it does not. If the user must log in again, all existing sessions end.
fn end_of_sessions(change: &UserChange, gate: &Gate) -> Option<End> {
    let UserChange { before, after } = change;
    let sessions = gate.sessions();
    // The current time is used, not the file's modification time, because a session created between the two was
    // admitted with the old file.
    let moment = match after {
        Some(after) if !must_log_in_again(before, after) => {
            (after.sessions_valid_from > before.sessions_valid_from).then_some(after.sessions_valid_from)?
        }
        _ if sessions.are_shared() => {
            return Some(End::AsOfAll { subject: before.subject.clone(), after: after.clone() });
        }
        Some(after) => after.sessions_valid_from.max(sessions.now()),
        None => sessions.now(),
    };
    Some(End::Now(sessions.subject_before(&before.subject, moment)))
}

/// Ends the sessions of a changed user. Other gates of the store also find the change. All gates end the sessions that
/// were created before the first gate found it. This gate also ends later sessions that it admitted with the old state
/// of the user.
async fn end_as_of_all(gate: &Gate, subject: &str, after: Option<&User>) {
    let sessions = gate.sessions();
    let (mut wait, mut held) = (FIRST_RETRY, None);
    let moment = loop {
        match sessions.moment_of_change(subject, after).await {
            Ok(moment) => break moment,
            Err(error) => {
                tracing::error!(
                    error = why(&error),
                    "the store did not return the time of a user's change; this gate refuses the user's tokens and \
                     retries"
                );
                // This revocation also refuses logins that another gate admitted with the user's new state. To limit
                // that effect, it stays in memory and is not written to the store.
                held.get_or_insert_with(|| {
                    let so_far = sessions.subject_before(subject, sessions.now());
                    sessions.refuse_for_now(&so_far);
                    so_far
                });
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
        }
    };
    let valid_from = after.map_or(moment, |after| after.sessions_valid_from.max(moment));
    let mut entries = match sessions.begun_otherwise(subject, after, moment) {
        Some(entries) => entries,
        None => vec![sessions.subject_before(subject, sessions.now())],
    };
    entries.push(sessions.subject_before(subject, valid_from));
    entries.iter().for_each(|entry| sessions.refuse(entry));
    for entry in entries {
        write_durably(gate, entry).await;
    }
    if let Some(held) = held {
        sessions.let_go(&held);
    }
}

/// Returns whether the user may no longer log in, or has another password or account.
fn must_log_in_again(before: &User, after: &User) -> bool {
    (before.active && !after.active) || before.password_mark != after.password_mark || before.account != after.account
}

fn why(error: &rotogate_core::fault::Error) -> String {
    match error {
        rotogate_core::fault::Error::Failed(fault) => format!("{:?}", Chain(fault)),
        rotogate_core::fault::Error::Denied(denial) => denial.reason().to_owned(),
    }
}

/// Writes a revocation, and retries until it is durable.
async fn write_durably(gate: &Gate, entry: Revocation) {
    let mut wait = FIRST_RETRY;
    while let Err(error) = gate.sessions().write(entry.clone()).await {
        tracing::error!(
            error = why(&error),
            "revocation of a changed user not written to the store; this gate enforces the revocation and retries"
        );
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}
