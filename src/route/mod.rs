//! Which route a request takes, and what that route asks of it. What matches no route is refused: nothing is forwarded
//! that the configuration does not name.

use http::Method;

pub mod authority;
pub mod path;
mod pattern;
mod policy;
mod table;

pub use policy::{Auth, BadCredential, EncodedSlash, OnExpiry, RoutePolicy};
pub use table::{DEFAULT_METHODS, Match, RouteError, RouteProblem, RouteTable};

/// One `[[routes]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What logs and metrics call it: from the configuration, never from a request.
    pub id: String,
    /// The hosts that it serves, without port. Empty: every host that no route names.
    pub hosts: Vec<String>,
    /// The methods that it serves; `GET` brings `HEAD` with it. Empty: [`DEFAULT_METHODS`].
    pub methods: Vec<Method>,
    /// A pattern: `{name}` stands for one whole segment, a trailing `{*rest}` for all that is left, nothing included.
    pub path: String,
    /// What it asks.
    pub policy: RoutePolicy,
    /// Where it leads: the place of an upstream in the configuration. None where the service inside answers.
    pub upstream: Option<usize>,
}

impl Route {
    /// The route of a path pattern on every host, leading to the service inside. Logs call it by its pattern.
    pub fn new(path: impl Into<String>, policy: RoutePolicy) -> Self {
        let path = path.into();
        Self { id: path.clone(), hosts: Vec::new(), methods: Vec::new(), path, policy, upstream: None }
    }

    /// The route of every path that no other route serves.
    pub fn catch_all(policy: RoutePolicy) -> Self {
        Self { id: "all".into(), ..Self::new("/{*rest}", policy) }
    }
}
