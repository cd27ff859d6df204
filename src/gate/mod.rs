//! The gate: everything that belongs together, wired once. [`Gate::layer`] puts it in front of a service; the binary is
//! that layer around a reverse proxy, and nothing else.
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

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ipnet::IpNet;

use crate::client::Clients;
use crate::clock::{ClockState, TimeSource};
use crate::dialect::Dialect;
use crate::engine::Engine;
use crate::engine::confirm::FLUSH_EVERY;
use crate::headers::ProtectedNames;
use crate::lease::LeaseContext;
use crate::limit::Source;
use crate::overload::{Holder, Overload};
use crate::policy::{Audiences, GateId};
use crate::route::{Hosts, RouteTable};
use crate::session::profile::Profile;
use crate::token::keyring::Keyring;
use crate::token::verify::IssuerRules;
use crate::verify_cache::{MissContext, TokenChecker};

mod body;
mod builder;
pub mod cookies;
mod endpoint;
mod forward_buffered;
mod identity;
mod in_flight;
mod layer;
mod metadata;
#[cfg(feature = "axum")]
mod nested;
mod notice;
mod origin;
mod overloaded;
mod preflight;
mod reply_guard;
mod require;
mod respond;
mod sessions;
#[cfg(feature = "kuzzle")]
mod socket;
mod stall_timeout;
#[doc(hidden)]
pub mod tunnel;
mod upgrade;
mod verdict;

pub use crate::engine::IssuedTokens;
pub use crate::headers::Peer;
pub use crate::lease::{Lease, LeaseEnd};
pub use crate::limit::{Rate, Rates};
pub use crate::overload::Bounds;
pub use body::GateBody;
pub use builder::{BuildError, DEFAULT_LEEWAY, DEFAULT_MAX_ENDPOINT_BODY, DEFAULT_MAX_STREAM, GateBuilder};
pub use cookies::{Cookies, SameSite};
pub use endpoint::envelopes;
pub use endpoint::{Endpoint, EndpointError, JWKS_PATH};
pub use forward_buffered::{BufferedForward, ForwardBuffered, NoForward, NotForwarded};
#[cfg(feature = "axum")]
pub use identity::{Claims, NoIdentity};
pub use identity::{ClaimsError, Identity};
pub use layer::{GateLayer, GateService, ResponseFuture};
pub use metadata::{OAUTH_METADATA_PATH, OPENID_METADATA_PATH};
pub use require::{Require, RequireLayer};
pub use sessions::{NewSession, Sessions, Tally, Whose};
pub use verdict::{Operation, Recipient, RefusedToken, Verdict, Who};

pub use crate::reason::Reason;

/// How often engine time follows the wall clock.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often what has expired is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Keys, sessions, revocations, verified tokens, route policies and dialects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(pub(crate) Arc<Inner>);

/// What a gate holds.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: GateId,
    notices: notice::Notices,
    /// Does any `require()` ask for an audience?
    asks_audience: AtomicBool,
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    leases: Arc<LeaseContext>,
    pub(crate) clients: Clients,
    /// What each issuer's tokens must name on routes that ask for no audience of their own.
    pub(crate) audiences: Audiences,
    /// Whatever any route asks of them: what they must name to be good at our own endpoints (requirement J20).
    pub(crate) known_audiences: Audiences,
    /// The names of all issuers.
    pub(crate) issuers: Vec<String>,
    endpoints: endpoint::Endpoints,
    origins: origin::Origins,
    /// Those in whose words routes refuse.
    dialects: Vec<Box<dyn Dialect>>,
    pub(crate) routes: RouteTable,
    /// The permitted hosts; `None`: all.
    hosts: Option<Hosts>,
    pub(crate) protected: ProtectedNames,
    pub(crate) profile: Profile,
    pub(crate) leeway: Duration,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) max_endpoint_body: usize,
    pub(crate) overload: Overload,
    /// What the application answers a refused request.
    refusals: Option<respond::RefusalHook>,
}

impl Inner {
    /// What is to be known of a token that was never seen, shown from there.
    fn shown<'a>(&'a self, source: impl Into<Source<'a>>) -> MissContext<'a> {
        MissContext::new(&self.engine, source)
    }

    /// Whose a request is, for what is bounded by address.
    fn holder(&self, parts: &http::request::Parts) -> Option<Holder> {
        parts.extensions.get::<Peer>()?.client_of(&parts.headers, &self.trusted_proxies)
    }
}

/// Is the gate able to do its work?
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No, and why, for the operator.
    NotReady(String),
}

impl Gate {
    /// Other bounds of what is borne, for what comes from now on.
    pub fn set_bounds(&self, bounds: &Bounds) {
        self.0.overload.set(bounds);
        self.0.checker.callers().set(bounds.requests_per_caller);
    }

    /// Begins a gate.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    /// Puts the gate in front of a service: its endpoints, and its routes' policies for everything else. Only a request
    /// that its route permits reaches the service, with a [`crate::policy::Permitted`] in its extensions, from which
    /// [`Identity::of`] says who the caller is. Its headers are the client's without those that tell who is asking; trailers
    /// come with the body, which is not looked into: take nothing of that kind from them.
    pub fn layer(&self) -> GateLayer {
        GateLayer::new(self.clone())
    }

    /// What some routes ask beyond the rest: `Router::route_layer(gate.require().scope("admin"))`. Works behind
    /// [`Gate::layer`], whose verification it does not repeat, and alone.
    pub fn require(&self) -> RequireLayer {
        RequireLayer::new(self.clone())
    }

    /// Sessions, in the hands of the application.
    pub fn sessions(&self) -> Sessions {
        Sessions(self.clone())
    }

    /// Whether the route of this CORS preflight leaves the answer to its upstream. For code that answers the others.
    pub fn leaves_preflight_to_upstream<B>(&self, request: &http::Request<B>) -> bool {
        preflight::is_for_upstream(&self.0, request.method(), request.uri(), request.headers())
    }

    /// Mints and verifies with other keys from the next request on. What the old keys verified is forgotten, unless the new
    /// ones are the same.
    ///
    /// # Errors
    /// When the keys do not make a verifier; then the old ones stay.
    pub fn set_keys(&self, keyring: Keyring, trusted: Vec<IssuerRules>) -> Result<(), BuildError> {
        self.swap_keys(Arc::new(keyring), trusted).map(drop)
    }

    /// The same. True if tokens are verified otherwise from now on; otherwise nothing is forgotten.
    pub fn swap_keys(&self, keyring: Arc<Keyring>, trusted: Vec<IssuerRules>) -> Result<bool, BuildError> {
        let verifier = builder::verifier(&self.0.engine, &keyring, self.0.leeway, trusted)?;
        // What verifies before what signs: no token goes out that is refused.
        let other = self.0.checker.set_verifier(verifier);
        self.0.engine.set_keyring(keyring);
        Ok(other)
    }

    /// The keys that tokens are minted with.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.0.engine.keyring()
    }

    /// Is the gate able to do its work?
    pub async fn readiness(&self) -> Readiness {
        match self.0.engine.clock().tick() {
            ClockState::Good => {}
            ClockState::Jumped => {
                return Readiness::NotReady(
                    "the wall clock jumped more than an hour ahead of the monotonic clock; it is not followed, and nothing is \
                     minted"
                        .into(),
                );
            }
            ClockState::Behind => {
                return Readiness::NotReady(
                    "the wall clock is behind the last time in the store; nothing is minted until it has caught up"
                        .into(),
                );
            }
        }
        match self.0.engine.store().check().await {
            Ok(()) => Readiness::Ready,
            Err(error) => Readiness::NotReady(error.to_string()),
        }
    }

    /// The peers whose forwarding headers count.
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.0.trusted_proxies
    }

    /// Removes from trailers what only the gate may say, as [`Self::layer`] does from headers: for a server that reads
    /// bodies itself.
    pub fn strip_trailers(&self, trailers: &mut http::HeaderMap) {
        self.0.protected.strip_trailers(trailers);
    }

    /// The pools of what the gate bears at once.
    #[doc(hidden)]
    pub fn overload(&self) -> &Overload {
        &self.0.overload
    }

    /// Ends long connections: those upgraded, which no server waits for by itself. For a process that is about to stop.
    pub fn close_connections(&self) {
        self.0.leases.close();
    }

    /// Writes what waits to be written. To be awaited before the process ends; what is lost otherwise errs to the safe
    /// side, but may cost a user a login.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn flush(&self) -> Result<(), crate::store::StoreError> {
        self.0.engine.confirmations().flush(self.0.engine.store().as_ref()).await
    }

    /// Is there a client of that id?
    pub fn has_client(&self, id: &str) -> bool {
        self.0.clients.get(id).is_some()
    }

    /// How often sessions have begun, gone on and ended in this process.
    pub fn events(&self) -> &crate::engine::Counts {
        self.0.engine.counts()
    }

    /// Number of verified tokens kept, of revocations in force.
    pub fn counts(&self) -> (u64, usize) {
        (self.0.checker.cached(), self.0.engine.revocations().len())
    }
}

/// Keeps a gate going until it is dropped: confirmations are written, time is followed, what expired is removed.
async fn maintain(gate: Weak<Inner>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_tick = Duration::ZERO;
    let mut since_sweep = Duration::ZERO;
    let (mut jumped, mut unwritten) = (Seldom::default(), Seldom::default());
    let sweep_every = SWEEP_EVERY;
    #[cfg(feature = "failpoints")]
    let sweep_every = crate::failpoint::sweep_every(sweep_every);
    loop {
        flush.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        since_tick += FLUSH_EVERY;
        since_sweep += FLUSH_EVERY;
        jumped.pass(FLUSH_EVERY);
        unwritten.pass(FLUSH_EVERY);
        let engine = &gate.engine;
        match engine.confirmations().flush(engine.store().as_ref()).await {
            Ok(()) => unwritten = Seldom::default(),
            Err(error) if unwritten.is_due() => tracing::error!(
                error = ?crate::fault::Chain(&error),
                "confirmations could not be written; they are kept and tried again"
            ),
            Err(_) => {}
        }
        engine.catch_up().await;
        if since_tick >= TICK_EVERY {
            since_tick = Duration::ZERO;
            match engine.clock().tick() {
                ClockState::Jumped if jumped.is_due() => tracing::error!(
                    "the wall clock jumped more than an hour ahead of the monotonic clock: it is not followed, nothing is \
                     swept, nothing is minted. Set it right; if it is, start the gate anew"
                ),
                ClockState::Jumped => {}
                ClockState::Good | ClockState::Behind => jumped = Seldom::default(),
            }
        }
        if since_sweep >= sweep_every {
            since_sweep = Duration::ZERO;
            sweep(engine).await;
        }
    }
}

/// Reports a condition at once, and then once a minute while it lasts.
#[derive(Default)]
struct Seldom {
    /// When the next report is due; `None` if there was none yet.
    wait: Option<Duration>,
}

impl Seldom {
    fn pass(&mut self, time: Duration) {
        self.wait = self.wait.map(|wait| wait.saturating_sub(time));
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.wait.is_none_or(|wait| wait.is_zero());
        if is_due {
            self.wait = Some(Duration::from_secs(60));
        }
        is_due
    }
}

async fn sweep(engine: &Engine) {
    // A clock that jumped ahead would have everything swept.
    if engine.clock().state() != ClockState::Good {
        return;
    }
    let now = engine.clock().now();
    let listed = engine.revocations().sweep(now);
    match engine.store().sweep(now).await {
        Ok(swept) => {
            tracing::debug!(sessions = swept.sessions, revocations = swept.revocations, listed, "swept");
        }
        Err(error) => {
            tracing::error!(error = ?crate::fault::Chain(&error), "the store could not be swept; tried again in a minute");
        }
    }
}

/// The default time source.
fn system_time() -> Arc<dyn TimeSource> {
    Arc::new(crate::clock::SystemTime::new())
}
