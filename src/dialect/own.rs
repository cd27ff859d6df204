//! The trait for an application's own wire protocol.

use std::any::Any;
use std::fmt;

use http::{HeaderMap, Response};

use super::{Call, Command, Outcome, ReplyBody, ServedPath, Sources};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::session::profile::ProfileOverride;

/// A wire protocol of your own, in which each message is one command.
///
/// ```
/// # use rotogate::denial::Denial;
/// # use http::Response;
/// # use rotogate::dialect::{Call, Command, Dialect, Outcome, ReplyBody, ServedPath};
/// # use rotogate::fault::Error;
/// # #[derive(Debug)]
/// # struct Logout;
/// # fn reply(status: u16) -> Response<ReplyBody> {
/// #     let head = Response::builder().status(status).header("retry-after", "5");
/// #     head.body(ReplyBody::default()).unwrap()
/// # }
/// impl Dialect for Logout {
///     # fn name(&self) -> &'static str { "logout" }
///     # fn default_path(&self) -> &'static str { "/logout" }
///     # fn serves(&self, base: &str) -> Vec<ServedPath> {
///     #     let methods = &[http::Method::POST];
///     #     vec![ServedPath { operation: "logout", template: base.to_owned(), methods, spellings: &[] }]
///     # }
///     // … `name`, `serves` and `default_path`
/// /// The protocol does not name clients, so this is the client of all its sessions.
///     fn client(&self) -> Option<&'static str> {
///         Some("logout")
///     }
///     fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
///         let token = std::str::from_utf8(call.body).map_err(|_| Denial::MalformedRequest("not a token"))?;
///         Ok(Command::Revoke { client: None, token: token.into() })
///     }
///     fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Response<ReplyBody> {
///         reply(match outcome { Ok(_) => 204, Err(Error::Denied(_)) => 400, Err(Error::Failed(_)) => 503 })
///     }
/// }
/// # let _ = rotogate::Gate::builder().endpoint(rotogate::gate::Endpoint::new(Logout));
/// ```
pub trait Dialect: fmt::Debug + Any + Send + Sync {
    /// Returns the dialect's name, as used in [`Endpoint::accepts`](crate::gate::Endpoint::accepts).
    fn name(&self) -> &'static str;

    /// Returns the operations of an endpoint whose path is `base`.
    fn serves(&self, base: &str) -> Vec<ServedPath>;

    /// Returns the default path of an endpoint.
    fn default_path(&self) -> &'static str;

    /// Returns the protocol's session rules, which the endpoint's rules override.
    fn profile(&self) -> ProfileOverride {
        ProfileOverride::default()
    }

    /// Returns the client of all sessions, if the protocol does not name clients.
    fn client(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether the access tokens of this dialect's sessions are also their refresh credentials.
    // Requirement R17.
    fn refreshes_by_access(&self) -> bool {
        false
    }

    /// Returns where the protocol's clients put their access token on a data route.
    fn sources(&self) -> Sources {
        Sources::default()
    }

    /// Reads a request. The default implementation refuses each request with 404.
    ///
    /// # Errors
    /// The protocol does not allow the request.
    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        let _ = call;
        Err(Denial::NoRoute)
    }

    /// Writes the reply to a request.
    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Response<ReplyBody>;

    /// Returns whether these headers identify a client of this protocol. If so, the gate writes denials on unknown
    /// paths in this protocol's format.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let _ = headers;
        false
    }

    /// Writes a denial in the protocol's own format, for a data route or a path that resembles an endpoint's path. If
    /// the result is `None`, the gate sends its plain reply.
    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Response<ReplyBody>> {
        let _ = (headers, denial);
        None
    }
}
