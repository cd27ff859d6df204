//! rotogate validates bearer tokens on requests before they reach a service, and answers the refresh route itself, to
//! rotate tokens: a revoked token is refused on the next request, and a lost refresh response costs nobody a login.
//!
//! [`Gate`] is everything: keys, sessions, revocations, verified tokens, route policies and dialects.
//! [`Gate::layer`](gate::Gate::layer) puts it in front of any [`tower::Service`] over HTTP, axum's and hyper's among
//! them; the `rotogate` binary is that layer around a reverse proxy.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use rotogate::Gate;
//! use rotogate::client::Client;
//! use rotogate::gate::NewSession;
//! use rotogate::token::keyring::Keyring;
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
//!         let caller = rotogate::Identity::of(request.extensions()).unwrap().subject().to_owned();
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
//! | for | see |
//! |---|---|
//! | what a refresh token brings on | [`session::rotation`] |
//! | the path of a request | [`gate`] |
//! | what is checked of an access token | [`token::verify`] |
//! | a wire protocol of your own | [`dialect`] |
//! | a store of your own | [`store`] |
//! | users of your own | [`directory`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `server` | yes | the binary: `gateway.toml`, users file, reverse proxy, listeners, command line |
//! | `redb` | yes | the embedded store |
//! | `axum` | yes | [`Identity`] and `Option<Identity>` as axum extractors |
//! | `grpc` | yes | the dialect `knox`, with server reflection and health |
//! | `kuzzle` | yes | WebSockets of the `kuzzle` dialect |
//! | `test-util` | no | a clock to move by hand, and the conformance suite for stores |
//! | `failpoints` | no | points at which a test stops the process or moves its clock; never in a release build |
//!
//! A feature adds API and changes no behaviour, but for `kuzzle`: its dialect serves `GET /` with it.

pub mod client;
pub mod clock;
pub mod denial;
pub mod dialect;
pub mod directory;
pub mod gate;
pub mod limit;
pub mod overload;
pub mod policy;
pub mod revocation;
pub mod route;
pub mod session;
pub mod store;
pub mod token;
pub mod verified;

mod audit;
mod context;
mod credential;
pub mod headers;
#[cfg(feature = "server")]
mod log;
mod reason;

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "failpoints")]
pub mod failpoint;
mod linger;
#[cfg(any(feature = "redb", feature = "server"))]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the store alone needs less of it"))]
mod private_file;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod stamp;

pub use gate::{Gate, Identity};
/// How passwords come in, for whoever implements a [`Directory`](directory::Directory).
pub use secrecy::SecretString;

/// The README's program compiles.
#[cfg(all(doctest, feature = "axum", feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
