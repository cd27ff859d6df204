use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response};
use ipnet::IpNet;

use super::browser::Browser;
use super::endpoint::Endpoint;
use super::limits::RateHeaders;
use super::respond::RefusalHook;
use rotogate_core::client::Client;
use rotogate_core::clock::TimeSource;
use rotogate_core::denial::Denial;
use rotogate_core::directory::Directory;
use rotogate_core::dpop::DpopSettings;
use rotogate_core::limit::Rates;
use rotogate_core::overload::Bounds;
use rotogate_core::password::Passwords;
use rotogate_core::route::{Resource, Route};
use rotogate_core::session::profile::Profile;
use rotogate_core::store::{Staleness, Store};
use rotogate_core::token::assertion::ASSERTION_TTL;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{AssertionHeader, IdentityField};

mod build;
pub(super) mod error;
mod rules;
mod sound;

pub(super) use build::{own_rules, verifier};
pub use error::BuildError;
use rules::Rules;
pub(super) use sound::{assertion, sources};

/// The largest request body at an endpoint, in bytes, unless the endpoint's dialect sets another limit. The limit is
/// large enough for a token of another issuer.
// Requirement A4.
pub const DEFAULT_MAX_ENDPOINT_BODY: usize = rotogate_core::bounds::MAX_ENDPOINT_BODY;
/// The longest lifetime of a long-lived connection, even if its token is refreshed.
pub const DEFAULT_MAX_STREAM: Duration = Duration::from_secs(86_400);

/// Builds a [`Gate`](super::Gate). The defaults are those of `gateway.toml`. A gate with a
/// [`trusted_issuer`](Self::trusted_issuer), but without [`issuer`](Self::issuer) and [`keys`](Self::keys), accepts
/// tokens and does not issue them.
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
#[derive(Clone, Debug, Default)]
pub struct GateBuilder {
    issuer: Option<Arc<str>>,
    plain_issuer: bool,
    audience: Vec<Box<str>>,
    keyring: Option<Arc<Keyring>>,
    trusted: Vec<IssuerRules>,
    store: Option<Arc<dyn Store>>,
    staleness: Staleness,
    row_store: Option<Arc<dyn rotogate_core::store::rows::RowStore>>,
    api_keys: Option<rotogate_core::api_key::ApiKeySettings>,
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
    rules: Rules,
}

#[derive(Clone)]
struct TimeArc(Arc<dyn TimeSource>);

rotogate_core::debug_with!(TimeArc);

impl GateBuilder {
    /// Sets the `iss` of issued tokens: an https URL without query or fragment. Plain http is accepted on loopback.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<Arc<str>>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Accepts a plain http issuer that is not on loopback. An attacker on the network can then impersonate the issuer
    /// and serve other keys.
    #[must_use]
    pub const fn dangerous_plain_issuer(mut self) -> Self {
        self.plain_issuer = true;
        self
    }

    /// Sets the `aud` of issued tokens. On every route without its own `audiences`, a token must name one of these
    /// audiences. The default is the issuer.
    #[must_use]
    pub fn audience(mut self, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.audience = audience.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the keys that sign and verify the gate's own tokens.
    #[must_use]
    pub fn keys(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(Arc::new(keyring));
        self
    }

    /// Accepts access tokens of another issuer on routes that name the issuer. If the rules set `everywhere`, all
    /// routes accept these tokens. The tokens have only the scopes that the rules list.
    #[must_use]
    pub fn trusted_issuer(mut self, rules: IssuerRules) -> Self {
        self.trusted.push(rules);
        self
    }

    /// Sets the store of sessions. The default is a store in memory. Two gates must not use one store, unless it is
    /// made for several gates (Redis, PostgreSQL).
    #[must_use]
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Sets a store that other code **in this process** also uses, for example to close it. Only one gate may use the
    /// store, because a gate reads revocations only when it is built.
    #[must_use]
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the source of users. Without a directory, only the application can start sessions
    /// ([`Gate::sessions`](super::Gate::sessions)).
    #[must_use]
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Sets the checker for the secrets of confidential clients. A directory with this checker shares its limit on
    /// concurrent hashes.
    #[cfg(feature = "passwords")]
    #[must_use]
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

    /// Replaces the public keys of a registered client.
    #[doc(hidden)]
    #[must_use]
    pub fn client_keys(mut self, client: &str, keys: &rotogate_core::client::ClientKeys) -> Self {
        for known in self.rules.clients.iter_mut().filter(|known| *known.id == *client) {
            known.keys = Some(keys.clone());
        }
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.rules.endpoints.push(endpoint);
        self
    }

    /// Sets the default profile of sessions. Clients and endpoints can override its settings.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.rules.profile = profile;
        self
    }

    /// Adds a route. Without routes, every path requires a token of this gate. Otherwise, a path without a route gets
    /// 404.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.rules.routes.push(route);
        self
    }

    /// Requires a token on paths without a route, even if other routes exist.
    #[cfg(feature = "remote-keys")]
    pub(crate) const fn every_path(mut self) -> Self {
        self.rules.every_path = true;
        self
    }

    /// Describes a protected resource (RFC 9728). The gate serves the resource's metadata document. Challenges name
    /// this document on routes with the resource's path. Tokens on these routes must name the resource, or one of the
    /// route's audiences.
    // Requirements N41–N44.
    #[must_use]
    pub fn resource(mut self, resource: Resource) -> Self {
        self.rules.resources.push(resource);
        self
    }

    /// Sets up to 64 headers that describe the caller to the inner service. The gate removes these headers from the
    /// client's request, in any spelling.
    #[must_use]
    pub fn identity_headers(mut self, headers: impl IntoIterator<Item = (HeaderName, IdentityField)>) -> Self {
        self.rules.identity = Some(headers.into_iter().collect());
        self
    }

    /// Sends a signed JWT that identifies the caller to the service behind a route. The JWT has the `typ`
    /// `identity+jwt`. The JWT is valid for `ttl` (10 s to 10 min), and its audience is [`Route::assertion_audience`].
    /// The gate removes this header from every client's request, in any spelling.
    // Requirements N57–N60.
    #[must_use]
    pub fn assertion(mut self, header: HeaderName, ttl: Duration) -> Self {
        let ttl = ttl.clamp(*ASSERTION_TTL.start(), *ASSERTION_TTL.end());
        self.rules.assertion = Some(AssertionHeader { name: header, ttl });
        self
    }

    /// Sets the rate limits for logins, refreshes and invalid tokens.
    #[must_use]
    pub const fn rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// Sets whether replies on routes with limits state the remaining requests (draft-ietf-httpapi-ratelimit-headers).
    /// By default, only a refusal by a limit states them.
    #[must_use]
    pub const fn rate_headers(mut self, always: bool) -> Self {
        self.rules.rate_headers = if always { RateHeaders::Always } else { RateHeaders::Off };
        self
    }

    /// Sets the name of this gate in messages, to distinguish gates that share a store. The default is a random name.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<Box<str>>) -> Self {
        self.node_name = Some(name.into());
        self
    }

    /// Counts logins and failed logins at this gate only, even if other gates write to the store. N gates then admit N
    /// times as many password guesses. By default, gates that share a store count together.
    #[must_use]
    pub const fn limits_per_node(mut self) -> Self {
        self.limits_per_node = true;
        self
    }

    /// Sets the tolerance for clock differences, at most 30 s.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = Some(leeway);
        self
    }

    /// Sets the peers whose `X-Forwarded-For` is trusted.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<IpNet>) -> Self {
        self.rules.trusted_proxies = proxies;
        self
    }

    /// Sets how long the gate continues when it cannot read a store that other gates also write to. `limit`, from 0.5 s
    /// to 60 s, bounds how late this gate learns of a revocation. After `limit`, the gate stops issuing tokens. After
    /// `served`, it also stops accepting tokens. Both values default to 2 s. A store for a single gate ignores these
    /// values.
    #[must_use]
    pub const fn staleness(mut self, limit: Duration, served: Duration) -> Self {
        self.staleness = Staleness { limit, served };
        self
    }

    /// Sets the store for API keys, for records of relays, for the provider tokens of browser sessions, and for used
    /// assertions. This may be the gate's own store.
    #[must_use]
    pub fn row_store(mut self, store: Arc<dyn rotogate_core::store::rows::RowStore>) -> Self {
        self.row_store = Some(store);
        self
    }

    /// Accepts API keys on routes that allow them ([`RoutePolicy::api_key`](crate::route::RoutePolicy::api_key)). The
    /// records of the API keys are in the [store of rows](Self::row_store).
    #[must_use]
    pub fn api_keys(mut self, settings: rotogate_core::api_key::ApiKeySettings) -> Self {
        self.api_keys = Some(settings);
        self
    }

    /// Sets the source of time.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeSource>) -> Self {
        self.time = Some(TimeArc(time));
        self
    }

    /// Sets the size in bytes of the cache of verified tokens. The default is 64 MiB. Zero disables the cache.
    #[must_use]
    pub const fn verified_cache(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the largest request body at an endpoint, in bytes.
    #[must_use]
    pub const fn max_endpoint_body(mut self, bytes: usize) -> Self {
        self.rules.max_endpoint_body = Some(bytes);
        self
    }

    /// Sets the longest lifetime of a long-lived connection, even if its token is refreshed.
    #[must_use]
    pub const fn max_stream(mut self, longest: Duration) -> Self {
        self.max_stream = Some(longest);
        self
    }

    /// Sets the bounds on concurrency and buffers. A request that exceeds a bound gets 503 with `Retry-After`.
    #[must_use]
    pub const fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Makes the gate forget the address and user agent of a login. The audit event for a reused refresh token then
    /// cannot compare the sender with the login.
    #[must_use]
    pub const fn forget_login_origin(mut self) -> Self {
        self.forget_login_origin = true;
        self
    }

    /// Sets the URL at which clients reach the gate: `scheme://host[:port]`. The metadata (RFC 8414) uses this URL, and
    /// requests from its origin are same-origin. The default is the issuer's origin.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.rules.public_url = Some(url.into());
        self
    }

    /// Sets the authorization endpoint in the issuer's metadata (RFC 8414 §2). The gate does not have an authorization
    /// endpoint, but some clients require one in the metadata.
    #[must_use]
    pub fn authorization_endpoint(mut self, url: impl Into<String>) -> Self {
        self.rules.authorization_endpoint = Some(url.into());
        self
    }

    /// Sets further hosts to serve: `example.com`, `*.example.com`, or `*` for any host. The host of
    /// [`GateBuilder::public_url`] and the hosts of routes are always served. Requests for other hosts get 421. By
    /// default, every host is served.
    // Requirement T23.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rules.hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Sets client headers to remove, in addition to the identity headers of known products. A pattern is a name such
    /// as `x-vouch-user`. A trailing `*` matches all names with that prefix.
    // Requirement T24.
    #[must_use]
    pub fn strip_headers(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rules.strip = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps these identity headers, which a product in front of the gate sets. The patterns have the same form as in
    /// [`Self::strip_headers`]. The headers of [`GateBuilder::identity_headers`] are always removed.
    #[must_use]
    pub fn keep_headers(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rules.keep = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets further origins whose pages may make changes with a token in a cookie. Spell an origin as a browser does.
    // Requirement T18.
    #[must_use]
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.rules.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Enables browser logins and browser sessions: see [`Browser`].
    #[must_use]
    pub fn browser(mut self, browser: Browser) -> Self {
        self.rules.browser = Some(browser);
        self
    }

    /// Accepts tokens that are bound to a key if the request has a proof that meets these rules (RFC 9449). A client or
    /// route that requires proofs enables the default rules. The rules of a running gate are fixed.
    #[must_use]
    pub fn dpop(mut self, settings: DpopSettings) -> Self {
        self.rules.dpop = Some(settings);
        self
    }

    /// Sets a hook that replaces the replies to requests that [`Gate::layer`](super::Gate::layer),
    /// [`Gate::require`](super::Gate::require) or the extractors [`Identity`](super::Identity) and
    /// [`Claims`](super::Claims) refuse. If the hook returns `None`, the gate's own reply is sent. Do not show
    /// [`Denial::reason`](rotogate_core::denial::Denial::reason) to the client.
    ///
    /// The gate adds `WWW-Authenticate`, `Allow`, `Retry-After` and `Cache-Control` if the hook's reply lacks them. The
    /// hook is not called for gRPC, at the gate's endpoints, or on a route whose dialect has its own refusal format.
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
}
