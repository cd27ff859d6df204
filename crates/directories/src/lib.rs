//! Directories of users: a file ([`users`]) or an external system. A [`Source`] sends requests to the external system.
//! A `RemoteDirectory` limits these requests. It also checks the passwords if the source only returns hashes.

mod by_account;
mod circuit;
pub mod http;
#[cfg(feature = "ldap")]
pub mod ldap;
mod metrics;
mod padding;
mod remote;
#[cfg(any(feature = "ldap", feature = "sql"))]
mod servers;
#[cfg(feature = "sql")]
pub mod sql;
mod username;
pub mod users;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use rotogate_core::directory::{LoginRequest, NamedUsers, User, UserName};
use rotogate_core::password::{CostClass, SecretHash};

use std::path::Path;
use std::sync::Arc;

pub use by_account::{AccountDirectory, Directories};
pub use metrics::DirectoryMetrics;
pub use remote::Bounds;
pub use remote::RemoteDirectory;

/// An entry of the configuration key `hashes`: a hash scheme, with an optional cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedHash {
    /// The entry as configured.
    pub text: String,
    /// The cost class of the hash.
    pub class: CostClass,
}

/// The cause of a source's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The response did not arrive in time.
    Timeout,
    /// The connection failed or was lost.
    Connect,
    /// The source rejected the gate's credentials.
    Credentials,
    /// The source returned an error.
    Refused,
    /// The response is malformed or does not match the request.
    Answer,
    /// The failure concerns one user only, for example because the user's entry is invalid.
    Entry,
    /// The code that parses the response panicked.
    Panic,
    /// The source asked for a retry after this time. This is not a fault.
    Later(Duration),
}

impl Cause {
    /// The name of the cause in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Credentials => "credentials",
            Self::Refused => "refused_by_source",
            Self::Answer => "bad_answer",
            Self::Entry => "bad_entry",
            Self::Panic => "panic",
            Self::Later(_) => "later",
        }
    }

    /// Returns whether the cause concerns only one user.
    // Requirement I46.
    pub const fn is_of_one_user(self) -> bool {
        match self {
            Self::Entry | Self::Panic | Self::Later(_) => true,
            Self::Timeout | Self::Connect | Self::Credentials | Self::Refused | Self::Answer => false,
        }
    }
}

/// A failure of a source. A failure is never a decision about the user or the password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// The cause.
    pub cause: Cause,
    message: String,
}

impl SourceError {
    /// Creates a failure. `message` is for the log.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

/// The configuration of an external user directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// A login hook (`kind = "http"`).
    Http(Box<http::HttpSettings>),
    /// An LDAP directory (`kind = "ldap"`).
    #[cfg(feature = "ldap")]
    Ldap(Box<ldap::LdapSettings>),
    /// A database (`kind = "sql"`).
    #[cfg(feature = "sql")]
    Sql(Box<sql::SqlSettings>),
}

impl SourceSettings {
    /// Reads the files named in the settings, without connecting. `timeout` is the time limit of a request
    /// ([`Bounds::timeout`]).
    ///
    /// # Errors
    /// Returns the invalid configuration key and a description of the problem.
    #[cfg_attr(
        not(any(feature = "ldap", feature = "sql")),
        expect(unused_variables, reason = "HTTP needs no part of it")
    )]
    pub fn open(&self, timeout: Duration) -> Result<Arc<dyn Source>, (&'static str, String)> {
        match *self {
            Self::Http(ref settings) => Ok(Arc::new(http::HttpSource::open(settings)?)),
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => Ok(Arc::new(ldap::LdapSource::open(settings, timeout)?)),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => Ok(Arc::new(sql::SqlSource::open(settings, timeout)?)),
        }
    }

    /// The value of `kind` in the configuration.
    pub const fn kind(&self) -> &'static str {
        match *self {
            Self::Http(_) => "http",
            #[cfg(feature = "ldap")]
            Self::Ldap(_) => "ldap",
            #[cfg(feature = "sql")]
            Self::Sql(_) => "sql",
        }
    }

    /// Returns whether the system can find users by another issuer's subject.
    pub fn names_users_of_issuers(&self) -> bool {
        match *self {
            Self::Http(_) => true,
            #[cfg(feature = "ldap")]
            Self::Ldap(_) => false,
            #[cfg(feature = "sql")]
            Self::Sql(_) => false,
        }
    }

    /// The names of claims that users can have, or `None` if the system chooses them.
    pub fn claims(&self) -> Option<Vec<&str>> {
        match *self {
            Self::Http(_) => None,
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => Some(settings.claims()),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => Some(settings.claims.iter().map(String::as_str).collect()),
        }
    }

    /// The configured files, each with its configuration key.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match *self {
            Self::Http(ref settings) => settings.files(),
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => settings.files(),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => settings.files(),
        }
    }
}

/// The result of a login at a source.
#[cfg_attr(
    not(all(feature = "ldap", feature = "sql")),
    allow(dead_code, reason = "each kind of source has one of them")
)]
pub enum Login {
    /// The source checked the password. `None` if the login was refused.
    Checked(Option<User>),
    /// The source did not check the password. The user does not exist, or no user can have this password. Padded
    /// refusals take as long as the slowest recent check.
    Absent,
    /// The source returned a password hash, or `None` for an unknown user.
    Hashed(Option<HashedUser>),
}

/// A user with a password hash.
pub struct HashedUser {
    /// The user.
    pub user: User,
    /// The password hash.
    pub hash: SecretHash,
    /// Whether [`User::password_mark`] changes when the hash changes.
    pub is_marked: bool,
}

/// The data of a login, without `Debug` because of the password.
pub struct LoginAttempt {
    /// The account in the request path.
    pub account: Option<String>,
    /// The submitted name.
    pub username: String,
    /// The submitted password.
    pub password: SecretString,
    /// The id of the OAuth client.
    pub client: Option<String>,
    /// The caller's address.
    pub address: Option<IpAddr>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<String>,
    /// The requested scope.
    pub scope: Option<String>,
}

impl From<&LoginRequest<'_>> for LoginAttempt {
    fn from(login: &LoginRequest<'_>) -> Self {
        Self {
            account: login.account.map(str::to_owned),
            username: login.username.to_owned(),
            password: login.password.clone(),
            client: login.client.map(str::to_owned),
            address: login.address,
            user_agent: login.user_agent.map(str::to_owned),
            scope: login.scope.map(ToString::to_string),
        }
    }
}

/// The result of [`Source::inspect`].
#[derive(Debug, Default)]
pub struct Found {
    /// Lines for the operator.
    pub lines: Vec<String>,
    /// The configuration key to set, if no user can have an account without it.
    pub lacks_account: Option<&'static str>,
}

/// A system with users.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The kind of the source in metrics and logs.
    fn kind(&self) -> &'static str;

    /// Finds a user for a login. The name has already passed `username::is_acceptable`.
    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError>;

    /// Finds the current entry of a subject. `account` comes from the session.
    async fn lookup(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, SourceError>;

    /// Finds the user with this `sub` at another issuer.
    async fn lookup_of_issuer(&self, _issuer: &str, _subject: &str) -> Result<Option<User>, SourceError> {
        Ok(None)
    }

    /// Finds users by a value other than `sub`, such as an email address.
    async fn lookup_named(&self, _issuer: &str, _name: &UserName) -> Result<NamedUsers, SourceError> {
        Ok(NamedUsers::None)
    }

    /// Returns the part of a name that identifies the user.
    fn significant<'a>(&self, username: &'a str) -> &'a str {
        username
    }

    /// Returns whether the source may compare names with an unknown collation.
    fn has_collations(&self) -> bool {
        true
    }

    /// Returns whether refusals are padded to the slowest recent check.
    fn pads_refusals(&self) -> bool {
        false
    }

    /// The configured cost classes of hashes.
    fn expected_hashes(&self) -> &[CostClass] {
        &[]
    }

    /// Returns whether outdated hashes are replaced.
    fn rehashes(&self) -> bool {
        false
    }

    /// Replaces a hash if it is still `old`. Returns false otherwise.
    async fn rehash(&self, _subject: &str, _old: &SecretHash, _new: &SecretHash) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Closes idle connections. Called when the source could not be reached.
    fn close_idle(&self) {}

    /// Connects to the source and describes it.
    async fn inspect(&self) -> Result<Found, SourceError>;
}
