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
    #[error("an issuer is needed: call `.issuer(\"https://…\")` with the `iss` of the tokens that this gate mints")]
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
    #[error("the authorization endpoint {0:?} must be an http or https URL without a fragment")]
    AuthorizationEndpoint(String),
    /// A feature of a resource server needs the public URL, which was not set.
    #[error("{0} needs the URL of this resource server: call `.public_url(\"https://…\")`")]
    NoPublicUrl(&'static str),
    /// A resource server does not have an audience for this issuer's tokens.
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
    /// The keys differ by more than one rotation step from those of a running gate that shares the store.
    #[error("{0}")]
    OtherKeys(String),
    /// The gate has no store for the records of relays, logins at a provider, or API keys.
    #[error(
        "endpoints with a relay, logins at a provider, and API keys need a store for their records: call \
         `.row_store(…)`"
    )]
    NoRowStore,
    /// An endpoint in the new rules has a relay, but the running gate's endpoint does not.
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
    /// Calls in envelopes could bypass a stricter route.
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
    #[error("no trusted issuer is named {0:?}; only routes may name \"self\", which means this gate")]
    UnknownIssuer(String),
    /// The description of a protected resource is invalid or contradicts the routes.
    #[error("the resource {path:?}: {why}")]
    Resource {
        /// The path of the resource.
        path: String,
        /// The problem.
        why: std::borrow::Cow<'static, str>,
    },
    /// The configured assertions cannot be made.
    #[error("assertions: {0}")]
    Assertion(String),
    /// A route with a token exchange does not require a caller, or also forwards the caller's token.
    #[error(
        "the route {0:?} has a token exchange, so it must require a caller and must not forward the caller's token"
    )]
    Exchange(String),
    /// There are too many [`GateBuilder::identity_headers`](crate::gate::GateBuilder::identity_headers).
    #[error("there are {0} identity headers, but the maximum is {most}", most = MAX_IDENTITY_HEADERS)]
    IdentityHeaders(usize),
    /// A role that a route requires cannot be checked, or cannot occur in a token.
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
    /// The revocations could not be loaded. A gate must not serve requests without its revocations.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system did not return random bytes.
    #[error("{NoRandomness}")]
    Random,
}

impl BuildError {
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
