//! `user_api.v1.UserApiService`: login, refresh and «who am I» over gRPC, with server reflection and health.
//!
//! | call | command |
//! |---|---|
//! | `AuthnWithPassword(email, password)` | a login; `email` is the user's name |
//! | `RefreshAccessToken(refresh_token)` | a refresh; the token is the credential, and no metadata is needed |
//! | `GetMe()` | a check of the access token in the metadata `authorization` |
//!
//! Every refusal is a gRPC status in trailers, with HTTP 200. The gate uses `UNAUTHENTICATED` for an invalid
//! credential, `INVALID_ARGUMENT` for an empty field, `RESOURCE_EXHAUSTED` for a rate limit, and `UNAVAILABLE` for its
//! own fault. The last two have `google.rpc.RetryInfo`.
//!
//! A user's fields come from the directory's profile: `first_name`, `last_name`, `email`, `role` (`"user"`, `"admin"`),
//! `avatar`, `phone`, `dids` (a list), `external_ids` (a table of strings), `metadata` (a table of any values).
//!
//! ```
//! use rotogate::dialect::knox::Knox;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(Knox::default());
//! # let _ = endpoint;
//! ```

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode};
use tonic::Status;

use self::calls::{Calling, refusal};
use self::streams::Streams;
use super::{Answer, Call, CommandHandler, Dialect, Outcome, Protocol, Reply, ServedPath, StreamedBody};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::reply;

pub(crate) mod calls;
pub(crate) mod proto;
pub(crate) mod streams;
mod user;
pub(super) mod words;

pub(super) const SERVICE: &str = "user_api.v1.UserApiService";

pub(super) const AUTHN: &str = "AuthnWithPassword";
pub(super) const REFRESH: &str = "RefreshAccessToken";
/// The name of this dialect.
pub(crate) const NAME: &str = "knox";
const GET_ME: &str = "GetMe";
const STREAMED: &str = "reflection or health";

/// The dialect `knox`.
///
/// ```
/// use rotogate::client::Client;
/// use rotogate::dialect::knox::Knox;
/// use rotogate::gate::Endpoint;
///
/// let endpoint = Endpoint::new(Knox::default()).client("mobile");
/// let builder = rotogate::Gate::builder().client(Client::public("mobile")).endpoint(endpoint);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct Knox {
    streams: Streams,
}

impl Default for Knox {
    fn default() -> Self {
        Self { streams: Streams::new(proto::DESCRIPTORS, SERVICE) }
    }
}

impl Dialect for Knox {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        "/user_api.v1.UserApiService"
    }

    fn client(&self) -> Option<&'static str> {
        Some(NAME)
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        let served = |operation, template| ServedPath::new(operation, template, &[Method::POST]);
        let own = [AUTHN, REFRESH, GET_ME].map(|method| served(method, format!("{base}/{method}")));
        let streamed =
            [streams::REFLECTION_V1, streams::REFLECTION_V1_ALPHA, streams::HEALTH_CHECK, streams::HEALTH_WATCH];
        own.into_iter().chain(streamed.map(|path| served(STREAMED, path.to_owned()))).collect()
    }

    fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            Ok(_) => refusal(&Status::internal("unexpected")),
            Err(error) => refusal(&words::status(&error)),
        }
    }

    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        reply::is_grpc(headers).then(|| refusal(&words::status(&denial.into())))
    }
}

#[async_trait]
impl Protocol for Knox {
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        if !reply::is_grpc(call.headers) {
            return not_grpc().into();
        }
        let calling = Calling::new(call, gate);
        let reply = match call.operation {
            AUTHN => calling.authn_with_password().await,
            REFRESH => calling.refresh_access_token().await,
            GET_ME => calling.get_me().await,
            _ => return (refusal(&Status::unimplemented("no such method")), Denial::NoRoute.into()).into(),
        };
        (reply, calling.reason()).into()
    }

    fn is_streamed(&self, operation: &str) -> bool {
        operation == STREAMED
    }

    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        if !reply::is_grpc(call.headers) {
            return not_grpc();
        }
        (self.streams.answer(call.path, call.headers, body).await, Reason::ANSWERED)
    }
}

pub(super) fn not_grpc() -> (Reply, Reason) {
    let denial = Denial::MalformedRequest("this path accepts only gRPC requests");
    (reply::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, denial.detail()), denial.into())
}
