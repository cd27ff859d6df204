//! Simulated callers, for testing handlers without tokens or a gate (feature `test`, which no other feature enables).
//!
//! ```
//! use axum::Router;
//! use axum::routing::get;
//! use http::{Request, StatusCode};
//! use rotogate::Identity;
//! use rotogate::test::TestIdentity;
//! use tower::ServiceExt;
//!
//! async fn me(identity: Identity) -> String {
//!     identity.subject().to_owned()
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let ada = TestIdentity::new("ada").scope("read").claim("tenant", "acme");
//! let app = Router::new().route("/me", get(me)).layer(ada.layer());
//! let response = app.oneshot(Request::get("/me").body(axum::body::Body::empty())?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! The layer replaces [`Gate::layer`](crate::Gate::layer) or [`Gate::require`](crate::Gate::require). A `require()`
//! behind this layer still requires a token, because a gate does not accept test callers. To test a router with its
//! gate, start a session and send its token:
//!
//! ```
//! # use axum::{Router, routing::get};
//! # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
//! # use tower::ServiceExt;
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
//! # let gate = gate.client(Client::public("web")).build().await?;
//! let app = Router::new().route("/me", get(async || "hello")).layer(gate.layer());
//! let tokens = gate.sessions().start(NewSession::new("ada", "web").claim("roles", "admin")?).await?;
//! let request = http::Request::get("/me")
//!     // A gate refuses a request without `Host` with 400 (RFC 9112 §3.2), and `oneshot` does not set it.
//!     .header("host", "api.example.com")
//!     .header("authorization", format!("Bearer {}", tokens.access_token.expose()))
//!     .body(axum::body::Body::empty())?;
//! assert_eq!(app.oneshot(request).await?.status(), 200);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
#![expect(clippy::expect_used, reason = "an impossible caller is a mistake in the test")]

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use serde::Serialize;
use tower::{Layer, Service};

use crate::gate::Identity;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::{EngineClock, SystemTime, Timestamp};
use rotogate_core::credential::Credential;
use rotogate_core::limit::{Limits, Rates};
use rotogate_core::policy::{By, GateId, Permitted, authorise, permit_own};
use rotogate_core::revocation::RevocationList;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::session::confirm::Confirmations;
use rotogate_core::session::{Generation, Scope, SessionId};
use rotogate_core::token::claims::{MintedClaims, TokenStyle};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::mint::mint;
use rotogate_core::token::verify::{IssuerRules, Verifier};
use rotogate_core::verify_cache::{IdentityHeaders, MissContext, TokenChecker};

const ISSUER: &str = "https://test.invalid";
const LIFETIME: Duration = Duration::from_secs(3600);

/// A caller for tests.
///
/// ```
/// use rotogate::test::TestIdentity;
///
/// /// The caller of most tests of this application.
/// fn editor() -> TestIdentity {
///     TestIdentity::new("ada").account("acme").role("editor").scope("articles.write")
/// }
/// assert_eq!(editor().build().account(), Some("acme"));
/// ```
#[derive(Clone, Debug)]
pub struct TestIdentity {
    subject: String,
    account: Option<String>,
    client: String,
    scope: String,
    claims: OwnClaims,
    session: bool,
}

fn by() -> By {
    By { gate: GateId::next(), layer: true, defers: false }
}

impl TestIdentity {
    /// A caller with this subject, the client `test` and a session, but without scopes.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            account: None,
            client: "test".to_owned(),
            scope: String::new(),
            claims: OwnClaims::new(),
            session: true,
        }
    }

    /// Adds these scopes.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = format!("{} {scope}", self.scope);
        self
    }

    /// Adds a claim.
    ///
    /// # Panics
    /// Panics if the gate sets this claim itself: see [`OwnClaims::insert`].
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.insert(name, value).expect("a test caller may have this claim");
        self
    }

    /// Adds a role, in the claim `roles`.
    ///
    /// # Panics
    /// As [`Self::claim`].
    #[must_use]
    pub fn role(self, role: &str) -> Self {
        let mut roles =
            self.claims.get(OwnClaims::ROLES).and_then(|roles| roles.as_array()).cloned().unwrap_or_default();
        roles.push(role.into());
        self.claim(OwnClaims::ROLES, roles)
    }

    /// Sets the account.
    #[must_use]
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Sets the client.
    #[must_use]
    pub fn client(mut self, client: impl Into<String>) -> Self {
        self.client = client.into();
        self
    }

    /// Makes a caller without a session, like a client with a token of its own.
    #[must_use]
    pub fn without_session(mut self) -> Self {
        self.session = false;
        self
    }

    /// Builds the caller.
    ///
    /// # Panics
    /// Panics if the subject, scope, client or account has a value that a token cannot have.
    pub fn build(&self) -> Identity {
        Identity::new(Arc::clone(self.permitted().caller().expect("the caller is permitted")))
    }

    /// Returns a layer that makes this identity the caller of every request.
    ///
    /// # Panics
    /// As [`Self::build`].
    pub fn layer(&self) -> TestLayer {
        TestLayer { inner: (), permitted: self.permitted() }
    }

    /// Signs a real token and verifies it, so a test caller can only have properties of real callers.
    fn permitted(&self) -> Permitted {
        let keyring = Keyring::ephemeral().expect("the system has randomness");
        let time = Arc::new(SystemTime::new());
        let clock = Arc::new(EngineClock::start(time.clone(), Timestamp::ZERO, Duration::ZERO));
        let now = clock.now();
        let scope = Scope::parse(&self.scope).expect("a scope must have only visible ASCII characters (RFC 6749 §3.3)");
        let audience = [ISSUER.into()];
        let claims = MintedClaims {
            issuer: ISSUER,
            subject: &self.subject,
            audience: &audience,
            expires: now.plus(LIFETIME),
            issued_at: now,
            jti: "test",
            client: &self.client,
            scope: &scope,
            session: self.session.then(|| (SessionId::new(now, [7; 10]), Generation::FIRST)),
            bound_to: None,
            certificate: None,
            delegation: None,
            vouched_by: None,
            account: self.account.as_deref(),
            own: Some(&self.claims),
            style: TokenStyle::default(),
        };
        let token = mint(keyring.signer(), &claims).expect("the test claims fit into a token");
        let rules = IssuerRules::own(ISSUER, audience.to_vec(), &keyring, Duration::ZERO);
        let verifier = Verifier::new(vec![rules]).expect("one issuer");
        let list = Arc::new(RevocationList::new());
        let checker = TokenChecker::new(verifier, clock, list, IdentityHeaders::default(), 0, usize::MAX);
        let (limits, confirmations) = (Limits::new(Rates::default(), time), Confirmations::default());
        let context =
            || MissContext { limits: &limits, confirmations: &confirmations, source: None.into(), introspected: None };
        let verified =
            checker.check(Credential::new(token.expose()), context, &mut ()).expect("the test token is valid");
        let route = Arc::new(Route::catch_all(RoutePolicy::default()));
        let permit =
            authorise(&route, verified, by(), &mut ()).expect("the test caller meets the route's requirements");
        permit.settled().expect("a route without limits owes nothing").into_permitted()
    }
}

/// Gives every request the same caller. See [`TestIdentity::layer`].
///
/// ```
/// use axum::{Router, routing::get};
/// use rotogate::test::{TestIdentity, TestLayer};
///
/// /// The application, with the caller that a test names.
/// fn app(caller: TestLayer) -> Router {
///     Router::new().route("/", get(async || "hello")).layer(caller)
/// }
/// let (known, unknown) = (app(TestIdentity::new("ada").layer()), app(TestLayer::anonymous()));
/// # let _ = (known, unknown);
/// ```
#[derive(Clone, Debug)]
pub struct TestLayer<S = ()> {
    inner: S,
    permitted: Permitted,
}

impl TestLayer {
    /// A layer for requests without a caller: `Option<Identity>` is `None`.
    pub fn anonymous() -> Self {
        let route = Arc::new(Route::catch_all(RoutePolicy::public()));
        Self { inner: (), permitted: permit_own(&route, by()).into_permitted() }
    }
}

impl<S> Layer<S> for TestLayer {
    type Service = TestLayer<S>;

    fn layer(&self, inner: S) -> TestLayer<S> {
        TestLayer { inner, permitted: self.permitted.clone() }
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for TestLayer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.permitted.clone());
        self.inner.call(request)
    }
}
