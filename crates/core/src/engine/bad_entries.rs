//! Logs unusable directory entries, at most once a minute.
// Requirement I46.

use super::Engine;
use crate::directory::{Directory, DirectoryError, User};
use crate::fault::Fault;
use crate::trace;

pub(super) enum LookupKey<'a> {
    /// A user may type a password as the name, so the log contains only a hash.
    Name(&'a str),
    Subject(&'a str),
}

impl Engine {
    pub(super) async fn look_up(
        &self,
        directory: &dyn Directory,
        account: Option<&str>,
        subject: &str,
    ) -> Result<Option<User>, Fault> {
        let found = trace::step("rotogate.directory", "lookup", directory.lookup_in(account, subject)).await;
        found.map_err(|error| self.noted(error, &LookupKey::Subject(subject), account))
    }

    /// Logs an error that concerns only a single entry.
    pub(super) fn noted(&self, error: DirectoryError, asked: &LookupKey<'_>, account: Option<&str>) -> Fault {
        if matches!(error, DirectoryError::Entry(_)) {
            let now = self.clock.source().monotonic();
            let is_due = self.bad_entries.lock().is_due(now);
            if is_due {
                let (subject, hash) = match *asked {
                    LookupKey::Name(name) => (None, self.keyring().refresh_keys().name_hash(name)),
                    LookupKey::Subject(subject) => (Some(subject), None),
                };
                tracing::warn!(
                    user.id = subject,
                    user.name_hash = hash,
                    rotogate.account = account,
                    %error,
                    "directory entry cannot be used, so this user's logins and refreshes get 503",
                );
            }
        }
        error.into()
    }
}
