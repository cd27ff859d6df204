//! Dialects translate between a wire protocol and the engine's commands. Each dialect reports a denial in the form that
//! its protocol prescribes.
//!
//! To support another protocol, implement [`Dialect`]: `read` turns a request into a [`Command`], and `write` turns the
//! outcome into a reply.
//!
//! ```
//! use rotogate::Gate;
//! use rotogate::dialect::oauth2::OAuth2;
//! use rotogate::gate::Endpoint;
//!
//! // Clients refresh with `POST /oauth/token`. Revocation and introspection are in the same folder.
//! let builder = Gate::builder().endpoint(Endpoint::new(OAuth2).path("/oauth/token"));
//! # let _ = builder;
//! ```

pub(crate) mod answer;
pub(crate) mod browser;
mod call;
pub(crate) mod command;
pub mod envelope;
pub(crate) mod events;
#[doc(hidden)]
pub mod global_revocation;
#[cfg(feature = "grpc")]
pub mod knox;
pub mod kuzzle;
pub mod my_keys;
pub mod my_sessions;
pub mod oauth2;
mod own;
mod own_resource;
pub(crate) mod protocol;
pub(crate) mod registry;
#[doc(hidden)]
pub mod relay;
#[cfg(feature = "kuzzle")]
mod socket;

/// The name of the dialect that global revocations of other issuers have.
pub(crate) const GLOBAL_REVOCATION: &str = "global-token-revocation";

pub use call::{Call, ServedPath, Sources};
#[doc(hidden)]
pub use command::RelayRequest;
pub use command::{CheckedToken, Command, ExchangeRequest, Outcome, RefreshCredential, Superseded};
pub use own::Dialect;
#[doc(hidden)]
pub use registry::Options;
#[doc(inline)]
#[doc(hidden)]
pub use rotogate_core::engine::api_keys::{OwnKeys, OwnKeysAction, OwnKeysRequest};
pub use rotogate_core::reply::ReplyBody;
#[cfg(feature = "kuzzle")]
pub(crate) use socket::{SocketGate, SocketIdentity, Upgrade};

pub(crate) use answer::{Answer, Consult, ConsultResult, Forward};
use answer::{json, reason};
pub(crate) use call::{EnclosedCall, OAuthPaths, said_json, said_media};
pub(crate) use command::CommandHandler;
pub(crate) use protocol::OwnAccess;
pub(crate) use protocol::Protocol;
pub(crate) use rotogate_core::engine::{OwnSessionsAction, OwnSessionsRequest};
pub(crate) use rotogate_core::reply::{Reply, StreamedBody};
