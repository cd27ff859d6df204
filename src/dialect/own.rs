//! The trait of a wire protocol of an application.

use std::any::Any;
use std::fmt;

use http::{HeaderMap, Response};

use super::{Call, Command, Outcome, ReplyBody, ServedPath, Sources};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::session::profile::ProfileOverride;

/// A wire protocol of your own, whose messages are one command each.
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
///     /// The protocol names no client, so all its sessions are of this one.
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
    /// The dialect's name, which [`Endpoint::accepts`](crate::gate::Endpoint::accepts) takes.
    fn name(&self) -> &'static str;

    /// The operations at an endpoint whose path is `base`.
    fn serves(&self, base: &str) -> Vec<ServedPath>;

    /// The path of an endpoint that names no path.
    fn default_path(&self) -> &'static str;

    /// The session rules of the protocol. The endpoint's own take precedence.
    fn profile(&self) -> ProfileOverride {
        ProfileOverride::default()
    }

    /// The client of the dialect's sessions, if the protocol names no client.
    fn client(&self) -> Option<&'static str> {
        None
    }

    /// Does the protocol exchange an access token for the next one, without another refresh credential? Then an access
    /// token of this dialect's sessions, and of no other dialect's, is a refresh credential.
    // Requirement R17.
    fn refreshes_by_access(&self) -> bool {
        false
    }

    /// Where the protocol's clients put their access token on a data route.
    fn sources(&self) -> Sources {
        Sources::default()
    }

    /// Reads a request. Without this method, each request is answered with 404.
    ///
    /// # Errors
    /// The denial of a request that the protocol does not allow.
    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        let _ = call;
        Err(Denial::NoRoute)
    }

    /// Writes the outcome of a request, or its error.
    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Response<ReplyBody>;

    /// Do the headers of a request show a client of this protocol? The gate asks this for refusals on a path of no
    /// endpoint and no route.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let _ = headers;
        false
    }

    /// Refuses a request on a data route, or near an endpoint, in the protocol's own words; `None` for the plain reply.
    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Response<ReplyBody>> {
        let _ = (headers, denial);
        None
    }
}
