//! Changes of users, as events in the audit log. A command records who made the change. A running gate records the
//! changes that it finds in its users file, even if another program made them.

const TARGET: &str = "rotogate::audit";
/// The actor in the event of a change that a gate finds in a file.
const FILE: &str = "file";
/// If more users than this changed, a gate writes their number instead of a line for each user.
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

    /// Returns the name of the event in the audit log.
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

/// A user who changed.
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
    /// The names of the `users.toml` keys that differ.
    pub changed: Option<String>,
}

impl ChangedUser<'_> {
    /// Records that a command changed the user.
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

/// Records the changes that a gate found in its users file.
pub(super) fn write_found_users(found: &[ChangedUser<'_>]) {
    if found.len() > MAX_LINES {
        return write_import(found.len(), Some(FILE));
    }
    found.iter().for_each(|user| user.write_by(Some(FILE)));
}

/// Records that a command added or changed this number of users at once.
pub fn write_imported_users(users: usize) {
    write_import(users, None);
}

fn write_import(users: usize, actor: Option<&'static str>) {
    tracing::info!(target: TARGET, event = "user_import", rotogate.actor = actor, users, "many users changed");
}
