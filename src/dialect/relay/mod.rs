//! Relays in front of a provider that rotates refresh tokens itself. The relay sends each refresh token to the provider
//! once, and repeats the provider's reply within a grace period.
//!
//! | protocol | exchange | passed through, if listed in `grants` | revocation |
//! |---|---|---|---|
//! | `oauth` | `POST` of a form at the path (RFC 6749 §6) | other grants, by name | RFC 7009, at a separate path |
//! | `envelope` | `PUT` of both tokens at the path | `password`: `POST` at the path | none |
//! | `knox` | `RefreshAccessToken` below the path | `password`: `AuthnWithPassword` below the path | none |
//!
//! In front of a Kuzzle server, the dialect is [`Kuzzle`](super::kuzzle::Kuzzle) with `relay`.
//!
//! The dialect reads requests and writes replies. [`crate::relay`] implements the rules.

use async_trait::async_trait;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method, StatusCode};

use super::envelope::Envelope;
use super::{Answer, Call, CommandHandler, Dialect, Outcome, Protocol, RelayRequest, Reply, ServedPath};
use crate::relay::ProviderReply;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;

mod envelope;
#[cfg(all(feature = "grpc", feature = "http-client"))]
mod knox;
pub(super) mod kuzzle;
mod oauth;

#[cfg(feature = "http-client")]
pub use envelope::EnvelopeProvider;
pub use envelope::PASSWORD;
#[cfg(all(feature = "grpc", feature = "http-client"))]
pub use knox::KnoxProvider;
#[cfg(feature = "http-client")]
pub use kuzzle::KuzzleProvider;

#[cfg(test)]
mod tests;

/// The dialect's name in `gateway.toml`.
pub const NAME: &str = "relay";
/// The only grant that the relay does not pass through.
pub const REFRESH_TOKEN: &str = "refresh_token";

const TOKEN: &str = "token";
const REVOCATION: &str = "revocation";

/// The protocol that both the clients and the provider speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// RFC 6749.
    #[default]
    OAuth,
    /// The envelope protocol, `PUT /api/v2/auth/token`.
    Envelope,
    /// gRPC.
    #[cfg(all(feature = "grpc", feature = "http-client"))]
    Knox,
}

impl Wire {
    /// Returns whether the protocol is gRPC. A gRPC provider has one path for each call.
    pub const fn is_grpc(self) -> bool {
        match self {
            Self::OAuth | Self::Envelope => false,
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Self::Knox => true,
        }
    }
}

/// The dialect `relay`, with its options.
#[derive(Clone, Debug)]
pub struct RelayDialect {
    /// The protocol.
    pub wire: Wire,
    /// The grants that are served. All of them except `refresh_token` are passed through.
    pub grants: Vec<String>,
    /// The id of the gate's client at the provider, which the gate adds to each request. If it is `None`, the
    /// credentials of the calling client are passed on.
    pub client: Option<String>,
    /// The path of the revocation endpoint.
    pub revocation_path: Option<String>,
}

impl Default for RelayDialect {
    fn default() -> Self {
        Self { wire: Wire::OAuth, grants: vec![REFRESH_TOKEN.to_owned()], client: None, revocation_path: None }
    }
}

impl RelayDialect {
    fn serves_grant(&self, grant: &str) -> bool {
        self.grants.iter().any(|served| served == grant)
    }

    fn read_request(&self, call: &Call<'_>) -> Result<RelayRequest, Denial> {
        match self.wire {
            Wire::OAuth => oauth::read(self, call),
            Wire::Envelope => envelope::read(self, call),
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Wire::Knox => Err(Denial::MalformedRequest("the relay does not read gRPC calls from a buffered body")),
        }
    }

    fn reply(&self, call: &Call<'_>, reply: &ProviderReply) -> (Reply, Reason) {
        let (written, is_granted) = match self.wire {
            Wire::OAuth => (oauth::reply(call, reply), reply.status == 200),
            Wire::Envelope => (envelope::reply(reply), envelope::is_granted(reply)),
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Wire::Knox => (self.refusal(call, &Denial::NoRoute.into()), false),
        };
        (written, if is_granted { Reason::ANSWERED } else { Reason::PROVIDER_REFUSED })
    }

    fn refusal(&self, call: &Call<'_>, error: &Error) -> Reply {
        match self.wire {
            Wire::OAuth => oauth::refusal(call.headers, error),
            Wire::Envelope => Envelope::default().refusal(call, error),
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Wire::Knox => knox::refused(error),
        }
    }
}

/// Writes the provider's reply to the client, with headers that forbid caching.
fn passed_on(reply: &ProviderReply) -> Reply {
    let mut written = Reply::new(reply.body.to_vec().into());
    *written.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    written.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    written
}

impl Dialect for RelayDialect {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        match self.wire {
            Wire::OAuth => "/auth/token",
            Wire::Envelope => Envelope::default().default_path(),
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Wire::Knox => "/user_api.v1.UserApiService",
        }
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        const POST: &[Method] = &[Method::POST];
        let base_path = || base.to_owned();
        match self.wire {
            Wire::OAuth => {
                let revocation = self.revocation_path.clone().map(|path| ServedPath::new(REVOCATION, path, POST));
                std::iter::once(ServedPath::new(TOKEN, base_path(), POST)).chain(revocation).collect()
            }
            Wire::Envelope if self.serves_grant(PASSWORD) => {
                vec![ServedPath::new(TOKEN, base_path(), &[Method::POST, Method::PUT])]
            }
            Wire::Envelope => vec![ServedPath::new(TOKEN, base_path(), &[Method::PUT])],
            #[cfg(all(feature = "grpc", feature = "http-client"))]
            Wire::Knox => {
                let called = |method: &'static str| ServedPath::new(method, format!("{base}/{method}"), POST);
                let login = self.serves_grant(PASSWORD).then(|| called(super::knox::AUTHN));
                std::iter::once(called(super::knox::REFRESH)).chain(login).collect()
            }
        }
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            // This dialect does not execute commands, so an outcome never occurs.
            Ok(_) => self.refusal(call, &Denial::NoRoute.into()),
            Err(error) => self.refusal(call, &error),
        }
    }

    #[cfg(all(feature = "grpc", feature = "http-client"))]
    fn refuse(&self, headers: &http::HeaderMap, denial: Denial) -> Option<Reply> {
        match self.wire {
            Wire::OAuth | Wire::Envelope => None,
            Wire::Knox => rotogate_core::reply::is_grpc(headers).then(|| knox::refused(&denial.into())),
        }
    }
}

#[async_trait]
impl Protocol for RelayDialect {
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        #[cfg(all(feature = "grpc", feature = "http-client"))]
        if self.wire == Wire::Knox {
            return knox::answer(call, gate).await.into();
        }
        let answered = match self.read_request(call) {
            Ok(request) => gate.relay(request).await,
            Err(denial) => Err(denial.into()),
        };
        match answered {
            Ok(reply) => self.reply(call, &reply).into(),
            Err(error) => (self.refusal(call, &error), Reason::from(&error)).into(),
        }
    }
}
