//! Failures of forwarded requests, and their responses. Clients only see the status.

use std::error::Error as StdError;
use std::{fmt, io};

use http::{HeaderValue, Response, StatusCode, header};
use hyper_util::client::legacy;

use super::body::{BodyError, BoxError, ProxyBody};
use rotogate::dialect;
use rotogate_core::bounds::{MAX_UPSTREAM_FIELDS, MAX_UPSTREAM_HEAD};
use rotogate_core::reason::Reason;
use rotogate_core::reply::{self, GrpcCode, Reply};

/// The delay in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why an upstream returned no response. The error is in the extensions of the gate's own response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The path is not canonical, so it could differ from the path that was matched to a route.
    NotCanonical,
    /// The method is `CONNECT`, which is unsupported.
    Tunnel,
    /// The request body is longer than the route allows.
    TooLarge,
    /// The client stalled in the middle of the request body.
    ClientIdle,
    /// The client's connection failed in the middle of the request body.
    ClientBroken,
    /// No connection could be opened.
    Unreachable,
    /// The connection attempt timed out.
    ConnectTimeout,
    /// The TLS handshake failed, or the upstream's certificate was not accepted.
    UpstreamTls,
    /// The upstream closed the connection before its response.
    UpstreamReset,
    /// The response is invalid HTTP.
    UpstreamProtocol,
    /// The response head timed out.
    HeadTimeout,
    /// All addresses of the upstream are at `max_requests`.
    Overloaded,
    /// The caller or the client address has used up its share of the upstream's slots.
    ShareTaken,
    /// The route has no upstream, because it serves only forward-auth requests.
    NoUpstream,
    /// The embedding program is incorrect: it lacks the upstream, the route or the peer address.
    Miswired,
}

impl ProxyError {
    /// The reason in logs and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotCanonical => "not_canonical",
            Self::Tunnel => "tunnel",
            Self::TooLarge => "body_too_large",
            Self::ClientIdle => "body_too_slow",
            Self::ClientBroken => "client_gone",
            Self::Unreachable => "upstream_unreachable",
            Self::ConnectTimeout | Self::HeadTimeout => "upstream_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::Overloaded => "upstream_saturated",
            Self::ShareTaken => "upstream_share_taken",
            Self::NoUpstream => "no_upstream",
            Self::Miswired => "miswired",
        }
    }

    /// Returns which timeout was exceeded, or `None` for other failures.
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Self::ConnectTimeout => Some("connect_timeout"),
            Self::HeadTimeout => Some("head_timeout"),
            _ => None,
        }
    }

    /// The status of the response.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotCanonical | Self::ClientBroken => StatusCode::BAD_REQUEST,
            Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientIdle => StatusCode::REQUEST_TIMEOUT,
            Self::Unreachable | Self::UpstreamTls | Self::UpstreamReset | Self::UpstreamProtocol => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded | Self::ShareTaken => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoUpstream => StatusCode::NOT_FOUND,
            Self::Miswired => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A problem document with the status (RFC 9457).
    pub fn response(self) -> Response<ProxyBody> {
        self.reply_with(reply::problem(self.status(), None))
    }

    /// Adds `Retry-After` if a retry can succeed.
    fn reply_with(self, reply: Reply) -> Response<ProxyBody> {
        let mut response = reply.map(|body| ProxyBody::full(body.data().clone()));
        if matches!(self, Self::Overloaded | Self::ShareTaken) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        self.mark(response)
    }

    fn mark(self, mut response: Response<ProxyBody>) -> Response<ProxyBody> {
        response.extensions_mut().insert(self);
        response.extensions_mut().insert(Reason::of_proxy(self.reason(), self.detail()));
        response
    }

    /// Builds the response in the error format of a dialect. Clients could mistake another format for a success.
    pub(super) fn response_in(self, dialect: &str) -> Response<ProxyBody> {
        let dialect = rotogate::program::by_name(dialect, &dialect::Options::default());
        let why = self.status().canonical_reason().unwrap_or_default();
        let reply = dialect.and_then(|dialect| rotogate::program::protocol_of(&*dialect)?.failed(self.status(), why));
        reply.map_or_else(|| self.response(), |reply| self.reply_with(reply))
    }

    /// A gRPC response: a trailers-only status with HTTP 200 (requirement T17).
    pub fn grpc_response(self) -> Response<ProxyBody> {
        let (code, message) = match self {
            Self::NotCanonical | Self::ClientBroken => (GrpcCode::InvalidArgument, "the request is malformed"),
            Self::Tunnel => (GrpcCode::Unimplemented, "not served"),
            Self::TooLarge => (GrpcCode::ResourceExhausted, "the request is too large"),
            Self::ClientIdle => (GrpcCode::Cancelled, "the request stalled"),
            Self::Unreachable | Self::UpstreamTls | Self::UpstreamReset | Self::UpstreamProtocol => {
                (GrpcCode::Unavailable, "the upstream cannot be reached")
            }
            Self::Overloaded | Self::ShareTaken => (GrpcCode::Unavailable, "the upstream is busy"),
            Self::ConnectTimeout | Self::HeadTimeout => {
                (GrpcCode::DeadlineExceeded, "the upstream did not respond in time")
            }
            Self::NoUpstream => (GrpcCode::Unimplemented, "no such method"),
            Self::Miswired => (GrpcCode::Internal, "internal error"),
        };
        self.mark(reply::grpc_status(code, message).map(|_| ProxyBody::full("")))
    }

    /// Returns whether the failure counts against the address.
    pub(super) const fn blames_address(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::ConnectTimeout
                | Self::UpstreamTls
                | Self::UpstreamReset
                | Self::UpstreamProtocol
                | Self::HeadTimeout
        )
    }
}

#[derive(Debug)]
pub(super) struct SendError {
    error: BoxError,
    connecting: bool,
    pub(super) unsent: bool,
}

impl SendError {
    pub(super) fn unconnected(error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), connecting: true, unsent: true }
    }

    pub(super) fn nothing() -> Self {
        Self::unconnected("there is no request to send")
    }

    pub(super) fn unsent(error: hyper::Error) -> Self {
        Self { error: error.into(), connecting: false, unsent: true }
    }

    pub(super) fn sent(error: hyper::Error) -> Self {
        Self { error: error.into(), connecting: false, unsent: false }
    }

    pub(super) fn kind(&self) -> ProxyError {
        match self.causes().find_map(|cause| cause.downcast_ref::<BodyError>()) {
            Some(BodyError::TooLarge) => return ProxyError::TooLarge,
            Some(BodyError::Idle) => return ProxyError::ClientIdle,
            Some(BodyError::Broken(_)) => return ProxyError::ClientBroken,
            None => {}
        }
        match self.connecting {
            true if self.io_kinds().any(|kind| kind == io::ErrorKind::TimedOut) => ProxyError::ConnectTimeout,
            true if self.is_tls() => ProxyError::UpstreamTls,
            true => ProxyError::Unreachable,
            false if self.was_lost() || self.was_refused() => ProxyError::UpstreamReset,
            false => ProxyError::UpstreamProtocol,
        }
    }

    /// Returns whether the connection was lost before any byte of the response.
    pub(super) fn was_lost(&self) -> bool {
        let lost = |cause: &hyper::Error| cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled();
        let broken = |kind| {
            matches!(
                kind,
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    // The TLS connection ended without `close_notify`.
                    | io::ErrorKind::UnexpectedEof
            )
        };
        !self.connecting
            && (self.causes().filter_map(|cause| cause.downcast_ref()).any(lost) || self.io_kinds().any(broken))
    }

    /// Returns whether an HTTP/2 upstream did not process the request (RFC 9113 §8.7, §6.8). h2 reports a `GOAWAY` only
    /// to unprocessed streams.
    pub(super) fn was_refused(&self) -> bool {
        self.h2_errors().any(|error| {
            let is_reset = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && (is_reset || error.is_go_away())
        })
    }

    fn h2_errors(&self) -> impl Iterator<Item = &h2::Error> {
        self.causes().filter_map(|cause| cause.downcast_ref())
    }

    fn is_tls(&self) -> bool {
        self.causes().any(|cause| {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
        })
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(Some(&*self.error as &(dyn StdError + 'static)), |&error| error.source())
    }

    fn io_kinds(&self) -> impl Iterator<Item = io::ErrorKind> {
        let of_h2 = self.h2_errors().filter_map(h2::Error::get_io);
        self.causes().filter_map(|cause| cause.downcast_ref::<io::Error>()).chain(of_h2).map(io::Error::kind)
    }
}

impl From<legacy::Error> for SendError {
    fn from(error: legacy::Error) -> Self {
        let connecting = error.is_connect();
        Self { error: error.into(), connecting, unsent: connecting }
    }
}

/// Prints the error and its causes on one line.
impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cause) in self.causes().enumerate() {
            write!(f, "{}{cause}", if index == 0 { "" } else { ": " })?;
        }
        if self.causes().filter_map(|cause| cause.downcast_ref()).any(hyper::Error::is_parse_too_large) {
            write!(f, " (at most {MAX_UPSTREAM_FIELDS} fields and {} KiB)", MAX_UPSTREAM_HEAD >> 10)?;
        }
        Ok(())
    }
}
