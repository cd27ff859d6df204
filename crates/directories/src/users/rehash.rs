//! Replacement of imported hashes after a login (requirement I31). Hashing starts after the response to the login. A
//! thread collects new hashes and writes them together.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;

use super::UsersFile;
use super::edit::{self, Rehash};
use super::entry::UserEntry;
use super::list::Users;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::directory::DirectoryError;
use rotogate_core::password::{Passwords, SecretHash};

/// How long new hashes are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(500);

type UnderWay = Arc<Mutex<HashMap<Box<str>, SecretHash>>>;

pub(super) struct Rehasher {
    file: UsersFile,
    passwords: Arc<Passwords>,
    under_way: UnderWay,
    writer: OnceLock<Option<Sender<Rehash>>>,
}

impl Rehasher {
    pub(super) fn new(file: UsersFile, passwords: Arc<Passwords>) -> Self {
        Self { file, passwords, under_way: UnderWay::default(), writer: OnceLock::new() }
    }

    /// Starts replacing the user's hash, unless a replacement is running. The next login retries after a failure.
    pub(super) fn begin(&self, user: &UserEntry, password: &SecretString) {
        let Some(writer) = self.writer.get_or_init(|| start(self.file.clone(), Arc::clone(&self.under_way))).clone()
        else {
            return;
        };
        let subject = user.user.subject.clone();
        {
            let mut under_way = self.under_way.lock();
            if under_way.get(&subject).is_some_and(|old| *old == user.hash) {
                return;
            }
            under_way.insert(subject.clone(), user.hash.clone());
        }
        let (old, password) = (user.hash.clone(), password.clone());
        let (passwords, under_way) = (Arc::clone(&self.passwords), Arc::clone(&self.under_way));
        tokio::spawn(async move {
            let sent = match passwords.hash(&password).await {
                Ok(new) => {
                    let rehash = Rehash { subject: subject.clone(), old, new: SecretHash::new(new) };
                    writer.send(rehash).is_ok()
                }
                // Password checks for logins have priority.
                Err(DirectoryError::Busy) => false,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        subject = &*subject,
                        "the user's password hash could not be replaced; the user's next login tries again"
                    );
                    false
                }
            };
            if !sent {
                under_way.lock().remove(&subject);
            }
        });
    }

    pub(super) fn forget_replaced(&self, users: &Users) {
        self.under_way.lock().retain(|subject, old| users.by_subject(subject).is_some_and(|entry| entry.hash == *old));
    }
}

fn start(file: UsersFile, under_way: UnderWay) -> Option<Sender<Rehash>> {
    let (sender, receiver) = channel();
    let run = move || write_all(&file, &receiver, &under_way);
    match std::thread::Builder::new().name("users-rehash".to_owned()).spawn(run) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(
                %error,
                "the thread that replaces password hashes could not be started, so the hashes are kept until the \
                 next start. Raise `TasksMax=` of the service, and restart the service"
            );
            None
        }
    }
}

/// Writes hashes until the directory is dropped.
fn write_all(file: &UsersFile, receiver: &Receiver<Rehash>, under_way: &UnderWay) {
    let clock = SystemTime::new();
    while let Ok(first) = receiver.recv() {
        let mut hashes = vec![first];
        let end = clock.monotonic() + COLLECT;
        let is_over = loop {
            match receiver.recv_timeout(end.saturating_sub(clock.monotonic())) {
                Ok(next) => hashes.push(next),
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        match edit::rehash(file, &hashes) {
            Ok(replaced) => tracing::info!(replaced, "password hashes replaced by argon2id after logins"),
            Err(error) => {
                tracing::warn!(
                    %error,
                    hashes = hashes.len(),
                    "password hashes could not be replaced in the users file; the users' next logins try again"
                );
                let mut under_way = under_way.lock();
                for rehash in &hashes {
                    under_way.remove(&rehash.subject);
                }
            }
        }
        if is_over {
            return;
        }
    }
}
