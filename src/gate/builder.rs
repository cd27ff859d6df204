//! Builds a gate from its parts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::endpoint::{Endpoint, EndpointError, Endpoints};
use super::fault_log::FaultLog;
use super::notice::Notices;
use super::respond::RefusalHook;
use super::running::Running;
use super::{Gate, PreparedRules, maintain, nodes, system_time};
use crate::client::{Client, NoRandomness};
use crate::clock::{EngineClock, TimeSource, Timestamp};
use crate::denial::Denial;
use crate::directory::Directory;
use crate::dpop::{Dpop, DpopSettings};
use crate::engine::{Engine, EngineConfig, StoreCounters};
use crate::headers::HeaderPattern;
use crate::lease::LeaseContext;
use crate::limit::{Limits, Rates};
use crate::overload::{Bounds, Overload};
use crate::password::Passwords;
use crate::policy::GateId;
use crate::random::random;
use crate::route::{HostError, Resource, Route, RouteError};
use crate::session::profile::{Profile, ProfileError};
use crate::store::{Cursor, Feed, Follow, LiveRow, MemoryStore, Staleness, Store, StoreError, round_trip};
use crate::token::assertion::ASSERTION_TTL;
use crate::token::keyring::Keyring;
use crate::token::verify::{IssuerRules, RulesError, Verifier};
use crate::verify_cache::{AssertionHeader, DEFAULT_CACHE, IdentityField, MAX_IDENTITY_HEADERS, TokenChecker};

mod rules;
mod sound;

use rules::{Kept, Rules};
pub(super) use sound::assertion;

/// The largest body of a request to an endpoint, in bytes (requirement A4).
#[doc(hidden)]
pub const DEFAULT_MAX_ENDPOINT_BODY: usize = 16 * 1024;
/// The longest lifetime of a forwarded long-lived connection, however often its token is refreshed.
#[doc(hidden)]
pub const DEFAULT_MAX_STREAM: Duration = Duration::from_secs(86_400);
/// The tolerance for clock differences.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

/// Why a gate could not be built.
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
    /// [`GateBuilder::issuer`] was not called.
    #[error("an issuer is needed: call `.issuer(\"https://…\")`, the `iss` of the tokens that this gate mints")]
    NoIssuer,
    /// Clients could not use this issuer.
    #[error("the issuer {issuer:?}: {why}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The public URL has a path, or is no URL.
    #[error("the public URL {0:?} is not `scheme://host[:port]`, of http or https")]
    PublicUrl(String),
    /// An origin that no browser spells so.
    #[error("{0:?} is no origin as a browser writes it: `scheme://host[:port]` in lower case, without a default port")]
    Origin(String),
    /// A client is invalid, or not registered.
    #[error("the client {client:?}: {why}")]
    Client {
        /// Its id.
        client: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A staleness that no gate may have.
    #[error("staleness: a limit of {least:?} to {most:?} is needed, and `served` may not be below it", least = Staleness::SHORTEST, most = Staleness::LONGEST)]
    Staleness,
    /// [`GateBuilder::keys`] was not called.
    #[error("keys are needed: call `.keys(Keyring::…)`")]
    NoKeys,
    /// Nodes of the store that run have other keys, and more than one step of a roll is between them.
    #[error("{0}")]
    OtherKeys(String),
    /// An endpoint has a relay, and no store keeps its records.
    #[cfg(feature = "relay")]
    #[doc(hidden)]
    #[error("an endpoint with a relay needs a store for its records")]
    NoRelayStore,
    /// Other rules name an endpoint with a relay that the running gate has not.
    #[cfg(feature = "relay")]
    #[doc(hidden)]
    #[error("the endpoint at {0} has a relay, and a running gate gets no other relays")]
    NewRelay(String),
    /// The rules of a profile contradict each other.
    #[error("the profile contradicts itself: {0}")]
    Profile(#[from] ProfileError),
    /// The leeway is more than 30 s.
    // Requirement J7.
    #[error("leeway must be at most 30s")]
    Leeway,
    /// Routes conflict, or a pattern is malformed.
    #[error("routes: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Routes(Vec<RouteError>),
    /// One of [`GateBuilder::hosts`] is not a host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Calls in envelopes would bypass a route.
    #[error(
        "route {strict:?} is stricter than {envelope:?}, which admits calls in envelopes, and a call whose path is \
         unknown would bypass it: write which calls it is for (`Route::kuzzle`), or a route for all others: `*`"
    )]
    Ungoverned {
        /// The id of the stricter route.
        strict: String,
        /// The id of the envelopes' route.
        envelope: String,
    },
    /// A route names an unknown issuer.
    #[error("there is no issuer {0:?}: a route takes the tokens of \"self\", or of a trusted one by its name")]
    UnknownIssuer(String),
    /// A protected resource cannot be described.
    #[error("the resource {path:?}: {why}")]
    Resource {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No assertions can be made as they are configured.
    #[error("assertions: {0}")]
    Assertion(String),
    /// Too many of [`GateBuilder::identity_headers`].
    #[error("{0} identity headers: the most is {most}", most = MAX_IDENTITY_HEADERS)]
    IdentityHeaders(usize),
    /// A role that a route asks for could not be judged, or no token could have it.
    #[error("the role {role:?} of route {route:?} {why}")]
    Role {
        /// The id of the route.
        route: String,
        /// The role.
        role: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A route names an unknown dialect.
    #[error("there is no dialect {0:?}")]
    Dialect(String),
    /// Endpoints conflict, or a template is malformed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The keys of an issuer cannot be used.
    #[error(transparent)]
    Verifier(#[from] RulesError),
    /// The store failed while revocations were loaded. Without them the gate fails closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Builds a [`Gate`]. A value that is not set has the default of `gateway.toml`.
///
/// ```
/// use std::time::Duration;
/// use rotogate::Gate;
/// use rotogate::token::Keyring;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let gate = Gate::builder()
///     .issuer("https://api.example.com")
///     .keys(Keyring::ephemeral()?)
///     .leeway(Duration::from_secs(5))
///     .build()
///     .await?;
/// # let _ = gate;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct GateBuilder {
    issuer: Option<Arc<str>>,
    plain_issuer: bool,
    audience: Vec<Box<str>>,
    keyring: Option<Keyring>,
    trusted: Vec<IssuerRules>,
    store: Option<Arc<dyn Store>>,
    staleness: Staleness,
    #[cfg(feature = "relay")]
    relay_store: Option<Arc<dyn crate::store::relay::RelayStore>>,
    directory: Option<Arc<dyn Directory>>,
    passwords: Option<Arc<Passwords>>,
    rates: Rates,
    limits_per_node: bool,
    node_name: Option<Box<str>>,
    leeway: Option<Duration>,
    time: Option<TimeArc>,
    capacity: Option<u64>,
    max_stream: Option<Duration>,
    bounds: Bounds,
    forget_login_origin: bool,
    /// What a running gate can replace.
    rules: Rules,
}

struct TimeArc(Arc<dyn TimeSource>);

impl std::fmt::Debug for TimeArc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TimeSource")
    }
}

impl GateBuilder {
    /// The `iss` of minted tokens: an https URL without query or fragment. Plain http is accepted on loopback.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<Arc<str>>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Accepts a plain http issuer that is not on loopback. An attacker on the network can then answer in its name,
    /// with other keys.
    #[must_use]
    pub const fn dangerous_plain_issuer(mut self) -> Self {
        self.plain_issuer = true;
        self
    }

    /// The `aud` of minted tokens. A token must name one of them on every route without its own `audiences`. The
    /// default is the issuer.
    #[must_use]
    pub fn audience(mut self, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.audience = audience.into_iter().map(Into::into).collect();
        self
    }

    /// The keys that sign and verify the gate's own tokens.
    #[must_use]
    pub fn keys(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Another issuer whose access tokens are accepted: on routes that name it, or on all routes if its rules say
    /// `everywhere`, and with the scopes that its rules list.
    #[must_use]
    pub fn trusted_issuer(mut self, rules: IssuerRules) -> Self {
        self.trusted.push(rules);
        self
    }

    /// The store of sessions. The default is in memory.
    #[must_use]
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// The same, for a store that other code **in this process** holds as well, to close it for example. Only one gate
    /// may use it: a gate reads revocations when it is built, and never sees those that another one writes later.
    #[must_use]
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// The source of users. Without one, only the application starts sessions: [`Gate::sessions`].
    #[must_use]
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// The checker for secrets of confidential clients. Shared with a directory, its concurrency bound covers both.
    #[must_use]
    #[doc(hidden)]
    pub fn passwords(mut self, passwords: Arc<Passwords>) -> Self {
        self.passwords = Some(passwords);
        self
    }

    /// Registers a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.rules.clients.push(client);
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.rules.endpoints.push(endpoint);
        self
    }

    /// The default profile of sessions. Clients and endpoints override single keys.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.rules.profile = profile;
        self
    }

    /// Adds a route. Without any route, every path requires a token of this gate. With routes, a request that matches
    /// none is 404.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.rules.routes.push(route);
        self
    }

    /// Describes a protected resource (RFC 9728): serves its document, and names it in the challenges of the routes whose
    /// policy has its path. Their tokens must name it, or one of the route's audiences.
    // Requirements N41–N44.
    #[must_use]
    pub fn resource(mut self, resource: Resource) -> Self {
        self.rules.resources.push(resource);
        self
    }

    /// The headers that name the caller to the inner service: at most 64. The client's own copies are removed, in any
    /// spelling.
    #[must_use]
    pub fn identity_headers(mut self, headers: impl IntoIterator<Item = (HeaderName, IdentityField)>) -> Self {
        self.rules.identity = Some(headers.into_iter().collect());
        self
    }

    /// Asserts each caller to the service behind a route in a JWT that the gate signs, `typ` `identity+jwt`, in this
    /// header. It is good for `ttl`, 10 s to 10 min, and for the audience that the route names:
    /// [`Route::assertion_audience`]. The client's own copies are removed on all routes, in any spelling.
    // Requirements N57–N60.
    #[must_use]
    pub fn assertion(mut self, header: HeaderName, ttl: Duration) -> Self {
        let ttl = ttl.clamp(*ASSERTION_TTL.start(), *ASSERTION_TTL.end());
        self.rules.assertion = Some(AssertionHeader { name: header, ttl });
        self
    }

    /// The rate limits of logins, refreshes and bad tokens.
    #[must_use]
    pub const fn rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// The name of this gate among those of its store, as messages say it. The default is a random one.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<Box<str>>) -> Self {
        self.node_name = Some(name.into());
        self
    }

    /// Counts logins and their failures at this gate alone, though other gates write to the store, too: N gates then admit
    /// N times as many guesses. Without this, gates of one store count them together.
    #[must_use]
    pub const fn limits_per_node(mut self) -> Self {
        self.limits_per_node = true;
        self
    }

    /// The tolerance for clock differences, at most 30 s.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = Some(leeway);
        self
    }

    /// The peers whose `X-Forwarded-For` is trusted.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<IpNet>) -> Self {
        self.rules.trusted_proxies = proxies;
        self
    }

    /// How long the gate goes on without news from a store that other gates write to, too. The default is
    /// [`Staleness::default`]. It has no effect on other stores.
    #[must_use]
    pub fn staleness(mut self, staleness: Staleness) -> Self {
        self.staleness = staleness;
        self
    }

    /// The store of the records of relays.
    #[cfg(feature = "relay")]
    #[doc(hidden)]
    #[must_use]
    pub fn relay_store(mut self, store: Arc<dyn crate::store::relay::RelayStore>) -> Self {
        self.relay_store = Some(store);
        self
    }

    /// The source of time.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeSource>) -> Self {
        self.time = Some(TimeArc(time));
        self
    }

    /// The size of the cache of verified tokens that all threads share, in bytes. The default is 64 MiB. Zero caches
    /// none.
    #[must_use]
    pub const fn verified_cache(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the largest body of a request to an endpoint, in bytes.
    #[must_use]
    pub const fn max_endpoint_body(mut self, bytes: usize) -> Self {
        self.rules.max_endpoint_body = Some(bytes);
        self
    }

    /// The longest lifetime of a forwarded long-lived connection, however often its token is refreshed.
    #[must_use]
    pub const fn max_stream(mut self, longest: Duration) -> Self {
        self.max_stream = Some(longest);
        self
    }

    /// The bounds on concurrency and buffers: pending bodies of requests to endpoints, streams and WebSockets that the
    /// gate answers itself, buffered bytes. A request beyond a bound gets 503 with `Retry-After`.
    #[must_use]
    pub const fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Does not store the address and user agent of a login. The audit event of a reuse then cannot compare them.
    #[must_use]
    pub const fn forget_login_origin(mut self) -> Self {
        self.forget_login_origin = true;
        self
    }

    /// The URL of the gate for its clients: `scheme://host[:port]`. Metadata (RFC 8414) use it, and a request from this
    /// origin is same-origin. The default is the origin of the issuer.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.rules.public_url = Some(url.into());
        self
    }

    /// The hosts that are served besides the host of [`GateBuilder::public_url`] and those that routes name:
    /// `example.com`, `*.example.com`, or `*` for any. Requests for others are 421. By default every host is served: a
    /// layer leaves this check to the server in front of it.
    // Requirement T23.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rules.hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Client headers to remove, besides the identity headers of known products.
    // Requirement T24.
    #[must_use]
    pub fn strip_headers(mut self, patterns: impl IntoIterator<Item = HeaderPattern>) -> Self {
        self.rules.strip = patterns.into_iter().collect();
        self
    }

    /// Identity headers of known products to keep, because the product is in front of the gate and sets them. The
    /// headers of [`GateBuilder::identity_headers`] are always removed.
    #[must_use]
    pub fn keep_headers(mut self, patterns: impl IntoIterator<Item = HeaderPattern>) -> Self {
        self.rules.keep = patterns.into_iter().collect();
        self
    }

    /// Origins besides the gate's own, spelt as a browser spells them, whose pages may make changes with a token in a
    /// cookie.
    // Requirement T18.
    #[must_use]
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.rules.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Accepts tokens that are bound to a key, with proofs by these rules (RFC 9449). A client or a route that has to do
    /// with proofs turns that on as well, with the default rules. A running gate keeps the rules of its start.
    #[must_use]
    pub fn dpop(mut self, settings: DpopSettings) -> Self {
        self.rules.dpop = Some(settings);
        self
    }

    /// A hook that replaces the replies to refused requests: those that [`Gate::layer`] and [`Gate::require`] refuse,
    /// and those that the extractors [`Identity`](super::Identity) and [`Claims`](super::Claims) refuse. `None` keeps
    /// the gate's reply. [`Denial::reason`](crate::denial::Denial::reason) is the word for a log, not for the client.
    ///
    /// The gate adds headers that clients rely on, unless the hook's reply has them: `WWW-Authenticate`, `Allow`,
    /// `Retry-After`, `Cache-Control`. The hook is not called where a protocol fixes the reply: for gRPC, on a route
    /// whose dialect has its own refusal, and at the gate's endpoints.
    ///
    /// ```
    /// # use rotogate::Gate;
    /// use http::{Response, StatusCode};
    ///
    /// let builder = Gate::builder().refusals(|denial, parts| {
    ///     let wants_html = parts.headers.get("accept").is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    ///     let reply = Response::builder().status(StatusCode::SEE_OTHER).header("location", "/login");
    ///     (wants_html && denial.reason() == "no_credential").then(|| reply.body(String::new()).ok()).flatten()
    /// });
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn refusals<B: Into<Bytes>>(
        mut self,
        reply: impl Fn(&Denial, &Parts) -> Option<Response<B>> + Send + Sync + 'static,
    ) -> Self {
        self.rules.refusals = Some(RefusalHook::new(reply));
        self
    }

    /// Builds the gate, and loads the revocations in force. It needs a tokio runtime, where a background task runs for
    /// as long as the gate lives.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(
        #[cfg_attr(not(feature = "relay"), expect(unused_mut, reason = "for relays"))] mut self,
    ) -> Result<Gate, BuildError> {
        let issuer = self.issuer.ok_or(BuildError::NoIssuer)?;
        sound::issuer(&issuer, self.plain_issuer)?;
        let keyring = Arc::new(self.keyring.ok_or(BuildError::NoKeys)?);
        let leeway = self.leeway.unwrap_or(DEFAULT_LEEWAY);
        if leeway > DEFAULT_LEEWAY {
            return Err(BuildError::Leeway);
        }
        let audience = if self.audience.is_empty() { vec![(*issuer).into()] } else { self.audience };
        self.rules.check(&self.trusted, &audience, &keyring)?;
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new(Arc::clone(&issuer), leeway)));
        let time = self.time.map_or_else(system_time, |time| time.0);
        if !self.staleness.is_sound() {
            return Err(BuildError::Staleness);
        }
        let clock = Arc::new(match store.shared() {
            None => EngineClock::start(Arc::clone(&time), store.last_known_time().await?, leeway),
            Some(_) => {
                warn_of_distance(&*store, self.staleness).await?;
                let asked = time.monotonic();
                let store_time = store.last_known_time().await?;
                EngineClock::start_with_store(Arc::clone(&time), (asked, time.monotonic()), store_time, leeway)
            }
        });
        // Loaded before anything is served (requirement R10).
        let (revocations, loaded_to) = store.revocations().await?;
        let revocations = Arc::new(revocations);
        let row = nodes::row(self.node_name, u64::from_be_bytes(*random()?));
        nodes::keys::say(&row, &keyring, clock.now());
        if let Some(shared) = store.shared() {
            // Before the first beat: the others must not count on this node.
            let (others, now) = (shared.nodes().await?, store.last_known_time().await?);
            nodes::keys::check(&row.get(), &others, now).map_err(BuildError::OtherKeys)?;
        }
        let feed = begin_feed(&*store, loaded_to, &time, self.staleness, &row).await?;
        if feed.is_some() {
            revocations.use_until(Timestamp::ZERO);
        }
        let passwords = self.passwords.unwrap_or_else(|| Arc::new(Passwords::default()));
        let identity = self.rules.identity(&self.trusted);
        let has_directory = self.directory.is_some();
        let mut limits = Limits::new(self.rates, Arc::clone(&time)).with_password_places(passwords.places());
        let counters = (store.shared().is_some() && !self.limits_per_node)
            .then(|| Arc::new(StoreCounters::new(Arc::clone(&store), Arc::clone(&keyring))));
        if let Some(counters) = &counters {
            limits = limits.shared_by(Arc::clone(counters) as _, Arc::clone(&time));
        }
        let engine = Engine::new(EngineConfig {
            issuer: Arc::clone(&issuer),
            audience,
            leeway,
            styles: Endpoints::styles(&self.rules.endpoints),
            keyring: Arc::clone(&keyring),
            store,
            directory: self.directory,
            clock: Arc::clone(&clock),
            revocations: Arc::clone(&revocations),
            limits: Arc::new(limits),
            counters,
            keep_login_origin: !self.forget_login_origin,
            staleness: feed.is_some().then_some(self.staleness),
        });
        // Keys that are fetched count by the time that requests see.
        self.trusted.iter().filter_map(|rules| rules.keys.live()).for_each(|keys| keys.set_clock(&clock));
        let verifier = verifier(&engine, &keyring, leeway, self.trusted)?;
        let capacity = self.capacity.unwrap_or(DEFAULT_CACHE);
        let requests_per_caller = self.bounds.requests_per_caller;
        let checker = TokenChecker::new(verifier, clock, revocations, identity.clone(), capacity, requests_per_caller);
        let (engine, checker) = (Arc::new(engine), Arc::new(checker));
        #[cfg(feature = "relay")]
        let relays = {
            let proofs = self.rules.dpop.as_ref().map(|dpop| dpop.counted_in).unwrap_or_default();
            let (engine, checker) = (Arc::clone(&engine), Arc::clone(&checker));
            let shared = super::relay::Shared { store: self.relay_store, engine, checker, time, proofs };
            let begun = self.rules.endpoints.iter_mut().map(|endpoint| endpoint.begin_relay(&shared));
            begun.filter_map(Result::transpose).collect::<Result<_, _>>()?
        };
        let max_stream = self.max_stream.unwrap_or(DEFAULT_MAX_STREAM);
        let dpop = Dpop::new(self.rules.dpop.clone().unwrap_or_default(), leeway, engine.clock().now());
        let running = Arc::new(Running {
            engine: Arc::clone(&engine),
            notices: Notices::default(),
            faults: FaultLog::default(),
            #[cfg(feature = "kuzzle")]
            seldom: crate::counters::SeldomByKind::default(),
            asks_audience: AtomicBool::new(false),
            row,
            overload: Overload::new(&self.bounds),
            unfit_store: ArcSwapOption::empty(),
            passwords,
            has_directory,
            dpop: Arc::new(dpop),
            clients: ArcSwap::default(),
            #[cfg(feature = "relay")]
            relays,
            in_force: Mutex::default(),
        });
        let leases = Arc::new(LeaseContext::new(Arc::clone(&engine), Arc::clone(&checker), max_stream));
        let kept = Kept { id: GateId::next(), running: Arc::clone(&running), engine, checker, leases, leeway };
        let gate = Gate(Arc::new(self.rules.into_inner(kept, &identity, None)?));
        running.clients.store(Arc::new(gate.0.clients.ids()));
        maintain::begin(&running, feed).await?;
        Ok(gate)
    }

    /// See [`Gate::prepare_rules`].
    pub(super) fn prepare_rules(
        #[cfg_attr(not(feature = "relay"), expect(unused_mut, reason = "for relays"))] mut self,
        running: &Gate,
    ) -> Result<PreparedRules, BuildError> {
        let old = &running.0;
        self.rules.check(&self.trusted, old.engine.audience(), &old.engine.keyring())?;
        #[cfg(feature = "relay")]
        for endpoint in &mut self.rules.endpoints {
            endpoint.go_on_with(&old.running.relays)?;
        }
        let kept = Kept {
            id: old.id,
            running: Arc::clone(&old.running),
            engine: Arc::clone(&old.engine),
            checker: Arc::clone(&old.checker),
            leases: Arc::clone(&old.leases),
            leeway: old.leeway,
        };
        let (styles, identity) = (Endpoints::styles(&self.rules.endpoints), self.rules.identity(&self.trusted));
        Ok(PreparedRules {
            gate: Gate(Arc::new(self.rules.into_inner(kept, &identity, Some(old))?)),
            styles,
            identity,
            rates: self.rates,
            keep_login_origin: !self.forget_login_origin,
            max_stream: self.max_stream.unwrap_or(DEFAULT_MAX_STREAM),
        })
    }
}

/// A store that is further away than the staleness allows makes a gate refuse good tokens (requirement C43).
async fn warn_of_distance(store: &dyn Store, staleness: Staleness) -> Result<(), StoreError> {
    let round_trip = round_trip(|| store.last_known_time()).await?;
    let needed = Staleness::needed_for(round_trip);
    if staleness.limit < needed {
        tracing::warn!(
            ?round_trip,
            staleness = ?staleness.limit,
            ?needed,
            "the staleness is too short for a store that is so far away: good tokens will be refused. Raise it"
        );
    }
    Ok(())
}

/// What follows the revocations that other gates write, if the store is shared.
async fn begin_feed(
    store: &dyn Store,
    from: Cursor,
    time: &Arc<dyn TimeSource>,
    staleness: Staleness,
    row: &Arc<LiveRow>,
) -> Result<Option<Box<dyn Feed>>, StoreError> {
    match store.shared() {
        None => Ok(None),
        Some(shared) => {
            let follow = Follow { time: Arc::clone(time), every: staleness.every(), row: Arc::clone(row) };
            shared.follow(from, follow).await.map(Some)
        }
    }
}

/// The verifier for the gate's own keys, then for those of the other issuers.
pub(super) fn verifier(
    engine: &Engine,
    keyring: &Keyring,
    leeway: Duration,
    trusted: Vec<IssuerRules>,
) -> Result<Verifier, RulesError> {
    let mut rules = vec![IssuerRules::own(Arc::clone(engine.issuer()), engine.audience().to_vec(), keyring, leeway)];
    rules.extend(trusted);
    Verifier::new(rules)
}
