//! Failures of the gate itself. The response is 503 with `Retry-After`.

use std::time::Duration;

use crate::denial::Denial;
use crate::random::NoRandomness;

/// A store failed or cannot be opened.
///
/// ```
/// use rotogate::store::StoreError;
///
/// let cause = std::io::Error::other("no space left on device");
/// let error = StoreError::caused_by("sessions.db cannot be written: make room on its disk", cause);
/// assert!(std::error::Error::source(&error).is_some(), "the log has both");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    message: String,
    outcome: WriteOutcome,
    is_of_one_record: bool,
    is_of_another_keyring: bool,
    is_for_operator: bool,
    retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The known outcome of a failed write.
///
/// ```
/// use rotogate::store::{StoreError, WriteOutcome};
///
/// let error = StoreError::new("sessions.db cannot be written").with_outcome(WriteOutcome::NotDone);
/// assert_eq!(error.outcome(), WriteOutcome::NotDone, "the caller may send it again");
/// assert_eq!(StoreError::new("the reply is late").outcome(), WriteOutcome::InDoubt);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteOutcome {
    /// The store refused the write, and a retry fails too.
    Refused,
    /// Nothing was written, and nothing will be.
    NotDone,
    /// The write may have happened, or may still happen.
    InDoubt,
}

impl StoreError {
    /// Creates an error with a message for the operator. The outcome of a write is in doubt, unless
    /// [`with_outcome`](Self::with_outcome) sets another one.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            outcome: WriteOutcome::InDoubt,
            is_of_one_record: false,
            is_of_another_keyring: false,
            is_for_operator: false,
            retry_after: None,
            source: None,
        }
    }

    /// Creates an error with its cause.
    pub fn caused_by(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::new(message) }
    }

    /// Sets the known outcome of the write.
    #[must_use]
    pub fn with_outcome(self, outcome: WriteOutcome) -> Self {
        Self { outcome, ..self }
    }

    /// Marks the error as a fault in one session's record, which does not affect other sessions.
    ///
    /// ```
    /// use rotogate::session::Session;
    /// use rotogate::store::StoreError;
    ///
    /// /// Reads a row of a store that keeps records as JSON.
    /// fn read(row: &[u8]) -> Result<Session, StoreError> {
    ///     serde_json::from_slice(row).map_err(|error| StoreError::caused_by("a row is damaged", error).of_one_record())
    /// }
    /// assert!(read(b"{").is_err_and(|error| error.is_of_one_record()));
    /// ```
    #[must_use]
    pub fn of_one_record(self) -> Self {
        Self { outcome: WriteOutcome::NotDone, is_of_one_record: true, ..self }
    }

    /// Sets the delay for `Retry-After`.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Returns whether the fault concerns only the record of one session.
    pub const fn is_of_one_record(&self) -> bool {
        self.is_of_one_record
    }

    /// Marks the store as belonging to another keyring. If the store never contained a session, `lost` tells the
    /// operator how to start over.
    #[doc(hidden)]
    #[must_use]
    pub fn of_another_keyring(mut self, lost: Option<String>) -> Self {
        if let Some(lost) = lost {
            self.message += &format!(
                ". No session ever began in the store. If its keyring was lost because its first start was cut short, \
                 {lost}, and start the gate again"
            );
        }
        Self { outcome: WriteOutcome::Refused, is_of_another_keyring: true, ..self }
    }

    /// Marks the error as one that only an operator can fix, such as a wrong password.
    #[doc(hidden)]
    #[must_use]
    pub fn for_operator(self) -> Self {
        Self { is_for_operator: true, ..self }
    }

    /// Returns whether only an operator can fix the error.
    #[doc(hidden)]
    pub const fn is_for_operator(&self) -> bool {
        self.is_for_operator
    }

    /// Returns whether the store belongs to another keyring.
    #[doc(hidden)]
    pub const fn is_of_another_keyring(&self) -> bool {
        self.is_of_another_keyring
    }

    /// The known outcome of the failed write.
    pub const fn outcome(&self) -> WriteOutcome {
        self.outcome
    }
}

/// A directory that cannot respond now.
///
/// ```
/// use rotogate::directory::DirectoryError;
/// use rotogate::fault::Fault;
///
/// // If a login service does not respond, the password may still be right, so the client gets 503.
/// let error = DirectoryError::Unavailable("ldap.example.com: timed out".to_owned());
/// assert_eq!(Fault::from(error).reason(), "directory_failed");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// More password checks are waiting than the limit allows.
    #[error("too many password checks are waiting")]
    Busy,
    /// The directory cannot be read or reached.
    #[error("{0}")]
    Unavailable(String),
    /// The directory's entry for this user cannot be used. Other users are not affected.
    #[error("{0}")]
    Entry(String),
    /// The password is right, but the endpoint requires an account, which the user does not have. The response is the
    /// same as for a wrong password.
    #[error("the user has no account")]
    NoAccount,
    /// The directory's rate limit was exceeded. The caller gets [`Denial::RateLimited`], with this delay.
    #[error("the rate limit of the directory was exceeded")]
    Later(Duration),
}

/// A failure of the gate itself, after which the caller can retry.
///
/// ```
/// use rotogate::fault::Fault;
///
/// /// The value of `Retry-After`.
/// fn retry_after(fault: &Fault) -> u64 {
///     fault.retry_after().as_secs()
/// }
/// assert_eq!(retry_after(&Fault::Contention), 1);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The store failed or is closed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The directory failed.
    #[error("the directory failed")]
    Directory(#[source] DirectoryError),
    /// A clock is wrong, or the user's `sessions_valid_from` is in the future.
    #[error(
        "a clock is wrong, or the user's `sessions_valid_from` is in the future. Tokens are not issued until it is \
         corrected"
    )]
    Clock,
    /// The shared store has not responded for too long.
    #[error("no news from the store for too long, so tokens are not issued until it responds")]
    Stale,
    /// The store lost acknowledged writes, and the gates have not restored them yet.
    #[error("the store lost writes, so tokens are not issued until the gates have written the lost data back")]
    Restoring,
    /// The process was suspended while the request may have been waiting.
    #[error("the process was suspended while the request may have been waiting")]
    StoodStill,
    /// The embedding program has suspended grants because its audit log cannot be written.
    #[error("tokens are not issued, because the audit log cannot be written")]
    Suspended,
    /// More password checks are waiting than the limit allows.
    #[error("too many password checks are waiting")]
    Busy,
    /// A key could not sign.
    #[error("a key could not sign: {0}")]
    Signing(&'static str),
    /// Other requests changed the session during every attempt to change it.
    #[error("every attempt to change the session failed, because other requests changed it first")]
    Contention,
    /// The provider did not return a usable response.
    #[error("the provider: {reason}")]
    Provider {
        /// The fault's name in logs and metrics.
        reason: &'static str,
        /// The recommended delay before a retry.
        retry_after: Duration,
    },
}

impl From<NoRandomness> for Fault {
    fn from(_: NoRandomness) -> Self {
        Self::Signing("the system returned no random bytes")
    }
}

impl From<DirectoryError> for Fault {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Busy => Self::Busy,
            DirectoryError::Unavailable(_)
            | DirectoryError::Entry(_)
            | DirectoryError::NoAccount
            | DirectoryError::Later(_) => Self::Directory(error),
        }
    }
}

impl Fault {
    /// The fault's name in log lines and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Store(_) => "store_failed",
            Self::Directory(_) => "directory_failed",
            Self::Clock => "clock",
            Self::Stale => "store_stale",
            Self::Restoring => "store_restoring",
            Self::StoodStill => "stood_still",
            Self::Suspended => "grants_suspended",
            Self::Busy => "busy",
            Self::Signing(_) => "signing_failed",
            Self::Contention => "contention",
            Self::Provider { reason, .. } => reason,
        }
    }

    /// The recommended delay before a retry.
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Busy
            | Self::Contention
            | Self::Stale
            | Self::Restoring
            | Self::StoodStill
            | Self::Directory(DirectoryError::Busy) => Duration::from_secs(1),
            Self::Directory(DirectoryError::Later(wait)) => *wait,
            Self::Store(StoreError { retry_after: Some(wait), .. }) => *wait,
            Self::Store(_)
            | Self::Directory(DirectoryError::Unavailable(_) | DirectoryError::Entry(_) | DirectoryError::NoAccount)
            | Self::Signing(_)
            | Self::Suspended
            | Self::Clock => Duration::from_secs(5),
            Self::Provider { retry_after, .. } => *retry_after,
        }
    }
}

/// An error of the engine.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::fault::{Error, Fault};
///
/// let refused = Error::from(Denial::WrongPassword);
/// assert!(matches!(refused, Error::Denied(_)), "4xx, in the words of the protocol");
/// let failed = Error::from(Fault::Clock);
/// assert!(matches!(failed, Error::Failed(_)), "503: the same request may succeed later");
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller was refused.
    #[error("refused: {0}")]
    Denied(Denial),
    /// A failure of this gate.
    #[error(transparent)]
    Failed(Fault),
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl<F: Into<Fault>> From<F> for Error {
    fn from(fault: F) -> Self {
        match fault.into() {
            Fault::Directory(DirectoryError::NoAccount) => Self::Denied(Denial::NoAccount),
            Fault::Directory(DirectoryError::Later(wait)) => Self::Denied(Denial::RateLimited("directory", wait)),
            fault => Self::Failed(fault),
        }
    }
}

/// Displays an error with its causes, for logs.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

crate::debug_with!(Chain<'_>, |it, f| {
    let mut said = it.0.to_string();
    let mut cause = it.0.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some error messages already contain the message of their cause.
        if !said.ends_with(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    f.write_str(&said)
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_its_reason_once_in_a_chain_of_causes() {
        let refused = Error::from(Denial::InvalidClient);
        assert_eq!(
            refused.to_string(),
            "refused: invalid_client: the client is not registered, or it failed to authenticate"
        );
        assert!(std::error::Error::source(&refused).is_none(), "its text already contains the reason");
    }

    #[test]
    fn a_cause_that_an_error_names_itself_is_not_repeated() {
        let cause = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let named = StoreError::caused_by(format!("the store x cannot be opened: {}", cause()), cause());
        let text = format!("the store x cannot be opened: {}", cause());
        assert_eq!(format!("{:?}", Chain(&named)), text);
        let unnamed = StoreError::caused_by("the store x cannot be opened", cause());
        assert_eq!(format!("{:?}", Chain(&unnamed)), text);
    }
}
