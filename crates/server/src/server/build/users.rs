//! Ends sessions when the users file changes. Tokens of removed or changed users are refused from the next request on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use rotogate::Gate;
use rotogate_core::directory::User;
use rotogate_core::fault::Chain;
use rotogate_core::revocation::Revocation;
use rotogate_directories::users::{FileDirectory, FileWatcher, UserChange};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct LiveUsers {
    directory: Arc<FileDirectory>,
    _watcher: FileWatcher,
    /// The number of applied revocations that are not durable yet.
    unwritten: watch::Receiver<usize>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file is invalid, and the previous users stay in use.
    #[error("{0}")]
    Broken(String),
    /// Not all resulting revocations are stored yet.
    #[error(
        "the change has taken effect on this gate, but the store cannot be written. Sessions that the change ended \
         may be valid again after a restart"
    )]
    NotDurable,
}

impl LiveUsers {
    /// Ends the sessions of changed users.
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
                    // This call is synchronous, so that the next request is already refused.
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

    pub(crate) fn directory(&self) -> &FileDirectory {
        &self.directory
    }

    /// Reads the file, and waits until the resulting revocations are durable.
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

enum End {
    Now(Revocation),
    /// Revokes sessions that began before the first gate found the change.
    AsOfAll {
        subject: Box<str>,
        after: Option<User>,
    },
}

/// Returns `None` if the user's sessions continue.
fn end_of_sessions(change: &UserChange, gate: &Gate) -> Option<End> {
    let UserChange { before, after } = change;
    let sessions = gate.sessions();
    // The file's modification time may be earlier than the gate's last use of the old data.
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

/// Ends the sessions that were created before the first gate found the change. Also ends later sessions that this gate
/// began with the user's outdated data.
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
                // This revocation is not stored, because it would end new sessions at other gates.
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

/// Returns whether the user is disabled, or has another password or account.
fn must_log_in_again(before: &User, after: &User) -> bool {
    (before.active && !after.active) || before.password_mark != after.password_mark || before.account != after.account
}

fn why(error: &rotogate_core::fault::Error) -> String {
    match error {
        rotogate_core::fault::Error::Failed(fault) => format!("{:?}", Chain(fault)),
        rotogate_core::fault::Error::Denied(denial) => denial.reason().to_owned(),
    }
}

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
