//! Which route a request takes, and what that route asks of it. What matches no route is refused: nothing is forwarded
//! that the configuration does not name.

use http::Method;

pub mod authority;
mod calls;
pub(crate) mod hosts;
mod loose;
mod methods;
pub mod path;
mod pattern;
mod policy;
mod table;
mod warnings;

pub use calls::CallPattern;
pub use calls::ungoverned;
pub use hosts::{HostError, Hosts};
pub use methods::{DEFAULT_METHODS, REGISTERED_METHODS};
pub use policy::{Auth, BadCredential, EncodedSlash, LooseMatch, OnExpiry, RoutePolicy};
pub use table::{Match, RouteError, RouteProblem, RouteTable};
pub use warnings::{RouteWarning, warnings};

/// Can this be the pattern of a route?
///
/// # Errors
/// What is wrong with it, in words, and how to write what was probably meant.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    pattern::parse(pattern).map(drop)
}

/// One `[[routes]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What logs and metrics call it: from the configuration, never from a request.
    pub id: String,
    /// The hosts that it serves, without port. Empty: every host that no route names.
    pub hosts: Vec<String>,
    /// The methods that it serves; `GET` brings `HEAD` with it. Empty: [`DEFAULT_METHODS`] and [`REGISTERED_METHODS`].
    pub methods: Vec<Method>,
    /// A pattern: `{name}` stands for one whole segment, a trailing `{*rest}` for all that is left, nothing included.
    pub path: String,
    /// The calls in envelopes that it is a rule for, whatever their paths (requirement T22). A route for calls alone has an
    /// empty path.
    pub kuzzle: Vec<CallPattern>,
    /// What it asks.
    pub policy: RoutePolicy,
    /// Where it leads: the place of an upstream in the configuration. None where the service inside answers.
    pub upstream: Option<usize>,
}

impl Route {
    /// The route of a path pattern on every host, leading to the service inside. Logs call it by its pattern.
    pub fn new(path: impl Into<String>, policy: RoutePolicy) -> Self {
        let path = path.into();
        let id = path.clone();
        Self { id, hosts: Vec::new(), methods: Vec::new(), path, kuzzle: Vec::new(), policy, upstream: None }
    }

    /// The route of every path that no other route serves.
    pub fn catch_all(policy: RoutePolicy) -> Self {
        Self { id: "all".into(), ..Self::new("/{*rest}", policy) }
    }
}
