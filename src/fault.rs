//! Faults: what fails on our side. Nothing was decided and nothing consumed, so a fault is answered with 503 and
//! `Retry-After`, never as a refusal.

use std::time::Duration;

use crate::denial::Denial;

/// A store that failed, or that cannot be opened. The text says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error with a text for the operator.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// The same, with what caused it.
    pub fn caused_by(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

/// A directory that cannot answer now.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// More password checks are waiting than the bound allows: the caller may try again soon.
    #[error("too many password checks are waiting")]
    Busy,
    /// It cannot be read or reached.
    #[error("{0}")]
    Unavailable(String),
}

/// Something on our side failed. Nothing was decided and nothing consumed: the caller may try again.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store failed or is closed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The directory failed.
    #[error("the directory failed")]
    Directory(#[source] DirectoryError),
    /// A clock is wrong: nothing is minted until it is right.
    #[error("the clock is not to be trusted: nothing is minted until it is")]
    Clock,
    /// More password checks are waiting than the bound allows.
    #[error("too many password checks are waiting")]
    Busy,
    /// A key could not sign.
    #[error("a key could not sign: {0}")]
    Signing(&'static str),
    /// Others changed the session every time that this request tried to.
    #[error("the session changed under every try")]
    Contention,
}

impl From<DirectoryError> for Fault {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Busy => Self::Busy,
            DirectoryError::Unavailable(_) => Self::Directory(error),
        }
    }
}

impl Fault {
    /// One word for log lines and metrics, from a fixed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Store(_) => "store_failed",
            Self::Directory(_) => "directory_failed",
            Self::Clock => "clock",
            Self::Busy => "busy",
            Self::Signing(_) => "signing_failed",
            Self::Contention => "contention",
        }
    }

    /// When a client should try again.
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Busy | Self::Contention | Self::Directory(DirectoryError::Busy) => Duration::from_secs(1),
            Self::Store(_) | Self::Directory(DirectoryError::Unavailable(_)) | Self::Signing(_) | Self::Clock => {
                Duration::from_secs(5)
            }
        }
    }
}

/// Refused, or failed: never both.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's doing.
    #[error("refused: {0}")]
    Denied(#[source] Denial),
    /// Ours.
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
        Self::Failed(fault.into())
    }
}

/// An error with its causes, for logs.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
