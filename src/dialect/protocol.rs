//! What the gate asks of a built-in protocol besides a [`Dialect`]'s words.

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

/// A protocol that does more than a [`Dialect`], whose messages are one command each.
#[async_trait]
pub trait Protocol: Dialect {
    /// The form of access token that the protocol's clients need.
    fn token_style(&self) -> TokenStyle {
        TokenStyle::default()
    }

    /// The largest body of a request for this operation, in bytes; `None` for the gate's own bound. The gate reads a
    /// body beyond its own bound only from a client that presents a good token.
    fn max_body(&self, operation: &str) -> Option<usize> {
        let _ = operation;
        None
    }

    /// The token in the beginning of a body, if the protocol puts tokens into bodies. The gate calls this once a body
    /// turns out to be longer than the gate's bound, and passes the bytes read so far.
    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        let _ = (operation, begun);
        None
    }

    /// Does the operation serve only requests for an upgrade? The gate sends other requests to the routes.
    fn upgrades(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Does the operation accept any call? Calls that the gate does not answer go to the route of the path.
    fn is_envelope(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Does the gate ask the service behind it, by the route of the path, before it answers the operation?
    fn consults(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// The paths that an OAuth 2 client finds at `base`, for the gate's metadata (RFC 8414); `None` for other
    /// protocols.
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let _ = base;
        None
    }

    /// What the head of a request shows of the caller of an endpoint for a caller's own things; `None` for other
    /// endpoints.
    #[cfg(feature = "program")]
    fn own_access(&self, call: &Call<'_>) -> Option<OwnAccess> {
        let _ = call;
        None
    }

    /// Answers a request, with the reason for the access log.
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        answer::by_command(self, call, gate).await
    }

    /// Does `stream` answer this operation while the request body still arrives?
    fn is_streamed(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Answers a request to a streamed operation. The body is not in `call`. The operation reveals no secret and
    /// changes nothing, so it gets no [`CommandHandler`]. Also returns the outcome for the access log.
    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        drop(body);
        let denial = Denial::NoRoute;
        (self.write(call, Err(denial.into())), denial.into())
    }

    /// Reports a failed request with this status and cause in the protocol's own words; `None` for the plain reply.
    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let _ = (status, why);
        None
    }
}

/// The access to an endpoint for a caller's own things, as far as the head of a request shows it.
#[cfg(feature = "program")]
pub struct OwnAccess {
    /// The credentials that the endpoint takes, and the scope that it asks for.
    pub policy: RoutePolicy,
    /// The access token, or the value of the session cookie.
    pub presented: Result<SecretString, Denial>,
    /// The greatest age of an access token, if the request changes something.
    pub max_age: Option<Duration>,
    /// The greatest age of a login by session cookie.
    pub max_login_age: Option<Duration>,
}

impl dyn Dialect {
    /// The protocol, if the dialect is built in.
    pub(crate) fn protocol(&self) -> Option<&dyn Protocol> {
        registry::protocol(self)
    }
}
