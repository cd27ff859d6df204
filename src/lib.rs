//! rotogate validates bearer tokens before requests reach a service. The gateway also serves the refresh route, and
//! rotates tokens there. A revoked token is refused from the next request on. A user stays logged in even if a refresh
//! response is lost.
//!
//! A [`Gate`] owns the keys, sessions, revocations, cache of verified tokens, route policies and dialects.
//! [`Gate::layer`](gate::Gate::layer) puts the gate in front of any HTTP [`tower::Service`], for example with axum or
//! hyper. The program `rotogate` is this layer around a reverse proxy.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use rotogate::Gate;
//! use rotogate::client::Client;
//! use rotogate::gate::NewSession;
//! use rotogate::token::Keyring;
//!
//! let gate = Gate::builder()
//!     .issuer("https://api.example.com")
//!     .keys(Keyring::ephemeral()?)
//!     .client(Client::public("web"))
//!     .build()
//!     .await?;
//! let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
//! let service = tower::ServiceBuilder::new().layer(gate.layer()).service_fn(
//!     |request: http::Request<http_body_util::Full<bytes::Bytes>>| async move {
//!         let caller = rotogate::Identity::from_extensions(request.extensions()).unwrap().subject().to_owned();
//!         Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(bytes::Bytes::from(caller))))
//!     },
//! );
//! let request = http::Request::get("/")
//!     .header("host", "api.example.com")
//!     .header("authorization", format!("Bearer {}", tokens.access_token.expose()))
//!     .body(http_body_util::Full::default())?;
//! let response = tower::ServiceExt::oneshot(service, request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Where to look
//!
//! | you write | you need |
//! |---|---|
//! | a service behind the layer | [`Gate`], [`GateBuilder`](gate::GateBuilder), [`Identity`], [`Require`](gate::Require), [`Claims`](gate::Claims), [`Reason`](gate::Reason) |
//! | a server that is not a tower service | [`Gate::judge`](gate::Gate::judge), [`Judgement`](gate::Judgement), [`PermittedRequest`](gate::PermittedRequest) |
//! | your own notifications and dashboards | [`Gate::events`](gate::Gate::events), [`GateEvent`](gate::GateEvent) |
//! | routes, and what they require | [`Route`](route::Route), [`RoutePolicy`](route::RoutePolicy), [`Auth`](route::Auth), [`Endpoint`](gate::Endpoint), [`Rates`](gate::Rates), [`Bounds`](gate::Bounds) |
//! | a login, a logout, an administration page | [`Sessions`](gate::Sessions), [`NewSession`](gate::NewSession), [`IssuedTokens`](gate::IssuedTokens), [`Cookies`](gate::Cookies), [`Whose`](gate::Whose), [`Session`](session::Session), [`Profile`](session::profile::Profile) |
//! | a service that accepts the tokens of another issuer | `ResourceServer` (feature `remote-keys`) |
//! | keys and other issuers | [`Keyring`](token::Keyring), [`IssuerRules`](token::IssuerRules), [`IssuerKeys`](token::IssuerKeys), [`Algorithm`](token::Algorithm) |
//! | replies to refused requests | [`Denial`](denial::Denial), [`Class`](denial::Class), [`Fault`](fault::Fault) |
//! | tests of handlers | `rotogate::test` (feature `test`) |
//! | your own source of users | [`directory`] |
//! | your own store | [`store`], and its [`rules`](store::rules) |
//! | your own wire protocol | [`dialect`] |
//!
//! [`session`] describes sessions and refresh tokens. [`gate`] describes the path of a request.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | yes | [`Identity`] and `Option<Identity>` as axum extractors |
//! | `passwords` | yes | password hashes: argon2id, for [`directory`] and for the secrets of clients |
//! | `redb` | yes | the embedded store |
//! | `redis` | no | a store in Redis or Valkey that several gates share |
//! | `postgres` | no | a store in PostgreSQL that several gates share |
//! | `browser-oidc` | no | browsers log in at an OpenID provider: `Browser::provider`, `LoginProvider`, `ProviderToken` |
//! | `remote-keys` | no | keys of other issuers by discovery or by URL, fetched and kept up to date |
//! | `imported-hashes` | no | password hashes of other systems: bcrypt, PBKDF2, scrypt, Firebase's and more |
//! | `key-folder` | no | keys in a folder: `Keyring::load`, `create` and `load_or_create` |
//! | `kuzzle` | no | WebSockets of the `kuzzle` dialect |
//! | `grpc` | no | the dialect `knox`, with server reflection and health |
//! | `http-client` | no | the HTTP client that fetches the documents of other issuers; no public API yet |
//! | `introspection` | no | introspection of opaque tokens over HTTP (RFC 7662); no public API yet |
//! | `test` | no | simulated callers, for testing handlers without a gate; no other feature enables it |
//! | `test-util` | no | a clock that tests set by hand, and the conformance suite for stores |
//! | `failpoints` | no | points at which a test stops the process or moves its clock; never in a release build |
//!
//! The standalone proxy is another crate, `rotogate-server`.
//!
//! A feature adds API and does not change behaviour. The one exception is `kuzzle`, whose dialect serves `GET /`.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod claim;
pub mod client;
pub mod clock;
pub mod denial;
pub mod dialect;
pub mod directory;
pub mod dpop;
#[cfg(feature = "http-client")]
mod exchange;
pub mod fault;
pub mod gate;
#[doc(hidden)]
pub mod program;
// Only the program uses this module. Its API may change in any release.
#[doc(hidden)]
pub mod relay;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;
#[cfg(feature = "remote-keys")]
mod resource_server;
pub mod route;
pub mod session;
pub mod store;
#[cfg(feature = "test")]
pub mod test;
pub mod token;

pub use gate::handle::Gate;
pub use gate::identity::Identity;
#[cfg(feature = "remote-keys")]
pub use resource_server::ResourceServer;
pub use rotogate_core::invalid::InvalidValue;
/// The type of passwords in a [`Directory`](directory::Directory).
pub use secrecy::SecretString;

/// Compiles the examples in the README and in the page about the layer.
#[cfg(all(doctest, feature = "axum", feature = "key-folder", feature = "remote-keys"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/layer.md")]
struct Readme;
