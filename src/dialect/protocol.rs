//! The interface between the gate and a built-in protocol, which extends [`Dialect`].

#[cfg(feature = "program")]
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use secrecy::SecretString;

use super::{Answer, Call, CommandHandler, Dialect, OAuthPaths, Reply, StreamedBody, answer, registry};
use rotogate_core::denial::Denial;
use rotogate_core::reason::Reason;
#[cfg(feature = "program")]
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::claims::TokenStyle;

/// A built-in protocol. In contrast to a [`Dialect`], its messages need not be one command each.
#[async_trait]
pub trait Protocol: Dialect {
    /// Returns the form of access token that the protocol's clients need.
    fn token_style(&self) -> TokenStyle {
        TokenStyle::default()
    }

    /// Returns the maximum body length of a request for this operation, in bytes, or `None` for the gate's own
    /// limit. The gate reads a body beyond its own limit only if the client presents a valid token.
    fn max_body(&self, operation: &str) -> Option<usize> {
        let _ = operation;
        None
    }

    /// Returns the token in the first part of a body, if the protocol puts tokens into bodies. The gate calls this
    /// when a body exceeds the gate's own limit, and passes the bytes that it has read so far.
    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        let _ = (operation, begun);
        None
    }

    /// Returns whether the operation serves only requests for an upgrade. Other requests for it are routed to the
    /// upstream.
    fn upgrades(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns whether the operation accepts envelopes with any call. The gate forwards a call that it does not execute
    /// itself, if the route for the path permits the call.
    fn is_envelope(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns whether the gate first sends the request to the service behind it, if the route for the path permits
    /// this, and then replies.
    fn consults(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns the paths that an OAuth 2 client needs at `base`, for the gate's metadata (RFC 8414), or `None` for
    /// other protocols.
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let _ = base;
        None
    }

    /// Returns the credentials in the head of a request, if this is an endpoint for the caller's own sessions or API
    /// keys. Returns `None` for other endpoints.
    #[cfg(feature = "program")]
    fn own_access(&self, call: &Call<'_>) -> Option<OwnAccess> {
        let _ = call;
        None
    }

    /// Handles a request. The returned [`Answer`] also contains the outcome for the access log.
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        answer::by_command(self, call, gate).await
    }

    /// Returns whether `stream` handles this operation while the request body is still arriving.
    fn is_streamed(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Handles a request to a streamed operation. The body is not in `call`. The operation does not reveal secrets
    /// and does not change anything, so it gets no [`CommandHandler`]. Also returns the outcome for the access log.
    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        drop(body);
        let denial = Denial::NoRoute;
        (self.write(call, Err(denial.into())), denial.into())
    }

    /// Writes the reply to a failed request, with this status and cause, in the protocol's own form. If the result is
    /// `None`, the gate sends its plain reply.
    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let _ = (status, why);
        None
    }
}

/// The credentials in the head of a request to an endpoint for the caller's own sessions or API keys, and the rules for
/// them.
#[cfg(feature = "program")]
pub struct OwnAccess {
    /// The kinds of credentials that the endpoint accepts, and the scope that it requires.
    pub policy: RoutePolicy,
    /// The access token, or the value of the session cookie.
    pub presented: Result<SecretString, Denial>,
    /// The maximum age of an access token, if the request changes something.
    pub max_age: Option<Duration>,
    /// The maximum time since the user's login, if the request has a session cookie.
    pub max_login_age: Option<Duration>,
}

impl dyn Dialect {
    /// Returns the protocol, if the dialect is built in.
    pub(crate) fn protocol(&self) -> Option<&dyn Protocol> {
        registry::protocol(self)
    }
}
