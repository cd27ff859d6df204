//! The errors of requests that the gate sends.

use std::fmt;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchErrorKind {
    /// The host name could not be resolved.
    Dns,
    /// The connection could not be opened.
    Connect,
    /// The TLS handshake failed, or the server's certificate is not trusted.
    Tls,
    /// The response was not complete in time.
    Timeout,
    /// The head or the body of the response exceeds its size limit.
    TooLarge,
    /// The response is a redirect, which is not followed.
    Redirect,
    /// The response has a status that the caller cannot use.
    Status,
    /// The body is compressed in a way that the gate does not support.
    Encoding,
    /// All addresses of the host are forbidden for this URL.
    RefusedAddress,
    /// The response is not HTTP, or is incomplete.
    Http,
}

/// Why a request did not get a usable response. The message does not reveal the request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{host}: {cause}")]
#[non_exhaustive]
pub struct FetchError {
    kind: FetchErrorKind,
    host: String,
    cause: String,
    not_sent: bool,
    status: Option<http::StatusCode>,
}

impl FetchErrorKind {
    /// The kind in one word, for metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Redirect => "redirect",
            Self::Status => "status",
            Self::Encoding => "encoding",
            Self::RefusedAddress => "refused_address",
            Self::Http => "http",
        }
    }
}

impl FetchError {
    pub(super) fn new(kind: FetchErrorKind, host: &str, cause: impl fmt::Display) -> Self {
        Self { kind, host: host.to_owned(), cause: cause.to_string(), not_sent: false, status: None }
    }

    pub(super) fn with_status(mut self, status: http::StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) fn with_not_sent(mut self, not_sent: bool) -> Self {
        self.not_sent = not_sent;
        self
    }

    /// The kind of the failure.
    pub const fn kind(&self) -> FetchErrorKind {
        self.kind
    }

    /// The status of the response, if it caused the failure.
    pub const fn status(&self) -> Option<http::StatusCode> {
        self.status
    }

    /// The kind in one word, for metrics and logs.
    pub const fn word(&self) -> &'static str {
        self.kind.word()
    }

    /// The host of the URL, with its port if the URL has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether the request was not sent. A retry is then safe.
    pub const fn not_sent(&self) -> bool {
        self.not_sent
    }
}
