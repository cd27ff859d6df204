//! Users that another system keeps. A source asks that system. A directory over a source bounds how often, how long and
//! in how many requests at once it is asked, and checks passwords where the source has only hashes.

#![cfg_attr(
    not(any(feature = "ldap", feature = "sql")),
    allow(dead_code, unused_imports, reason = "no source is built in")
)]

mod circuit;
#[cfg(feature = "ldap")]
pub mod ldap;
mod metrics;
mod remote;
#[cfg(feature = "sql")]
pub mod sql;
mod username;

#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
use secrecy::SecretString;

use rotogate::directory::User;
use rotogate::password::SecretHash;

use std::path::Path;
use std::sync::Arc;

pub(crate) use metrics::DirectoryMetrics;
pub use remote::Bounds;
pub(crate) use remote::RemoteDirectory;

/// Why a source has no answer. A word for logs and metrics, from this closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// No answer in time.
    Timeout,
    /// No connection, or it was lost.
    Connect,
    /// The source refused the gate's own credentials.
    Credentials,
    /// The source answered with an error of its own.
    Refused,
    /// The answer cannot be right: two users of one name, another user than the one asked for, a wrong type.
    Answer,
    /// The code that reads the answer panicked.
    Panic,
}

impl Cause {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Credentials => "credentials",
            Self::Refused => "refused_by_source",
            Self::Answer => "bad_answer",
            Self::Panic => "panic",
        }
    }
}

/// A failure of a source: never a verdict on a user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SourceError {
    pub(crate) cause: Cause,
    message: String,
}

impl SourceError {
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

/// The system that keeps the users, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// `kind = "ldap"`.
    #[cfg(feature = "ldap")]
    Ldap(Box<ldap::LdapSettings>),
    /// `kind = "sql"`.
    #[cfg(feature = "sql")]
    Sql(Box<sql::SqlSettings>),
}

impl SourceSettings {
    /// Reads the files that the settings name. Opens no connection.
    ///
    /// # Errors
    /// The key at fault, and what is wrong.
    pub(crate) fn open(&self) -> Result<Arc<dyn Source>, (&'static str, String)> {
        match *self {
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => Ok(Arc::new(ldap::LdapSource::open(settings)?)),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => Ok(Arc::new(sql::SqlSource::open(settings)?)),
        }
    }

    /// The files that the settings name, each with its key.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        match *self {
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => settings.files(),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => settings.files(),
        }
    }
}

/// What a source says of a login.
#[cfg_attr(
    not(all(feature = "ldap", feature = "sql")),
    allow(dead_code, reason = "each kind of source has one of them")
)]
pub(crate) enum Login {
    /// The source checked the password itself. `None`: unknown, inactive or wrong password.
    Checked(Option<User>),
    /// The source has a hash, which the gate checks. `None`: unknown.
    Hashed(Option<HashedUser>),
}

/// A user with the hash of the password.
pub(crate) struct HashedUser {
    pub(crate) user: User,
    pub(crate) hash: SecretHash,
    /// Whether a changed hash shows in [`User::password_mark`].
    pub(crate) is_marked: bool,
}

/// A system that keeps users.
#[async_trait]
pub(crate) trait Source: fmt::Debug + Send + Sync + 'static {
    /// The word for metrics and logs.
    fn kind(&self) -> &'static str;

    /// Looks a user up for a login. The name is one that `username::is_acceptable` accepts.
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Login, SourceError>;

    /// The current entry of a subject.
    async fn lookup(&self, subject: &str) -> Result<Option<User>, SourceError>;

    /// Whether hashes of an old kind are replaced.
    fn rehashes(&self) -> bool {
        false
    }

    /// Replaces a hash if it is still `old`. Returns whether it was.
    async fn rehash(&self, _subject: &str, _old: &SecretHash, _new: &SecretHash) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Connects, and describes what it finds, a line each.
    async fn inspect(&self) -> Result<Vec<String>, SourceError>;
}
