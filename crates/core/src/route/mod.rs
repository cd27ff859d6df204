//! Routes: which one applies to a request, and what it requires. A request that does not match any route is rejected.

use std::sync::Arc;

use http::Method;

use crate::exchange::UpstreamExchange;
use crate::invalid::InvalidValue;

pub mod authority;
mod calls;
pub mod hosts;
mod loose;
mod mcp;
mod methods;
pub mod path;
mod pattern;
mod policy;
mod rate;
mod resource;
mod table;
mod warnings;

pub use calls::CallPattern;
pub use calls::ungoverned;
pub use hosts::{HostError, Hosts};
pub use mcp::{CallRule, CallRules, Implied, Mcp, McpCalls};
pub use methods::{DEFAULT_METHODS, REGISTERED_METHODS};
pub use policy::{Auth, Credentials, RoutePolicy, admits_path, all_roles_problem, depends_on_path, role_problem};
pub use rate::{LimitOver, LimitPer, RateLimit, unusable_limit};
pub use resource::{RESOURCE_METADATA_PATH, Resource};
pub use table::{Match, RouteError, RouteProblem, RouteTable};
pub use warnings::{RouteWarning, WarningKind, warnings};

/// Checks the pattern of a route.
///
/// # Errors
/// A message with the problem and the pattern that was probably meant.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    pattern::parse(pattern).map(drop)
}

/// One `[[routes]]` entry.
///
/// ```
/// use http::Method;
/// use rotogate::route::{Route, RoutePolicy};
///
/// let read = Route { methods: vec![Method::GET], ..Route::new("/orders/{id}", RoutePolicy::public()) };
/// let change = Route { methods: vec![Method::PUT], ..Route::new("/orders/{id}", RoutePolicy::default()) };
/// let builder = rotogate::Gate::builder().route(read).route(change);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The route's name in logs and metrics. Never taken from a request.
    pub id: Arc<str>,
    /// The hosts that the route serves, without ports. If the list is empty, the route serves all hosts that other
    /// routes do not name.
    pub hosts: Vec<String>,
    /// The methods that the route serves. `GET` includes `HEAD`.
    ///
    /// If the list is empty, the route serves `DEFAULT_METHODS` and `REGISTERED_METHODS`.
    pub methods: Vec<Method>,
    /// The path pattern. `{name}` matches one whole segment. A trailing `{*rest}` matches the rest, which may be empty.
    pub path: String,
    /// The Kuzzle calls to which this rule applies, on any path. See [`Self::kuzzle_rule`].
    // Requirement T22.
    #[doc(hidden)]
    pub kuzzle: Vec<CallPattern>,
    /// The MCP calls to which this rule applies. See [`Self::mcp_rule`].
    // Requirement M8.
    #[doc(hidden)]
    pub calls: Vec<McpCalls>,
    /// The listeners that serve the route (see `Peer::on_listener`). Other listeners respond with 404. If empty, all
    /// listeners serve the route.
    pub listeners: Vec<Box<str>>,
    /// The requirements of the route.
    pub policy: RoutePolicy,
    /// The route's upstream, or `None` for the service inside the layer.
    #[doc(hidden)]
    pub upstream: Option<UpstreamId>,
    /// The `aud` of the signed assertions about callers, or `None` if assertions are not sent.
    pub assertion_audience: Option<Arc<str>>,
    /// The exchange of callers' tokens for the upstream's tokens.
    #[doc(hidden)]
    pub exchange: Option<Arc<UpstreamExchange>>,
}

/// The index of an upstream in the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(usize);

impl UpstreamId {
    /// The upstream at this position.
    pub const fn new(position: usize) -> Self {
        Self(position)
    }

    /// The position.
    pub const fn position(self) -> usize {
        self.0
    }
}

impl Route {
    /// Creates a route for every host, to the service inside the layer. The pattern is also the route's name.
    pub fn new(path: impl Into<String>, policy: RoutePolicy) -> Self {
        let path = path.into();
        let id = path.as_str().into();
        Self {
            id,
            hosts: Vec::new(),
            methods: Vec::new(),
            path,
            kuzzle: Vec::new(),
            calls: Vec::new(),
            listeners: Vec::new(),
            policy,
            upstream: None,
            assertion_audience: None,
            exchange: None,
        }
    }

    /// The names and values of the path parameters. The path must match the route's pattern.
    pub fn params<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut left = path.strip_prefix('/');
        self.path.split('/').skip(1).filter_map(move |segment| {
            let (here, rest) = match left?.split_once('/') {
                Some((here, rest)) => (here, Some(rest)),
                None => (left?, None),
            };
            let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            let found = match name.map(|name| (name, name.strip_prefix('*'))) {
                Some((_, Some(name))) => Some((name, left?)),
                Some((name, None)) => Some((name, here)),
                None => None,
            };
            left = rest;
            found
        })
    }

    /// Creates a rule for MCP calls to the policy's resource.
    ///
    /// A pattern is `method:name`, `method:prefix*`, `method`, or `*` for all calls.
    ///
    /// ```
    /// use rotogate::route::{Route, RoutePolicy};
    /// use rotogate::session::Scope;
    ///
    /// let scopes = Scope::parse("files.write")?;
    /// let write = RoutePolicy { resource: Some("/mcp".into()), scopes, ..RoutePolicy::default() };
    /// assert!(Route::mcp_rule(["tools/call:*_all"], write.clone()).is_err(), "a * is the last character");
    /// let builder = rotogate::Gate::builder().route(Route::mcp_rule(["tools/call:delete_*"], write)?);
    /// # let _ = builder;
    /// # Ok::<(), rotogate::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    /// A message with the expected form.
    pub fn mcp_rule<'a>(calls: impl IntoIterator<Item = &'a str>, policy: RoutePolicy) -> Result<Self, InvalidValue> {
        let calls = calls.into_iter().map(McpCalls::parse).collect::<Result<Vec<_>, _>>().map_err(InvalidValue::new)?;
        let id = calls.first().map(ToString::to_string).unwrap_or_default().into();
        Ok(Self { id, calls, ..Self::new("", policy) })
    }

    /// Creates a rule for calls in Kuzzle's protocol, on any path.
    ///
    /// A pattern is `controller:action`, `controller:*`, or `*` for all calls.
    ///
    /// ```
    /// use rotogate::route::{Route, RoutePolicy};
    /// use rotogate::session::Scope;
    ///
    /// // Calls of the controller `security`, in any envelope, need the scope `admin`.
    /// let admins = RoutePolicy { scopes: Scope::parse("admin")?, ..RoutePolicy::default() };
    /// let builder = rotogate::Gate::builder().route(Route::kuzzle_rule(["security:*"], admins)?);
    /// # let _ = builder;
    /// # Ok::<(), rotogate::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    /// A message with the expected form.
    pub fn kuzzle_rule<'a>(
        calls: impl IntoIterator<Item = &'a str>,
        policy: RoutePolicy,
    ) -> Result<Self, InvalidValue> {
        let kuzzle: Result<Vec<_>, _> = calls.into_iter().map(CallPattern::parse).collect();
        let kuzzle = kuzzle.map_err(InvalidValue::new)?;
        let id = kuzzle.first().map(ToString::to_string).unwrap_or_default().into();
        Ok(Self { id, kuzzle, ..Self::new("", policy) })
    }

    /// Creates a route for all paths that no other route serves.
    pub fn catch_all(policy: RoutePolicy) -> Self {
        Self { id: "all".into(), ..Self::new("/{*rest}", policy) }
    }
}
