//! Building a gate.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response};
use ipnet::IpNet;

use super::endpoint::{Endpoint, EndpointError, Endpoints};
use super::notice::Notices;
use super::origin::{Origins, origin_of};
use super::respond::RefusalHook;
use super::{Gate, Inner, maintain, system_time};
use crate::client::{Client, Clients, NoRandomness};
use crate::clock::{EngineClock, TimeSource};
use crate::denial::Denial;
use crate::dialect::{self, Dialect};
use crate::directory::Directory;
use crate::engine::{Engine, EngineConfig};
use crate::headers::{HeaderPattern, ProtectedNames};
use crate::lease::LeaseContext;
use crate::limit::{Limits, Rates};
use crate::overload::{Bounds, Overload};
use crate::password::Passwords;
use crate::policy::{Audiences, GateId};
use crate::route::{HostError, Hosts, Route, RouteError, RoutePolicy, RouteTable, authority, ungoverned};
use crate::session::profile::{Profile, ProfileError};
use crate::store::{MemoryStore, Store, StoreError};
use crate::token::keyring::Keyring;
use crate::token::verify::{IssuerRules, OWN, RulesError, Verifier};
use crate::verify_cache::{DEFAULT_CACHE, IdentityField, IdentityHeaders, TokenChecker};

mod sound;

/// The largest body of a request to an endpoint of ours, in bytes (requirement A4).
#[doc(hidden)]
pub const DEFAULT_MAX_ENDPOINT_BODY: usize = 16 * 1024;
/// The longest that a tunnel or a long reply lasts, however often its token is exchanged meanwhile.
#[doc(hidden)]
pub const DEFAULT_MAX_STREAM: Duration = Duration::from_secs(86_400);
/// The tolerance for clocks that differ.
#[doc(hidden)]
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

/// Why a gate was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// [`GateBuilder::issuer`] was not called.
    #[error("an issuer is needed: call `.issuer(\"https://…\")`, the `iss` of the tokens that this gate mints")]
    NoIssuer,
    /// An issuer that clients could not use.
    #[error("the issuer {issuer:?}: {why}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A public URL with a path, or none.
    #[error("the public URL {0:?} is not `scheme://host[:port]`, of http or https")]
    PublicUrl(String),
    /// A text that is not an origin as browsers write it.
    #[error("{0:?} is no origin as a browser writes it: `scheme://host[:port]` in lower case, without a default port")]
    Origin(String),
    /// A client that is invalid or not registered.
    #[error("the client {client:?}: {why}")]
    Client {
        /// Its id.
        client: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A store to which other processes write.
    #[error(
        "the store says that other processes write to it as well, and this version reads their revocations at its start \
         alone: run one gate on it (`Store::is_shared`)"
    )]
    SharedStore,
    /// [`GateBuilder::keys`] was not called.
    #[error("keys are needed: call `.keys(Keyring::…)`")]
    NoKeys,
    /// The rules of a profile contradict each other.
    #[error("the profile does not hold together: {0}")]
    Profile(#[from] ProfileError),
    /// The leeway is larger than requirement J7 allows.
    #[error("leeway must be at most 30s")]
    Leeway,
    /// Routes conflict, or a pattern is malformed.
    #[error("routes: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Routes(Vec<RouteError>),
    /// One of [`GateBuilder::hosts`] is not a host pattern.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Calls in envelopes would bypass a route.
    #[error(
        "route {strict:?} asks for more than {envelope:?}, by which calls in envelopes go, and a call whose path is not \
         known would go around it: say on one of them for which calls it is (`Route::kuzzle`)"
    )]
    Ungoverned {
        /// The id of the route that asks for more.
        strict: String,
        /// That of the envelopes' route.
        envelope: String,
    },
    /// A route names an unknown issuer.
    #[error("there is no issuer {0:?}: a route takes the tokens of \"self\", or of a trusted one by its name")]
    UnknownIssuer(String),
    /// A route names an unknown dialect.
    #[error("there is no dialect {0:?}")]
    Dialect(String),
    /// Endpoints conflict, or a template is malformed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The keys of an issuer cannot be used.
    #[error(transparent)]
    Verifier(#[from] RulesError),
    /// The store failed while revocations were loaded: nothing is served without them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Builds a [`Gate`]. What is not set has the default of `gateway.toml`.
#[derive(Debug, Default)]
pub struct GateBuilder {
    issuer: Option<Arc<str>>,
    plain_issuer: bool,
    audience: Vec<Box<str>>,
    keyring: Option<Keyring>,
    trusted: Vec<IssuerRules>,
    store: Option<Arc<dyn Store>>,
    directory: Option<Arc<dyn Directory>>,
    passwords: Option<Arc<Passwords>>,
    clients: Vec<Client>,
    endpoints: Vec<Endpoint>,
    profile: Profile,
    routes: Vec<Route>,
    identity: Option<IdentityHeaders>,
    rates: Rates,
    leeway: Option<Duration>,
    trusted_proxies: Vec<IpNet>,
    time: Option<TimeArc>,
    capacity: Option<u64>,
    max_endpoint_body: Option<usize>,
    max_stream: Option<Duration>,
    bounds: Bounds,
    forget_login_origin: bool,
    public_url: Option<String>,
    hosts: Option<Vec<String>>,
    strip: Vec<HeaderPattern>,
    keep: Vec<HeaderPattern>,
    allowed_origins: Vec<Box<str>>,
    refusals: Option<RefusalHook>,
}

struct TimeArc(Arc<dyn TimeSource>);

impl std::fmt::Debug for TimeArc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TimeSource")
    }
}

impl GateBuilder {
    /// Sets `iss` of minted tokens: an https URL without query or fragment; http only on loopback.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<Arc<str>>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Accepts a plain http issuer that is not on loopback. An attacker on the network path to it can then publish keys in its
    /// name.
    #[must_use]
    pub const fn dangerous_plain_issuer(mut self) -> Self {
        self.plain_issuer = true;
        self
    }

    /// Sets `aud` of minted tokens. A token must name one of these on every route that asks for no other audience. Default:
    /// the issuer.
    #[must_use]
    pub fn audience(mut self, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.audience = audience.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the keys of minted tokens.
    #[must_use]
    pub fn keys(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Trusts another issuer: its access tokens are accepted on routes that name it (or everywhere, if its rules say so), with
    /// the scopes that its rules list.
    #[must_use]
    pub fn trusted_issuer(mut self, rules: IssuerRules) -> Self {
        self.trusted.push(rules);
        self
    }

    /// Sets the store of sessions. Default: memory.
    #[must_use]
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// The same for a store that other code **of this process** holds too, for example to close it. Only one gate may use it: a
    /// gate loads revocations at its start, and does not see those that another gate writes later.
    #[must_use]
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the directory of users. Without one, only the application begins sessions: [`Gate::sessions`].
    #[must_use]
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Sets the checker for secrets of confidential clients. If a directory shares it, its bounds hold for both together.
    #[must_use]
    pub fn passwords(mut self, passwords: Arc<Passwords>) -> Self {
        self.passwords = Some(passwords);
        self
    }

    /// Registers a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(client);
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Sets the rules of sessions at endpoints without rules of their own.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Adds a route. Without routes, every path needs a token of this gate; with routes, a request that matches none gets 404.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets the headers that identify the caller to the service. Copies from the client are removed, in any spelling.
    #[must_use]
    pub fn identity_headers(mut self, headers: impl IntoIterator<Item = (HeaderName, IdentityField)>) -> Self {
        self.identity = Some(IdentityHeaders { headers: headers.into_iter().collect() });
        self
    }

    /// Sets the rate limits.
    #[must_use]
    pub const fn rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// Sets the tolerance for clock differences: at most 30 s.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = Some(leeway);
        self
    }

    /// Sets the proxies whose `X-Forwarded-For` counts.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<IpNet>) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Sets the source of time.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeSource>) -> Self {
        self.time = Some(TimeArc(time));
        self
    }

    /// Sets the memory of the shared cache of verified tokens, in bytes. Default: 64 MiB. Zero turns it off.
    #[must_use]
    pub const fn verified_cache(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the largest body of a request to an endpoint, in bytes.
    #[must_use]
    pub const fn max_endpoint_body(mut self, bytes: usize) -> Self {
        self.max_endpoint_body = Some(bytes);
        self
    }

    /// The longest that a tunnel or a long reply lasts, however often its token is exchanged meanwhile.
    #[must_use]
    pub const fn max_stream(mut self, longest: Duration) -> Self {
        self.max_stream = Some(longest);
        self
    }

    /// Sets what the gate serves at once: bodies of requests to endpoints, streams and WebSockets that the gate answers itself,
    /// buffered bytes. Requests beyond these bounds get 503 with `Retry-After`.
    #[must_use]
    pub const fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Stores neither the address nor the user agent of a login. The report of a reuse then cannot compare them.
    #[must_use]
    pub const fn forget_login_origin(mut self) -> Self {
        self.forget_login_origin = true;
        self
    }

    /// Sets the URL under which clients reach the gate: `scheme://host[:port]`. Metadata (RFC 8414) names the endpoints under
    /// it, and requests from it are same-origin. Default: the issuer.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Sets the hosts that the gate serves besides those of [`GateBuilder::public_url`] and of routes: `example.com`,
    /// `*.example.com`, or `*` for any. Requests for others get 421. Default: every host, because whatever is in front of the
    /// layer has chosen.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Removes further headers of clients, besides the identity headers of known products.
    #[must_use]
    pub fn strip_headers(mut self, patterns: impl IntoIterator<Item = HeaderPattern>) -> Self {
        self.strip = patterns.into_iter().collect();
        self
    }

    /// Keeps identity headers of a known product, because that product is in front of the gate and sets them. The headers of
    /// [`GateBuilder::identity_headers`] are removed in any case.
    #[must_use]
    pub fn keep_headers(mut self, patterns: impl IntoIterator<Item = HeaderPattern>) -> Self {
        self.keep = patterns.into_iter().collect();
        self
    }

    /// Sets further origins, as browsers write them, from which a request with its token in a cookie may change something.
    #[must_use]
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Answers refused requests in the application's own words: those that [`Gate::layer`] and [`Gate::require`] refuse, and
    /// those that [`Identity`](super::Identity) and [`Claims`](super::Claims) refuse as extractors. `None` leaves the reply as
    /// it is. [`Denial::reason`](crate::denial::Denial::reason) is the word for a log, not for the client.
    ///
    /// The gate adds what a client relies on, where the hook's reply lacks it: `WWW-Authenticate`, `Allow`, `Retry-After`,
    /// `Cache-Control`. The hook is not called for gRPC, which has statuses of its own, for a route whose dialect has words of
    /// its own, nor at the gate's endpoints, whose protocols fix the replies.
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
        self.refusals = Some(RefusalHook::new(reply));
        self
    }

    /// Puts the gate together and loads the revocations in force. Needs a tokio runtime, and keeps a task in it for as
    /// long as the gate lives.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(self) -> Result<Gate, BuildError> {
        let issuer = self.issuer.ok_or(BuildError::NoIssuer)?;
        sound::issuer(&issuer, self.plain_issuer)?;
        self.public_url.as_deref().map_or(Ok(()), sound::public_url)?;
        sound::origins(&self.allowed_origins)?;
        sound::clients(&self.clients, &self.endpoints)?;
        let keyring = Arc::new(self.keyring.ok_or(BuildError::NoKeys)?);
        let leeway = self.leeway.unwrap_or(DEFAULT_LEEWAY);
        if leeway > DEFAULT_LEEWAY {
            return Err(BuildError::Leeway);
        }
        if let Some(problem) = self.profile.problems().into_iter().next() {
            return Err(problem.into());
        }
        let audience = if self.audience.is_empty() { vec![(*issuer).into()] } else { self.audience };
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new(Arc::clone(&issuer), leeway)));
        if store.is_shared() {
            return Err(BuildError::SharedStore);
        }
        let time = self.time.map_or_else(system_time, |time| time.0);
        let clock = Arc::new(EngineClock::start(Arc::clone(&time), store.last_known_time().await?, leeway));
        // Before anything is served (requirement R10).
        let revocations = Arc::new(store.revocations().await?.0);
        let mut audiences = vec![(Arc::clone(&issuer), audience.clone())];
        audiences.extend(self.trusted.iter().map(|rules| (Arc::clone(&rules.issuer), rules.audience.to_vec())));
        let issuers = names(&self.trusted, &self.routes)?;
        let known_audiences = known_audiences(&audiences, &self.trusted, &self.routes);
        let passwords = self.passwords.unwrap_or_else(|| Arc::new(Passwords::default()));
        let identity = self.identity.unwrap_or_else(|| default_identity_headers(!self.trusted.is_empty()));
        let protected = ProtectedNames::new(identity.headers.iter().map(|(name, _)| name.as_str()));
        let has_directory = self.directory.is_some();
        let protected = protected.with(self.strip, self.keep);
        let engine = Engine::new(EngineConfig {
            issuer: Arc::clone(&issuer),
            audience,
            leeway,
            styles: Endpoints::styles(&self.endpoints),
            keyring: Arc::clone(&keyring),
            store,
            directory: self.directory,
            clock: Arc::clone(&clock),
            revocations: Arc::clone(&revocations),
            limits: Limits::new(self.rates, time).with_password_places(passwords.places()),
            keep_login_origin: !self.forget_login_origin,
        });
        let verifier = verifier(&engine, &keyring, leeway, self.trusted)?;
        let capacity = self.capacity.unwrap_or(DEFAULT_CACHE);
        let checker =
            TokenChecker::new(verifier, clock, revocations, identity, capacity, self.bounds.requests_per_caller);
        let dialects = dialects(&self.routes)?;
        if let Some((strict, envelope)) = ungoverned(&self.routes, &Endpoints::envelopes(&self.endpoints)) {
            let id = |place: usize| self.routes.get(place).map(|route| route.id.clone()).unwrap_or_default();
            return Err(BuildError::Ungoverned { strict: id(strict), envelope: id(envelope) });
        }
        let routes = if self.routes.is_empty() { vec![Route::catch_all(RoutePolicy::default())] } else { self.routes };
        let public_url = self.public_url.or_else(|| origin_of(&issuer)).unwrap_or_default();
        let hosts = self.hosts.map(|hosts| served_hosts(&hosts, &public_url, &routes)).transpose()?;
        let (engine, checker) = (Arc::new(engine), Arc::new(checker));
        let max_stream = self.max_stream.unwrap_or(DEFAULT_MAX_STREAM);
        let leases = Arc::new(LeaseContext::new(Arc::clone(&engine), Arc::clone(&checker), max_stream));
        let inner = Arc::new(Inner {
            id: GateId::next(),
            notices: Notices::default(),
            asks_audience: AtomicBool::new(false),
            engine,
            checker,
            leases,
            endpoints: Endpoints::new(
                self.endpoints,
                &self.profile,
                &self.clients,
                &issuer,
                &public_url,
                has_directory,
            )?,
            origins: Origins::new(&public_url, self.allowed_origins),
            clients: Clients::new(self.clients, passwords)?,
            audiences: Audiences(audiences),
            known_audiences,
            issuers,
            routes: RouteTable::build(routes).map_err(BuildError::Routes)?,
            hosts,
            dialects,
            protected,
            profile: self.profile,
            leeway,
            trusted_proxies: self.trusted_proxies,
            max_endpoint_body: self.max_endpoint_body.unwrap_or(DEFAULT_MAX_ENDPOINT_BODY),
            overload: Overload::new(&self.bounds),
            refusals: self.refusals,
        });
        tokio::spawn(maintain(Arc::downgrade(&inner)));
        Ok(Gate(inner))
    }
}

/// The hosts that were given, that of the public URL, and those that routes name.
fn served_hosts(given: &[String], public_url: &str, routes: &[Route]) -> Result<Hosts, HostError> {
    let mut hosts = Hosts::default();
    let uri = public_url.parse::<http::Uri>().ok();
    if let Some(public) = uri.as_ref().and_then(http::Uri::authority) {
        hosts.add(authority::host_of(public.as_str()))?;
    }
    let named = routes.iter().flat_map(|route| &route.hosts);
    given.iter().chain(named).try_for_each(|host| hosts.add(host))?;
    Ok(hosts)
}

/// Each dialect that a route names, once.
fn dialects(routes: &[Route]) -> Result<Vec<Box<dyn Dialect>>, BuildError> {
    let mut found: Vec<Box<dyn Dialect>> = Vec::new();
    for name in routes.iter().filter_map(|route| route.policy.dialect.as_deref()) {
        if !found.iter().any(|dialect| dialect.name() == name) {
            found.push(
                dialect::by_name(name, &dialect::Options::default())
                    .ok_or_else(|| BuildError::Dialect(name.to_owned()))?,
            );
        }
    }
    Ok(found)
}

/// The names of all issuers, ours first.
fn names(trusted: &[IssuerRules], routes: &[Route]) -> Result<Vec<String>, BuildError> {
    let known: Vec<String> =
        [OWN.to_owned()].into_iter().chain(trusted.iter().map(|rules| rules.name.to_string())).collect();
    match routes.iter().flat_map(|route| &route.policy.issuers).find(|name| !known.contains(name)) {
        Some(name) => Err(BuildError::UnknownIssuer(name.clone())),
        None => Ok(known),
    }
}

/// Of each issuer, its own audience and those of every route that takes its tokens.
fn known_audiences(own: &[(Arc<str>, Vec<Box<str>>)], trusted: &[IssuerRules], routes: &[Route]) -> Audiences {
    let known = own.iter().map(|(issuer, audience)| {
        let rules = trusted.iter().find(|rules| rules.issuer == *issuer);
        let (name, everywhere) = rules.map_or((OWN, true), |rules| (&*rules.name, rules.everywhere));
        let asked = routes.iter().filter(|route| route.policy.takes(name, everywhere));
        let asked = asked.flat_map(|route| &route.policy.audiences).map(|audience| audience.as_str().into());
        (Arc::clone(issuer), audience.iter().cloned().chain(asked).collect())
    });
    Audiences(known.collect())
}

/// Our own keys first, then those of the issuers trusted besides.
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

/// With others besides us, a subject says little without its issuer.
fn default_identity_headers(several_issuers: bool) -> IdentityHeaders {
    let issuer = several_issuers.then_some((HeaderName::from_static("x-auth-issuer"), IdentityField::Issuer));
    IdentityHeaders {
        headers: [
            (HeaderName::from_static("x-auth-subject"), IdentityField::Subject),
            (HeaderName::from_static("x-auth-account"), IdentityField::Account),
            (HeaderName::from_static("x-auth-client"), IdentityField::Client),
            (HeaderName::from_static("x-auth-scope"), IdentityField::Scope),
            (HeaderName::from_static("x-auth-session"), IdentityField::Session),
        ]
        .into_iter()
        .chain(issuer)
        .collect(),
    }
}
