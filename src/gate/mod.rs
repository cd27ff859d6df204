//! The gate connects keys, sessions, revocations, verified tokens, routes and dialects. [`Gate::layer`] puts the gate
//! in front of a service.
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
mod explain_assertion;
mod explain_refresh;
mod explanation;
mod fault_log;
mod forward_buffered;
mod global_revocation;
pub(crate) mod handle;
mod human_page;
pub(crate) mod identity;
mod in_flight;
mod layer;
mod limits;
pub(crate) mod maintain;
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
mod to_its_end;
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

// Only the program needs these items. They may change in any release.
#[doc(hidden)]
pub use relay::RelayConfig;
#[doc(hidden)]
pub use {
    authorizer::{Authorizer, Neighbour},
    builder::{DEFAULT_MAX_ENDPOINT_BODY, DEFAULT_MAX_STREAM},
    cookies::{ACCESS_COOKIE, REFRESH_COOKIE},
    endpoint::{JWKS_MAX_AGE, JWKS_PATH},
    explanation::{Conclusion, ExplainedToken, Explanation, Rule, RuleResult, RuleVerdict},
    replace::PreparedKeys,
    verdict::Who,
};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: GateId,
    pub(crate) running: Arc<running::Running>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    leases: Arc<LeaseContext>,
    pub(crate) clients: Clients,
    asking: Vec<RoutePolicy>,
    endpoints: endpoint::Endpoints,
    resources: Vec<resources::ReadyResource>,
    origins: origin::Origins,
    browser: Option<Arc<browser::BrowserEndpoint>>,
    dialects: Vec<Box<dyn Dialect>>,
    pub(crate) routes: RouteTable,
    /// `None` serves every host.
    hosts: Option<Hosts>,
    pub(crate) protected: ProtectedNames,
    pub(crate) profile: Profile,
    pub(crate) leeway: Duration,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) max_endpoint_body: usize,
    refusals: Option<respond::RefusalHook>,
    is_replaced: AtomicBool,
    uses_dpop: bool,
    external: possession::External,
    limits: limits::RouteLimits,
}

impl Inner {
    /// Returns the gate with the newer rules, if these rules were replaced in the meantime.
    fn successor(&self) -> Option<Arc<Self>> {
        self.is_replaced.load(Ordering::Acquire).then(|| self.running.in_force()).flatten()
    }

    fn strip(&self, mut strip: impl FnMut(&ProtectedNames)) {
        strip(&self.protected);
        if let Some(successor) = self.successor() {
            strip(&successor.protected);
        }
    }

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

    fn shown<'a>(&'a self, source: impl Into<Source<'a>>) -> MissContext<'a> {
        self.engine.miss(source)
    }

    /// Returns whether a token is for its issuer's audience, or for an audience of a route that accepts the token. The
    /// gate's own endpoints refuse any other token (requirement J20).
    fn serves_audience_of(&self, token: &AccessToken) -> bool {
        let is_asked = |policy: &RoutePolicy| policy::takes(policy, token) && token.is_for(&policy.audiences);
        // A delegated token (RFC 8693) may be for a service that is not behind this gate.
        let is_exchanged = || token.delegation().is_some() && self.clients.exchange_for(|to| token.is_for(&[to]));
        token.is_for(&token.issued_by.audience) || self.asking.iter().any(is_asked) || is_exchanged()
    }

    fn holder(&self, parts: &http::request::Parts) -> Option<Holder> {
        parts.extensions.get::<Peer>()?.client_of(&parts.headers, &self.trusted_proxies)
    }
}

impl Gate {
    /// The default tolerance for clock differences. [`GateBuilder::leeway`] changes it.
    pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

    /// Starts building a gate.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    /// Subscribes to the events of this gate from now on: sessions that begin and end, refresh token reuse, and
    /// refusals. A slow subscriber misses events. The audit log does not lose session events.
    pub fn events(&self) -> GateEvents {
        self.0.engine.events()
    }

    /// Puts the gate in front of a service. The layer serves the gate's endpoints, and applies the policies of its
    /// routes to all other paths. For an admitted request, [`Identity::from_extensions`] returns the caller. The layer
    /// removes the client's own identity headers, but it does not read trailers, so never take an identity from
    /// trailers.
    pub fn layer(&self) -> GateLayer {
        GateLayer::new(self.clone())
    }

    /// Requires a token and further conditions on single routes: `Router::route_layer(gate.require().scope("admin"))`.
    /// The layer works with or without [`Gate::layer`]. Behind [`Gate::layer`], the token is not verified again.
    pub fn require(&self) -> RequireLayer {
        RequireLayer::new(self.clone())
    }

    /// Starts, lists and revokes sessions from the application.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// Returns whether the reply to this request already states which origins may read it. A CORS layer in front of the
    /// gate must leave that reply unchanged.
    pub fn answers_any_origin<B>(&self, request: &http::Request<B>) -> bool {
        let path = request.uri().path();
        path.starts_with(RESOURCE_METADATA_PATH)
            && CanonicalPath::parse(path).is_ok_and(|canonical| {
                matches!(self.0.endpoints.find(&canonical, path), Some(endpoint::Hit::Resource(_)))
            })
    }

    /// Returns whether the upstream replies to this CORS preflight. A CORS layer in front of the gate must forward the
    /// preflight.
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

    /// Removes identity fields from trailers, for a server that reads bodies itself. [`Self::layer`] removes them only
    /// from headers.
    pub fn strip_trailers(&self, trailers: &mut http::HeaderMap) {
        self.0.strip(|names| names.strip_trailers(trailers));
    }

    /// Ends upgraded connections, and within a second also long replies such as server-sent events. Call it before the
    /// process stops, because a server that shuts down waits for long replies, but not for upgraded connections.
    pub fn close_connections(&self) {
        self.0.leases.close();
        self.0.leases.close_replies();
    }

    /// Ends upgraded connections, but not pending replies.
    #[doc(hidden)]
    pub fn close_tunnels(&self) {
        self.0.leases.close();
    }

    /// Writes queued confirmations and unacknowledged revocations to the store. Await this method before the process
    /// ends, because a lost confirmation may force a user to log in again. Revocations that the store still rejects are
    /// lost with the process, unless they are kept [beside the store](crate::store::RedbStore). The log names the lost
    /// revocations.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn flush(&self) -> Result<(), rotogate_core::store::StoreError> {
        let paid = self.0.engine.pay().await;
        let flushed = self.0.engine.flush_confirmations().await;
        paid.and(flushed).and(self.0.running.flush_uses().await)?;
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

    /// Returns the number of tokens in the cache, and the number of revocations in force.
    pub fn counts(&self) -> (u64, usize) {
        (self.0.checker.cached(), self.0.engine.revocations().len())
    }
}

fn system_time() -> Arc<dyn TimeSource> {
    Arc::new(rotogate_core::clock::SystemTime::new())
}
