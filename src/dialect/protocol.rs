//! The interface between the gate and a built-in protocol.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use secrecy::SecretString;

use super::{Answer, Call, CommandHandler, Dialect, OAuthPaths, Reply, StreamedBody, answer};
use rotogate_core::denial::Denial;
use rotogate_core::reason::Reason;
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::claims::TokenStyle;

/// A built-in protocol. In a plain [`Dialect`], each message is one command. Here, a message may contain several
/// commands or none.
#[async_trait]
pub trait Protocol: Dialect {
    /// Returns the form of access token that the protocol's clients need.
    fn token_style(&self) -> TokenStyle {
        TokenStyle::default()
    }

    /// Returns the maximum body length for this operation, in bytes, or `None` for the gate's limit. A body longer than
    /// the gate's limit needs a valid token.
    fn max_body(&self, operation: &str) -> Option<usize> {
        let _ = operation;
        None
    }

    /// Returns the token that the first bytes of a body contain. The gate calls this method only if a body exceeds the
    /// gate's limit.
    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        let _ = (operation, begun);
        None
    }

    /// Returns whether the operation serves only upgrades. Other requests to its path go to the upstream.
    fn upgrades(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns whether the operation accepts envelopes with any call. The gate forwards a call that it does not execute
    /// itself, if the path's route permits it.
    fn is_envelope(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns whether the service behind the gate gets the request before the gate replies. The request must be
    /// permitted by the route of its path.
    fn consults(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Returns the paths that an OAuth 2 client needs at `base`, for the gate's metadata (RFC 8414).
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let _ = base;
        None
    }

    /// Returns the credentials in the head of a request, if the endpoint is for the caller's own sessions or API keys.
    fn own_access(&self, call: &Call<'_>) -> Option<OwnAccess> {
        let _ = call;
        None
    }

    /// Handles a request. The returned [`Answer`] contains the outcome for the access log.
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        answer::by_command(self, call, gate).await
    }

    /// Returns whether `stream` handles this operation while the body arrives.
    fn is_streamed(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Handles a request to a streamed operation, whose body is not in `call`. The operation must not reveal or change
    /// anything, so it cannot execute commands.
    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        drop(body);
        let denial = Denial::NoRoute;
        (self.write(call, Err(denial.into())), denial.into())
    }

    /// Writes the reply to a failed request in the protocol's own format. If the result is `None`, the gate sends its
    /// plain reply.
    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let _ = (status, why);
        None
    }
}

/// How a caller authenticates at an endpoint for its own sessions or API keys.
#[doc(hidden)]
pub struct OwnAccess {
    /// The credentials that the endpoint accepts, and the scope that it requires.
    pub policy: RoutePolicy,
    /// The access token, or the value of the session cookie.
    pub presented: Result<SecretString, Denial>,
    /// The maximum age of an access token in a request that changes something.
    pub max_age: Option<Duration>,
    /// For a session cookie, the maximum time since the login.
    pub max_login_age: Option<Duration>,
}
