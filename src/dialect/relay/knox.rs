//! Relays `RefreshAccessToken` of `user_api.v1.UserApiService` to a server that implements this service. See
//! [`super::super::knox`].
//!
//! A relay record contains an HTTP status. If the call succeeded, the record also contains the response message.
//! Otherwise, it contains the text of the gRPC status.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request as HttpRequest};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use prost::Message;
use secrecy::{ExposeSecret, SecretString};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::super::knox::calls::{refusal, unary};
use super::super::knox::proto::{
    AuthnWithPasswordRequest, AuthnWithPasswordResponse, RefreshAccessTokenRequest, RefreshAccessTokenResponse,
};
use super::super::knox::{AUTHN, REFRESH, not_grpc, words};
use super::super::{Call, CommandHandler, RelayRequest, Reply};
use crate::relay::http::send_error;
use crate::relay::{Meaning, Presented, Provider, ProviderReply, ProviderRequest, Renewal, SendError};
use rotogate_core::http_client::{FetchTarget, HttpClient};
use rotogate_core::reason::Reason;
use rotogate_core::reply::is_grpc;

/// The gRPC statuses that refuse a request, with the HTTP statuses that represent them. For any other status, the relay
/// only needs to know whether the provider may have rotated the token.
const CODES: [(Code, u16); 6] = [
    (Code::Unauthenticated, 401),
    (Code::InvalidArgument, 400),
    (Code::PermissionDenied, 403),
    (Code::NotFound, 404),
    (Code::FailedPrecondition, 412),
    (Code::ResourceExhausted, 429),
];

/// Handles a call.
pub(super) async fn answer(call: &Call<'_>, gate: &dyn CommandHandler) -> (Reply, Reason) {
    if !is_grpc(call.headers) {
        return not_grpc();
    }
    let told = Mutex::new(super::super::knox::calls::UNREAD);
    let told = &told;
    let reply = if call.operation == AUTHN {
        let serve = |request: Request<AuthnWithPasswordRequest>| async move {
            let sent =
                ProviderRequest { call: AUTHN, body: encoded(&request.into_inner()), ..ProviderRequest::default() };
            relayed::<AuthnWithPasswordResponse>(gate, RelayRequest::Pass(sent), told).await
        };
        unary(call, serve).await
    } else {
        let serve = |request: Request<RefreshAccessTokenRequest>| async move {
            let message = request.into_inner();
            if message.refresh_token.is_empty() {
                return Err(words::empty_field("refresh_token"));
            }
            let sent = ProviderRequest { call: REFRESH, body: encoded(&message), ..ProviderRequest::default() };
            let token = SecretString::from(message.refresh_token);
            let presented = Presented { token, request: sent, ..Presented::default() };
            relayed::<RefreshAccessTokenResponse>(gate, RelayRequest::Exchange(presented), told).await
        };
        unary(call, serve).await
    };
    let reason = *told.lock();
    (reply, reason)
}

fn encoded(message: &impl Message) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(message.encode_to_vec())
}

async fn relayed<M: Message + Default>(
    gate: &dyn CommandHandler,
    request: RelayRequest,
    told: &Mutex<Reason>,
) -> Result<Response<M>, Status> {
    let tell = |reason| *told.lock() = reason;
    match gate.relay(request).await {
        Ok(reply) if reply.status == 200 => {
            tell(Reason::ANSWERED);
            M::decode(reply.body.as_slice()).map(Response::new).map_err(|_| Status::internal("unexpected"))
        }
        Ok(reply) => {
            tell(Reason::PROVIDER_REFUSED);
            let code =
                CODES.iter().find(|(_, status)| *status == reply.status).map_or(Code::Unknown, |(code, _)| *code);
            Err(Status::new(code, String::from_utf8_lossy(&reply.body)))
        }
        Err(error) => {
            tell(Reason::from(&error));
            Err(words::status(&error))
        }
    }
}

/// A server that implements this service.
#[derive(Debug)]
pub struct KnoxProvider {
    http: HttpClient,
    /// The URL of `AuthnWithPassword`.
    authn: FetchTarget,
    refresh: FetchTarget,
}

impl KnoxProvider {
    /// Makes a provider from the URLs of its two calls. A reply must arrive within `timeout`.
    pub fn new(http: HttpClient, authn: FetchTarget, refresh: FetchTarget, timeout: Duration) -> Self {
        // The timeout is a little shorter than the relay's own timeout, as in `HttpCaller`.
        let timeout = timeout - timeout / 20;
        let http = http.with_timeout(timeout).with_max_size(crate::relay::oauth::MAX_BODY);
        Self { http, authn, refresh }
    }

    async fn call<I, O>(
        &self,
        target: &FetchTarget,
        method: &'static str,
        body: &[u8],
    ) -> Result<ProviderReply, SendError>
    where
        I: Message + Default + 'static,
        O: Message + Default + 'static,
    {
        let message = I::decode(body).map_err(|_| SendError::NotSent("the request cannot be encoded".to_owned()))?;
        let failure = Arc::new(Mutex::new(None));
        let (http, target, failed) = (self.http.clone(), target.clone(), Arc::clone(&failure));
        let service = tower::service_fn(move |request: HttpRequest<tonic::body::Body>| {
            let (http, target, failed) = (http.clone(), target.clone(), Arc::clone(&failed));
            async move { exchange(&http, &target, request, &failed).await }
        });
        let mut client = tonic::client::Grpc::new(service);
        let path = PathAndQuery::try_from(format!("/{}/{method}", super::super::knox::SERVICE));
        let path = path.map_err(|_| SendError::NotSent("the method cannot be part of a path".to_owned()))?;
        let answered = client.unary(Request::new(message), path, ProstCodec::<I, O>::default()).await;
        if let Some(error) = failure.lock().take() {
            return Err(error);
        }
        Ok(match answered {
            Ok(response) => {
                ProviderReply { status: 200, body: encoded(response.get_ref()), ..ProviderReply::default() }
            }
            Err(status) => {
                let known = CODES.iter().find(|(code, _)| *code == status.code());
                let number = match (known, status.code()) {
                    (Some((_, number)), _) => *number,
                    (None, Code::Unimplemented) => 501,
                    // An intermediary may report `UNAVAILABLE` although the server has processed the call.
                    (None, _) => 500,
                };
                let body = Zeroizing::new(status.message().as_bytes().to_vec());
                ProviderReply { status: number, body, ..ProviderReply::default() }
            }
        })
    }
}

/// Sends one request and reads the complete response. On failure, `failed` is set to the cause, because a gRPC status
/// does not show whether the request was sent.
async fn exchange(
    http: &HttpClient,
    target: &FetchTarget,
    request: HttpRequest<tonic::body::Body>,
    failed: &Mutex<Option<SendError>>,
) -> Result<http::Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Status>>, Status> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match http.send_http2(target, Method::POST, parts.headers, body).await {
        Ok((response, trailers)) => Ok(response.map(|bytes| {
            let body = Full::new(bytes).map_err(|never| match never {});
            body.with_trailers(std::future::ready(trailers.map(Ok))).boxed_unsync()
        })),
        Err(error) => {
            let status = Status::unavailable(error.word());
            *failed.lock() = Some(send_error(&error));
            Err(status)
        }
    }
}

#[async_trait]
impl Provider for KnoxProvider {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        if request.call == AUTHN {
            let target = &self.authn;
            self.call::<AuthnWithPasswordRequest, AuthnWithPasswordResponse>(target, AUTHN, &request.body).await
        } else {
            let target = &self.refresh;
            self.call::<RefreshAccessTokenRequest, RefreshAccessTokenResponse>(target, REFRESH, &request.body).await
        }
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        match reply.status {
            // The two response messages have the same fields.
            200 => {
                match RefreshAccessTokenResponse::decode(reply.body.as_slice()).ok().and_then(|read| read.auth_token) {
                    Some(tokens) if !tokens.token.is_empty() => Meaning::Granted {
                        rotates: !tokens.refresh_token.is_empty() && tokens.refresh_token != token,
                        lifetime: u64::try_from(tokens.expires_in).ok().filter(|s| *s > 0).map(Duration::from_secs),
                    },
                    Some(_) | None => Meaning::Unclear,
                }
            }
            401 => Meaning::Dead,
            400 | 403 | 404 | 412 => Meaning::Refused,
            429 | 501 => Meaning::Busy,
            _ => Meaning::Unclear,
        }
    }

    fn aged(&self, mut reply: ProviderReply, passed: Duration) -> ProviderReply {
        if let Ok(mut read) = RefreshAccessTokenResponse::decode(reply.body.as_slice())
            && let Some(tokens) = &mut read.auth_token
            && reply.status == 200
        {
            let passed = i32::try_from(passed.as_secs()).unwrap_or(i32::MAX);
            tokens.expires_in = tokens.expires_in.saturating_sub(passed).max(0);
            reply.body = encoded(&read);
        }
        reply
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        let read = RefreshAccessTokenResponse::decode(reply.body.as_slice()).ok().filter(|_| reply.status == 200)?;
        read.auth_token.map(|tokens| Zeroizing::new(tokens.token))
    }

    fn renewal(&self, request: &ProviderRequest, reply: &ProviderReply) -> Option<Renewal> {
        let read = RefreshAccessTokenResponse::decode(reply.body.as_slice()).ok().filter(|_| reply.status == 200)?;
        let refresh_token = read.auth_token?.refresh_token;
        let token = SecretString::from(refresh_token.as_str());
        let body = encoded(&RefreshAccessTokenRequest { refresh_token });
        let request = ProviderRequest { call: request.call, headers: request.headers.clone(), body };
        (!token.expose_secret().is_empty()).then_some(Renewal { token, credential: None, request })
    }

    async fn revoke(&self, _: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        Err(SendError::NotSent("the protocol does not support revocation".to_owned()))
    }
}

/// The reply to a denial, or to a fault of the gate itself.
pub(super) fn refused(error: &rotogate_core::fault::Error) -> Reply {
    refusal(&words::status(error))
}
