//! The gate: connects keys, sessions, revocations, verified tokens, routes and dialects. [`Gate::layer`] puts the gate
//! in front of a service. The program `rotogate` is that layer around a reverse proxy.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rotogate::Gate;
//! use rotogate::client::Client;
//! use rotogate::route::{Route, RoutePolicy};
//! use rotogate::token::Keyring;
//!
//! let gate = Gate::builder()
//!     .issuer("https://api.example.com")
//!     .keys(Keyring::ephemeral()?)
//!     .client(Client::public("web"))
//!     .route(Route::new("/health", RoutePolicy::public()))
//!     .route(Route::catch_all(RoutePolicy::default()))
//!     .build()
//!     .await?;
//! let layer = gate.layer();
//! # let _ = layer;
//! # Ok(()) }
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use crate::dialect::Dialect;
use rotogate_core::client::Clients;
use rotogate_core::clock::TimeSource;
use rotogate_core::engine::Engine;
use rotogate_core::headers::ProtectedNames;
use rotogate_core::lease::LeaseContext;
use rotogate_core::limit::Source;
use rotogate_core::overload::Holder;
use rotogate_core::policy;
use rotogate_core::policy::GateId;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Hosts, RESOURCE_METADATA_PATH, RoutePolicy, RouteTable};
use rotogate_core::session::profile::Profile;
use rotogate_core::token::claims::AccessToken;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::verify_cache::{MissContext, TokenChecker};

mod api_keys;
#[cfg(feature = "program")]
mod authorizer;
mod body;
mod body_pieces;
mod browser;
mod browser_request;
mod builder;
mod cookies;
mod endpoint;
mod events;
mod exchange;
#[cfg(feature = "program")]
mod explain_assertion;
#[cfg(feature = "program")]
mod explain_refresh;
mod explanation;
mod fault_log;
mod forward_buffered;
#[cfg(feature = "program")]
mod global_revocation;
pub(crate) mod handle;
pub(crate) mod identity;
mod in_flight;
mod layer;
mod limits;
mod maintain;
mod mcp;
mod metadata;
#[cfg(feature = "axum")]
mod nested;
mod nodes;
mod notice;
mod origin;
mod overloaded;
mod possession;
mod preflight;
#[cfg(feature = "program")]
pub(crate) mod program;
#[cfg(feature = "browser-oidc")]
mod provider_token;
mod readiness;
mod relay;
mod replace;
mod reply_guard;
mod require;
mod resources;
mod respond;
mod running;
mod sessions;
mod signed_out;
#[cfg(feature = "kuzzle")]
mod socket;
mod stall_timeout;
mod tunnel;
mod upgrade;
mod verdict;

pub use api_keys::GateApiKeys;
pub use body::GateBody;
pub use browser::{Browser, BrowserSessions};
pub use builder::{BuildError, GateBuilder};
pub use cookies::Cookies;
pub use endpoint::Endpoint;
pub use forward_buffered::BufferedForward;
#[cfg(feature = "axum")]
pub use identity::{Claims, NoIdentity};
pub use layer::{GateLayer, GateService, Judgement, PermittedRequest, ResponseFuture};
#[cfg(feature = "browser-oidc")]
pub use provider_token::ProviderToken;
pub use readiness::Readiness;
pub use require::{Require, RequireLayer};
pub use rotogate_core::api_key::{ApiKey, ApiKeySettings, KeyPrefix, NewApiKey};
pub use rotogate_core::engine::api_keys::{KeyRefusal, ListedKeys};
pub use rotogate_core::engine::{GateEvent, GateEvents, IssuedTokens};
pub use rotogate_core::headers::Peer;
pub use rotogate_core::lease::{Lease, LeaseEnd};
pub use rotogate_core::limit::{Rate, Rates};
pub use rotogate_core::overload::{Bound, Bounds};
pub use rotogate_core::reason::Reason;
pub use rotogate_core::verify_cache::IdentityField;
#[cfg(feature = "browser-oidc")]
pub use rotogate_issuers::login::LoginProvider;
pub use sessions::{NewSession, Sessions, Whose};
pub use verdict::Verdict;

pub(crate) use handle::Gate;
pub(crate) use identity::Identity;

// More items that only the program needs. Like `crate::program`, they may change in any release.
#[doc(hidden)]
pub use relay::RelayConfig;
#[cfg(feature = "program")]
pub use {
    authorizer::{Authorizer, Neighbour},
    builder::{DEFAULT_MAX_ENDPOINT_BODY, DEFAULT_MAX_STREAM},
    cookies::{ACCESS_COOKIE, REFRESH_COOKIE},
    endpoint::{JWKS_MAX_AGE, JWKS_PATH},
    explanation::{Conclusion, ExplainedToken, Explanation, Rule, RuleResult, RuleVerdict},
    replace::PreparedKeys,
    verdict::Who,
};

/// The state of a gate: the running parts, and the rules for requests.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: GateId,
    pub(crate) running: Arc<running::Running>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    leases: Arc<LeaseContext>,
    pub(crate) clients: Clients,
    /// The policies of the routes that require their own audiences.
    asking: Vec<RoutePolicy>,
    endpoints: endpoint::Endpoints,
    /// The resources with a metadata document.
    resources: Vec<resources::ReadyResource>,
    origins: origin::Origins,
    /// The browser endpoint.
    browser: Option<Arc<browser::BrowserEndpoint>>,
    /// The dialects whose formats routes use to refuse requests.
    dialects: Vec<Box<dyn Dialect>>,
    pub(crate) routes: RouteTable,
    /// The hosts that are served; `None` serves every host.
    hosts: Option<Hosts>,
    pub(crate) protected: ProtectedNames,
    pub(crate) profile: Profile,
    pub(crate) leeway: Duration,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) max_endpoint_body: usize,
    /// The application's hook for refused requests.
    refusals: Option<respond::RefusalHook>,
    /// Whether new rules have replaced these rules.
    is_replaced: AtomicBool,
    /// Whether tokens may be bound to a key, so that clients may send proofs of possession.
    uses_dpop: bool,
    /// The URLs that DPoP proofs may name.
    external: possession::External,
    /// The limits of the routes.
    limits: limits::RouteLimits,
}

impl Inner {
    /// If newer rules have replaced these rules, returns the gate with the newer rules. This can happen while a
    /// connection or a request is in progress.
    fn successor(&self) -> Option<Arc<Self>> {
        self.is_replaced.load(Ordering::Acquire).then(|| self.running.in_force()).flatten()
    }

    /// Calls `strip` with the names of the identity headers in these rules and in the current rules. With the current
    /// rules, a header may have become an identity header after the client sent it.
    fn strip(&self, mut strip: impl FnMut(&ProtectedNames)) {
        strip(&self.protected);
        if let Some(successor) = self.successor() {
            strip(&successor.protected);
        }
    }

    /// Returns the requirements that a challenge on this route states.
    fn asked_by<'a>(&'a self, policy: &'a RoutePolicy, headers: &http::HeaderMap) -> respond::ChallengeParams<'a> {
        let resource = resources::named(&self.resources, policy.resource.as_deref());
        respond::ChallengeParams {
            scopes: policy.asked_scopes(),
            resource: resource.map(|resource| (&*resource.document_url, &resource.scopes)),
            step_up: policy.step_up.as_ref(),
            schemes: self.schemes(policy.dpop_required),
            used: rotogate_core::credential::scheme(headers),
        }
    }

    /// Returns the context for checking a token that is not in the cache and was presented from `source`.
    fn shown<'a>(&'a self, source: impl Into<Source<'a>>) -> MissContext<'a> {
        MissContext::new(&self.engine, source)
    }

    /// Returns whether a token is for its issuer's audience, or for the audience of a route that accepts the issuer's
    /// tokens. Our own endpoints refuse any other token (requirement J20).
    fn serves_audience_of(&self, token: &AccessToken) -> bool {
        let is_asked = |policy: &RoutePolicy| policy::takes(policy, token) && token.is_for(&policy.audiences);
        // A delegated token (RFC 8693) may be for a service that is not behind this gate.
        let is_exchanged = || token.delegation().is_some() && self.clients.exchange_for(|to| token.is_for(&[to]));
        token.is_for(&token.issued_by.audience) || self.asking.iter().any(is_asked) || is_exchanged()
    }

    /// Returns the holder under which a request counts in pools that count by address.
    fn holder(&self, parts: &http::request::Parts) -> Option<Holder> {
        parts.extensions.get::<Peer>()?.client_of(&parts.headers, &self.trusted_proxies)
    }
}

impl Gate {
    /// The tolerance for clock differences, unless [`GateBuilder::leeway`] sets another.
    pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

    /// Starts building a gate.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    /// Follows the events of this gate from now on: sessions that begin and end, refresh token reuse, and refusals.
    /// This is useful for an application's notifications and dashboards. The audit log records the same session events.
    /// A follower that is too slow misses events, but the audit log does not.
    pub fn events(&self) -> GateEvents {
        self.0.engine.events()
    }

    /// Puts the gate in front of a service. The layer serves the gate's endpoints, and applies the policies of its
    /// routes to all other paths. A request reaches the service only if its route permits it. The request then has a
    /// `Permitted` in its extensions, from which [`Identity::from_extensions`] reads the caller. The client's own
    /// identity headers are removed. Trailers are part of the body, which the layer does not read, so never take an
    /// identity from trailers.
    pub fn layer(&self) -> GateLayer {
        GateLayer::new(self.clone())
    }

    /// Requires a token and further conditions on single routes: `Router::route_layer(gate.require().scope("admin"))`.
    /// It works without [`Gate::layer`]. Behind [`Gate::layer`], it does not repeat the verification.
    pub fn require(&self) -> RequireLayer {
        RequireLayer::new(self.clone())
    }

    /// Starts, lists and revokes sessions from the application.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// Returns whether a request is for a document whose reply already states which origins may read it. A CORS layer
    /// in front of the gate must leave such a reply unchanged.
    pub fn answers_any_origin<B>(&self, request: &http::Request<B>) -> bool {
        let path = request.uri().path();
        path.starts_with(RESOURCE_METADATA_PATH)
            && CanonicalPath::parse(path).is_ok_and(|canonical| {
                matches!(self.0.endpoints.find(&canonical, path), Some(endpoint::Hit::Resource(_)))
            })
    }

    /// Returns whether the route of this CORS preflight leaves the reply to the upstream. A CORS layer in front of the
    /// gate must pass such a preflight on.
    pub fn leaves_preflight_to_upstream<B>(&self, request: &http::Request<B>) -> bool {
        preflight::is_for_upstream(&self.0, request.method(), request.uri(), request.headers())
    }

    /// Returns the keyring with the gate's own keys.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.0.engine.keyring()
    }

    /// The peers whose forwarding headers are trusted.
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.0.trusted_proxies
    }

    /// Removes identity fields from trailers, as [`Self::layer`] does from headers. Meant for a server that reads
    /// bodies itself.
    pub fn strip_trailers(&self, trailers: &mut http::HeaderMap) {
        self.0.strip(|names| names.strip_trailers(trailers));
    }

    /// Ends upgraded connections and the long replies that the gate watches (server-sent events, streams). A server
    /// does not wait for upgraded connections when it shuts down, but it would wait for long replies. The replies end
    /// within a second. Meant for a process that is about to stop.
    pub fn close_connections(&self) {
        self.0.leases.close();
        self.0.leases.close_replies();
    }

    /// Ends only the upgraded connections. It is for a server that itself waits until the replies are complete.
    #[cfg(feature = "program")]
    pub fn close_tunnels(&self) {
        self.0.leases.close();
    }

    /// Writes to the store the queued confirmations, and the revocations that the store has not acknowledged. Await
    /// this method before the process ends, because a lost confirmation may force a user to log in again. Revocations
    /// that the store still rejects are lost when the process ends, unless they are kept [beside the
    /// store](crate::store::RedbStore). The log names the lost revocations.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn flush(&self) -> Result<(), rotogate_core::store::StoreError> {
        let paid = self.0.engine.pay().await;
        let flushed = self.0.engine.flush_confirmations().await;
        paid.and(flushed)?;
        match self.0.engine.unpaid().lost_at_end {
            0 => Ok(()),
            lost => Err(rotogate_core::store::StoreError::new(format!(
                "{lost} revocations could not be written to the store, so only this gate enforces them"
            ))),
        }
    }

    /// Returns whether a client with this id is registered.
    pub fn has_client(&self, id: &str) -> bool {
        self.0.running.clients.load().contains(id)
    }

    /// Returns the number of verified tokens in the cache, and the number of revocations in force.
    pub fn counts(&self) -> (u64, usize) {
        (self.0.checker.cached(), self.0.engine.revocations().len())
    }
}

/// The default time source.
fn system_time() -> Arc<dyn TimeSource> {
    Arc::new(rotogate_core::clock::SystemTime::new())
}
