//! Dialects: thin translations between one wire protocol and the engine's commands, with the protocol's own reply for
//! each refusal. A dialect holds no state and decides nothing.
//!
//! Most dialects need only [`Dialect::read`], which turns a request into a [`Command`], and [`Dialect::write`], which
//! turns its outcome into a reply; [`oauth2`] is the example to follow. A dialect whose messages are not one command
//! each implements [`Dialect::answer`] instead.
//!
//! ```
//! use rotogate::Gate;
//! use rotogate::dialect::oauth2::OAuth2;
//! use rotogate::gate::Endpoint;
//!
//! // Clients refresh with `POST /oauth/token`; logout and metadata are beside it.
//! let builder = Gate::builder().endpoint(Endpoint::new(OAuth2).path("/oauth/token"));
//! # let _ = builder;
//! ```

mod answer;
pub(crate) mod browser;
mod call;
mod command;
pub mod envelope;
pub mod events;
pub mod global_revocation;
#[cfg(feature = "grpc")]
pub mod knox;
pub mod kuzzle;
#[cfg(feature = "relay")]
pub mod my_keys;
pub mod my_sessions;
pub mod oauth2;
mod protocol;
pub(crate) mod registry;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "kuzzle")]
mod socket;

pub use answer::{Answer, Consult, ConsultResult, Forward};
pub use call::{Call, EnclosedCall, OAuthPaths, ServedPath, Sources};
#[cfg(feature = "relay")]
pub use command::RelayRequest;
pub use command::{CheckedToken, Command, CommandHandler, ExchangeRequest, Outcome, RefreshCredential};
pub use protocol::Dialect;
pub use registry::Options;
#[cfg(feature = "relay")]
#[doc(inline)]
pub use rotogate_core::engine::api_keys::{OwnKeys, OwnKeysAction, OwnKeysRequest};
#[doc(inline)]
pub use rotogate_core::engine::{OwnSession, OwnSessions, OwnSessionsAction, OwnSessionsRequest};
pub use rotogate_core::reply::{Reply, ReplyBody, StreamedBody};
pub use rotogate_core::token::TokenStyle;
#[cfg(feature = "kuzzle")]
pub use socket::Upgrade;
#[cfg(feature = "kuzzle")]
pub(crate) use socket::{SocketGate, SocketIdentity};

use answer::{json, reason};
use call::said_json;
