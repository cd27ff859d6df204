//! Logs unusable entries of a directory, at most once a minute. The log line identifies the user in the same way as the
//! audit trail.
// Requirement I46.

use super::Engine;
use crate::directory::{Directory, DirectoryError, User};
use crate::fault::Fault;
use crate::trace;

/// The key with which an entry of the directory is looked up.
pub(super) enum LookupKey<'a> {
    /// A submitted user name. Because people sometimes type passwords into that field, the log contains only its hash.
    Name(&'a str),
    Subject(&'a str),
}

impl Engine {
    /// The directory's current entry for a subject.
    pub(super) async fn look_up(
        &self,
        directory: &dyn Directory,
        account: Option<&str>,
        subject: &str,
    ) -> Result<Option<User>, Fault> {
        let found = trace::step("rotogate.directory", "lookup", directory.lookup_in(account, subject)).await;
        found.map_err(|error| self.noted(error, &LookupKey::Subject(subject), account))
    }

    /// Converts an error of the directory to a fault, and logs the error if it concerns only a single entry.
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
