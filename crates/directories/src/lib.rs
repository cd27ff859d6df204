//! Users in a file ([`users`]), and users in another system. A [`Source`] sends requests to such a system. A directory
//! wraps a source: it limits the number, the rate and the duration of requests, and checks the passwords if the source
//! only has hashes.

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

/// An entry of the configuration key `hashes`: a hash scheme with its usual cost, or with a given cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedHash {
    /// The entry as it is written in the configuration.
    pub text: String,
    /// The cost of checking such a hash.
    pub class: CostClass,
}

/// The reason why a source has no valid response. Logs and metrics use the fixed set of words in [`Self::word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The response did not arrive in time.
    Timeout,
    /// The source could not be connected, or the connection was lost.
    Connect,
    /// The source rejected the gate's own credentials.
    Credentials,
    /// The source responded with an error of its own.
    Refused,
    /// The response is malformed, or contradicts the request.
    Answer,
    /// The entry of one user is unusable, or the source failed for this user. Examples are two users with the same
    /// name, another user than the requested one, or a value of the wrong type. Other users are not affected.
    Entry,
    /// The code that parses the response panicked.
    Panic,
    /// The source asks the gate to repeat the request after this time. This is not a fault.
    Later(Duration),
}

impl Cause {
    /// Returns the word for the cause in logs and metrics.
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

    /// Returns whether the cause concerns only one user, not the whole source.
    // Requirement I46.
    pub const fn is_of_one_user(self) -> bool {
        match self {
            Self::Entry | Self::Panic | Self::Later(_) => true,
            Self::Timeout | Self::Connect | Self::Credentials | Self::Refused | Self::Answer => false,
        }
    }
}

/// A failure of a source. It does not mean that a user is unknown or has a wrong password.
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

/// The configuration of the system that has the users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// `kind = "http"`.
    Http(Box<http::HttpSettings>),
    /// `kind = "ldap"`.
    #[cfg(feature = "ldap")]
    Ldap(Box<ldap::LdapSettings>),
    /// `kind = "sql"`.
    #[cfg(feature = "sql")]
    Sql(Box<sql::SqlSettings>),
}

impl SourceSettings {
    /// Reads the files that the settings name. Does not open a connection. `timeout` is the time limit of a request
    /// ([`Bounds::timeout`]).
    ///
    /// # Errors
    /// Returns the faulty configuration key, and a description of the problem.
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

    /// Returns whether the system can find a user by the subject of another issuer.
    pub fn names_users_of_issuers(&self) -> bool {
        match *self {
            Self::Http(_) => true,
            #[cfg(feature = "ldap")]
            Self::Ldap(_) => false,
            #[cfg(feature = "sql")]
            Self::Sql(_) => false,
        }
    }

    /// The names of the claims that users can have. `None` if the system itself chooses the names.
    pub fn claims(&self) -> Option<Vec<&str>> {
        match *self {
            Self::Http(_) => None,
            #[cfg(feature = "ldap")]
            Self::Ldap(ref settings) => Some(settings.claims()),
            #[cfg(feature = "sql")]
            Self::Sql(ref settings) => Some(settings.claims.iter().map(String::as_str).collect()),
        }
    }

    /// The files that the settings name, each with its configuration key.
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
    /// The source checked the password itself. `None` if the user is unknown or inactive, or if the password is wrong.
    Checked(Option<User>),
    /// The password was not checked, because the source does not have the user, or because no user can have this
    /// password. If refusals are padded, this refusal takes as long as the slowest recent check.
    Absent,
    /// The source returned a hash, which the gate then checks. `None` if the user is unknown.
    Hashed(Option<HashedUser>),
}

/// A user with the hash of the password.
pub struct HashedUser {
    /// The user.
    pub user: User,
    /// The hash of the password.
    pub hash: SecretHash,
    /// Whether [`User::password_mark`] changes when the hash changes.
    pub is_marked: bool,
}

/// A login, owned so that a separate task can process it. It does not implement `Debug`, because it contains the
/// password.
pub struct LoginAttempt {
    /// The account in the path of the request.
    pub account: Option<String>,
    /// The name that the caller sent.
    pub username: String,
    /// The password that the caller sent.
    pub password: SecretString,
    /// The id of the OAuth client.
    pub client: Option<String>,
    /// The address of the caller.
    pub address: Option<IpAddr>,
    /// The header `User-Agent`.
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

/// The description of a source, obtained without a login.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines of the description.
    pub lines: Vec<String>,
    /// The configuration key that would name the account. It is set if no user can have an account.
    pub lacks_account: Option<&'static str>,
}

/// A system with users.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The word for metrics and logs.
    fn kind(&self) -> &'static str;

    /// Looks up a user for a login. `username::is_acceptable` has already accepted the name.
    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError>;

    /// Looks up the current entry of a subject. `account` is the account in the subject's session.
    async fn lookup(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, SourceError>;

    /// Looks up the user with this `sub` of another issuer.
    async fn lookup_of_issuer(&self, _issuer: &str, _subject: &str) -> Result<Option<User>, SourceError> {
        Ok(None)
    }

    /// Looks up the users whom another issuer identifies by another value than `sub`, such as an email address.
    async fn lookup_named(&self, _issuer: &str, _name: &UserName) -> Result<NamedUsers, SourceError> {
        Ok(NamedUsers::None)
    }

    /// Returns the part of a submitted name that identifies the user: names with the same part belong to one user.
    fn significant<'a>(&self, username: &'a str) -> &'a str {
        username
    }

    /// Returns whether the source may compare names with a collation that the gate does not know.
    fn has_collations(&self) -> bool {
        true
    }

    /// Returns whether a refusal takes as long as the slowest recent check.
    fn pads_refusals(&self) -> bool {
        false
    }

    /// The cost classes of the hashes to expect before the first hash was read.
    fn expected_hashes(&self) -> &[CostClass] {
        &[]
    }

    /// Returns whether hashes of old kinds are replaced.
    fn rehashes(&self) -> bool {
        false
    }

    /// Replaces a hash if it is still `old`. Returns whether it was replaced.
    async fn rehash(&self, _subject: &str, _old: &SecretHash, _new: &SecretHash) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Closes the idle connections, because the source was unreachable or did not respond.
    fn close_idle(&self) {}

    /// Connects to the source, and describes it.
    async fn inspect(&self) -> Result<Found, SourceError>;
}
