//! Audit events for changes of users. A gate also records changes that other programs made to its users file.

const TARGET: &str = "rotogate::audit";
const FILE: &str = "file";
/// For more users, the gate logs only their number.
const MAX_LINES: usize = 100;

/// A change of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// A new user.
    Added,
    /// Other properties of the user changed.
    Changed,
    /// The user was removed.
    Removed,
    /// The user may no longer log in.
    Disabled,
    /// The user may log in again.
    Enabled,
}

impl UserEvent {
    /// All kinds of changes.
    pub const ALL: [Self; 5] = [Self::Added, Self::Changed, Self::Removed, Self::Disabled, Self::Enabled];

    /// The name of the event in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "user_add",
            Self::Changed => "user_change",
            Self::Removed => "user_remove",
            Self::Disabled => "user_disable",
            Self::Enabled => "user_enable",
        }
    }
}

/// A changed user, for the audit log.
#[derive(Debug)]
pub struct ChangedUser<'a> {
    /// The change.
    pub event: UserEvent,
    /// The login name.
    pub name: &'a str,
    /// The account, if the user belongs to one.
    pub account: Option<&'a str>,
    /// The subject, if it is known.
    pub subject: Option<&'a str>,
    /// The changed keys of `users.toml`.
    pub changed: Option<String>,
}

impl ChangedUser<'_> {
    /// Writes an audit event for a command.
    pub fn write(&self) {
        self.write_by(None);
    }

    fn write_by(&self, actor: Option<&'static str>) {
        let Self { event, name, account, subject, changed } = self;
        let (account, subject, changed) = (*account, *subject, changed.as_deref());
        tracing::info!(
            target: TARGET,
            event = event.name(),
            rotogate.actor = actor,
            user.name = *name,
            user.id = subject,
            rotogate.account = account,
            changed,
            "user changed",
        );
    }
}

pub(super) fn write_found_users(found: &[ChangedUser<'_>]) {
    if found.len() > MAX_LINES {
        return write_import(found.len(), Some(FILE));
    }
    found.iter().for_each(|user| user.write_by(Some(FILE)));
}

/// Writes an audit event for an import of this many users.
pub fn write_imported_users(users: usize) {
    write_import(users, None);
}

fn write_import(users: usize, actor: Option<&'static str>) {
    tracing::info!(target: TARGET, event = "user_import", rotogate.actor = actor, users, "many users changed");
}
