//! The reasons why a gate could not be built.

use rotogate_core::invalid::InvalidValue;
use rotogate_core::random::NoRandomness;
use rotogate_core::route::HostError;
use rotogate_core::store::{Staleness, StoreError};
use rotogate_core::token::verify::RulesError;
use rotogate_core::verify_cache::MAX_IDENTITY_HEADERS;

/// The reason why a gate could not be built.
///
/// ```
/// use rotogate::Gate;
/// use rotogate::gate::BuildError;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let error = Gate::builder().issuer("https://api.example.com").build().await.unwrap_err();
/// assert!(matches!(error, BuildError::NoKeys));
/// assert!(error.to_string().contains("call `.keys(Keyring::…)`"), "it says what to do");
/// # });
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// [`GateBuilder::issuer`](crate::gate::GateBuilder::issuer) was not called.
    #[error("an issuer is needed: call `.issuer(\"https://…\")`, the `iss` of the tokens that this gate mints")]
    NoIssuer,
    /// Clients could not use tokens from this issuer.
    #[error("the issuer {issuer:?}: {why}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// Why clients could not use the issuer.
        why: &'static str,
    },
    /// The public URL has a path, or is not a URL.
    #[error("the public URL {0:?} must have the form `scheme://host[:port]` with http or https")]
    PublicUrl(String),
    /// The authorization endpoint is not a URL, or has a fragment.
    #[error("the authorization endpoint {0:?} is not an http or https URL without a fragment")]
    AuthorizationEndpoint(String),
    /// A feature needs the public URL, but it was not set. A resource server has no issuer of its own from which the
    /// URL could be derived.
    #[error("{0} needs the URL of this resource server: call `.public_url(\"https://…\")`")]
    NoPublicUrl(&'static str),
    /// A resource server needs an audience for the tokens of this issuer, but none is listed.
    #[error(
        "tokens from {0} need an audience: call `.audience(…)`. Otherwise the gate would accept tokens for other \
         services"
    )]
    NoAudience(String),
    /// The keys of this issuer cannot be fetched.
    #[cfg(feature = "remote-keys")]
    #[error("the issuer {issuer:?}: {error}")]
    RemoteIssuer {
        /// The issuer.
        issuer: String,
        /// Why the keys cannot be fetched.
        #[source]
        error: InvalidValue,
    },
    /// The origin is not spelt as browsers spell it.
    #[error(
        "{0:?} is not an origin as a browser writes it: `scheme://host[:port]` in lower case, without a default port"
    )]
    Origin(String),
    /// A client is invalid, or not registered.
    #[error("the client {client:?}: {why}")]
    Client {
        /// The id of the client.
        client: String,
        /// Why the client is refused.
        why: &'static str,
    },
    /// The staleness is outside its bounds.
    #[error("staleness: `limit` must be from {least:?} to {most:?}, and `served` must not be below `limit`", least = Staleness::SHORTEST, most = Staleness::LONGEST)]
    Staleness,
    /// [`GateBuilder::keys`](crate::gate::GateBuilder::keys) was not called.
    #[error("signing keys are needed: call `.keys(Keyring::…)`")]
    NoKeys,
    /// A pattern of headers to remove or to keep cannot be used.
    #[error("the header pattern {pattern:?}: {why}")]
    HeaderPattern {
        /// The pattern.
        pattern: String,
        /// Why the pattern cannot be used.
        why: String,
    },
    /// Running gates that share the store have other keys, and the difference is more than one step of a key rotation.
    #[error("{0}")]
    OtherKeys(String),
    /// The gate has no store for records, but needs it for an endpoint with a relay, for a browser login at a provider,
    /// or for API keys.
    #[error(
        "endpoints with a relay, logins at a provider, and API keys need a store for their records: call \
         `.relay_store(…)`"
    )]
    NoRelayStore,
    /// The new rules have a relay at an endpoint at which the running gate has no relay.
    #[error("the endpoint at {0} has a relay, and the relays of a running gate cannot change")]
    NewRelay(String),
    /// The settings of a profile contradict each other.
    #[error("the profile contradicts itself: {0}")]
    Profile(InvalidValue),
    /// The leeway is more than 30 s.
    // Requirement J7.
    #[error("leeway must be at most 30s")]
    Leeway,
    /// Routes conflict, or a pattern is malformed.
    #[error("routes: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Routes(Vec<InvalidValue>),
    /// A value in [`GateBuilder::hosts`](crate::gate::GateBuilder::hosts) is not a host.
    #[error("{0}")]
    Host(String),
    /// Calls in envelopes could bypass a stricter route, because another route admits the envelopes.
    #[error(
        "route {strict:?} is stricter than {envelope:?}, which admits calls in envelopes, so a call whose path is \
         unknown would bypass {strict:?}. Name the calls that {strict:?} governs with `Route::kuzzle`, or add a \
         route `*` for all other calls"
    )]
    Ungoverned {
        /// The id of the stricter route.
        strict: String,
        /// The id of the route that admits the envelopes.
        envelope: String,
    },
    /// A route names an unknown issuer.
    #[error("no trusted issuer is named {0:?}; only a route may also name \"self\", the gate itself")]
    UnknownIssuer(String),
    /// A protected resource cannot be described, or its calls cannot be judged.
    #[error("the resource {path:?}: {why}")]
    Resource {
        /// The path of the resource.
        path: String,
        /// Why the resource cannot be described, or its calls cannot be judged.
        why: std::borrow::Cow<'static, str>,
    },
    /// The configured assertions cannot be made.
    #[error("assertions: {0}")]
    Assertion(String),
    /// A route with a token exchange for its upstream does not require a caller, or also forwards the caller's token.
    #[error(
        "the route {0:?} has a token exchange, so it must require a caller and must not forward the caller's token"
    )]
    Exchange(String),
    /// There are too many [`GateBuilder::identity_headers`](crate::gate::GateBuilder::identity_headers).
    #[error("there are {0} identity headers, but the maximum is {most}", most = MAX_IDENTITY_HEADERS)]
    IdentityHeaders(usize),
    /// A role that a route requires cannot be judged, or no token can have it.
    #[error("the role {role:?} of route {route:?} {why}")]
    Role {
        /// The id of the route.
        route: String,
        /// The role.
        role: String,
        /// Why the role is refused.
        why: &'static str,
    },
    /// A limit of a route cannot be used.
    #[error("a limit of the route {route:?} {why}")]
    Limit {
        /// The id of the route.
        route: String,
        /// Why the limit cannot be used.
        why: String,
    },
    /// A route names an unknown dialect.
    #[error("the dialect {0:?} does not exist")]
    Dialect(String),
    /// Endpoints conflict, or a template is malformed.
    #[error("endpoint {dialect} at {path}: {problem}")]
    Endpoint {
        /// The name of the endpoint's dialect.
        dialect: String,
        /// The path of the endpoint.
        path: String,
        /// The problem with the endpoint.
        problem: String,
    },
    /// The keys of a trusted issuer cannot be used.
    #[error(transparent)]
    Verifier(#[from] RulesError),
    /// The store failed while revocations were loaded. A gate must not serve requests without its revocations.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system did not return random bytes.
    #[error("{NoRandomness}")]
    Random,
}

impl BuildError {
    /// An error for an endpoint with this dialect at this path.
    pub(in crate::gate) fn endpoint(dialect: &str, path: &str, problem: impl Into<String>) -> Self {
        Self::Endpoint { dialect: dialect.to_owned(), path: path.to_owned(), problem: problem.into() }
    }
}

impl From<HostError> for BuildError {
    fn from(error: HostError) -> Self {
        Self::Host(error.to_string())
    }
}

impl From<NoRandomness> for BuildError {
    fn from(_: NoRandomness) -> Self {
        Self::Random
    }
}
