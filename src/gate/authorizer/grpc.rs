//! Envoy's external authorization over gRPC, version 3 (`envoy.service.auth.v3.Authorization/Check`).
//!
//! Request facts come from Envoy's attributes, not from headers. Envoy joins equal headers by commas in `headers`, but
//! not in `header_map`. If the filter sends `header_map`, the gate reads only `header_map`. A fault is also returned as
//! a refusal with an HTTP status. With `failure_mode_allow`, Envoy would permit the request after a gRPC error.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;

use self::proto::envoy::config::core::v3::address::Address;
use self::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use self::proto::envoy::config::core::v3::{HeaderValue as WireHeader, HeaderValueOption};
use self::proto::envoy::service::auth::v3::attribute_context::HttpRequest;
use self::proto::envoy::service::auth::v3::attribute_context::http_request::HeadersEntry;
use self::proto::envoy::service::auth::v3::check_response::HttpResponse;
use self::proto::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use self::proto::envoy::r#type::v3::HttpStatus;
use self::proto::google::protobuf::r#struct::FieldsEntry;
use self::proto::google::protobuf::value::Kind;
use self::proto::google::protobuf::{ListValue, Struct, Value};
use super::answer::{DETAIL, Mutations, STATUS};
use super::facts::{self, Facts};
use super::{Authorizer, QuestionForm, kept};
use crate::dialect::knox::calls::{collected, refusal};
use crate::dialect::knox::streams::{self, Streams};
use rotogate_core::bounds::{MAX_QUESTION, MAX_QUESTION_FIELDS};
use rotogate_core::denial::Denial;
use rotogate_core::headers::Peer;
use rotogate_core::reply::{self, Reply, StreamedBody};
use rotogate_core::route::Route;
use rotogate_core::token::claims::AccessToken;
use rotogate_core::verify_cache::Verified;

/// The types of the Protobuf messages, which `tests/protobuf.rs` generates.
#[expect(missing_docs, reason = "generated; the .proto file documents the messages")]
pub mod proto {
    include!("../../../proto/generated/ext_authz.rs");
}

const DESCRIPTORS: &[u8] = include_bytes!("../../../proto/generated/ext_authz.bin");
const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const MAX_BODY_BYTES: usize = 4096;
const QUESTION_BUFFER_BYTES: usize = 4096;
const ANSWER_BUFFER_BYTES: usize = 1024;
const YIELD_BYTES: usize = 32 * 1024;
const FEW_HEADERS: usize = 64;
const TEXT_BYTES: usize = 1024;

rotogate_core::debug_with!(HttpRequest);

rotogate_core::debug_with!(HeadersEntry);

rotogate_core::debug_with!(WireHeader);

/// The response for a permitted request.
#[derive(Clone, Debug)]
pub(super) enum Allowed {
    /// A cached response, already encoded.
    Kept(Bytes),
    /// A new response. If `keep_for` has a route, the response is cached for the caller's requests on this route.
    Made { changes: Mutations, caller: Option<Arc<Verified>>, keep_for: Option<Arc<Route>> },
}

#[derive(Debug)]
struct CheckCodec;

impl Codec for CheckCodec {
    /// An encoded [`CheckResponse`].
    type Encode = Bytes;
    type Decode = CheckRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CheckCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, answer: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(answer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Decoder for CheckCodec {
    type Item = CheckRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<CheckRequest>, Status> {
        // The `Bytes` fields of a decoded message share this buffer.
        let message = buffer.copy_to_bytes(buffer.remaining());
        CheckRequest::decode(message).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(QUESTION_BUFFER_BYTES, YIELD_BYTES)
    }
}

/// The gRPC service, with server reflection and health.
#[derive(Clone, Debug)]
pub struct Checks {
    streams: Streams,
}

impl Default for Checks {
    fn default() -> Self {
        Self { streams: Streams::new(DESCRIPTORS, SERVICE) }
    }
}

impl Checks {
    /// Handles a gRPC call. `verdict` gets the head of the original request, and returns the reply with its complete
    /// body.
    pub async fn answer<B, F>(
        &self,
        authorizer: &Authorizer,
        call: &Parts,
        body: B,
        verdict: impl Fn(Result<Parts, Denial>) -> F + Send + Sync,
    ) -> Reply
    where
        B: Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        F: Future<Output = Reply> + Send,
    {
        if !reply::is_grpc(&call.headers) {
            return reply::problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Some("this listener accepts only gRPC requests"),
            );
        }
        if call.uri.path() != CHECK {
            let body = StreamedBody::new(body.map_err(Into::into));
            return match call.uri.path() {
                path @ (streams::REFLECTION_V1
                | streams::REFLECTION_V1_ALPHA
                | streams::HEALTH_CHECK
                | streams::HEALTH_WATCH) => self.streams.answer(path, &call.headers, body).await,
                _ => refusal(&Status::unimplemented("no such method")),
            };
        }
        let peer = call.extensions.get::<Peer>();
        let verdict = &verdict;
        let serve = |question: tonic::Request<CheckRequest>| async move {
            let head = authorizer.admits(peer).and_then(|()| authorizer.head_of_check(question.into_inner()));
            let head = head.map(|head| super::on_listener_of(peer, head));
            // The future is pinned in place, because moving the future would copy the request in it.
            let mut reply = pin!(verdict(head)).await;
            Ok::<_, Status>(tonic::Response::new(spoken(&mut reply)))
        };
        let mut grpc = Grpc::new(CheckCodec).max_decoding_message_size(MAX_QUESTION);
        let mut request = http::Request::new(body);
        // tonic reads only this header.
        request.headers_mut().extend(call.headers.get(&ENCODING).map(|encoding| (ENCODING, encoding.clone())));
        let answer = pin!(grpc.unary(tower::service_fn(serve), request)).await;
        collected(answer).await
    }
}

/// Returns the head of the original request.
///
/// # Errors
/// A fact is missing or malformed.
pub fn head_of_check(authorizer: &Authorizer, question: CheckRequest) -> Result<Parts, Denial> {
    authorizer.head_of_check(question)
}

impl Authorizer {
    /// Returns the head of the original request.
    ///
    /// # Errors
    /// A fact is missing or malformed.
    pub(super) fn head_of_check(&self, question: CheckRequest) -> Result<Parts, Denial> {
        let missing = Denial::BadFact("an attribute is missing");
        let attributes = question.attributes.ok_or(missing)?;
        let request = attributes.request.and_then(|request| request.http).ok_or(missing)?;
        let source = attributes.source.and_then(|source| source.address?.address).ok_or(missing)?;
        let Address::SocketAddress(source) = source;
        let facts = Facts {
            method: facts::method(present(&request.method)?)?,
            host: facts::host(present(&request.host)?)?,
            // `path` includes the query, and Envoy leaves `query` and `fragment` empty.
            target: facts::target(present(&request.path)?)?,
            is_secure: facts::is_secure(present(&request.scheme)?)?,
            client: facts::client(present(&source.address)?)?,
        };
        let headers = headers(request)?;
        self.marked(&headers, QuestionForm::Message)?.head_of(facts, headers)
    }
}

fn present(attribute: &Bytes) -> Result<&str, Denial> {
    if attribute.is_empty() { Err(Denial::BadFact("an attribute is empty")) } else { text(attribute) }
}

fn text(attribute: &Bytes) -> Result<&str, Denial> {
    std::str::from_utf8(attribute).map_err(|_| Denial::BadFact("an attribute is not UTF-8"))
}

fn headers(request: HttpRequest) -> Result<HeaderMap, Denial> {
    const BAD: Denial = Denial::BadFact("a header is malformed");
    let header = |name: &[u8], value: Bytes| -> Result<(HeaderName, HeaderValue), Denial> {
        let name = HeaderName::from_bytes(name).map_err(|_| BAD)?;
        Ok((name, HeaderValue::from_maybe_shared(value).map_err(|_| BAD)?))
    };
    let is_of_the_request = |name: &Bytes| !name.starts_with(b":");
    let listed = request.header_map.as_ref().map_or(0, |map| map.headers.len());
    if listed.max(request.headers.len()) > MAX_QUESTION_FIELDS {
        return Err(Denial::BadFact("too many headers"));
    }
    let mut headers;
    match request.header_map.filter(|map| !map.headers.is_empty()) {
        Some(map) => {
            headers = HeaderMap::with_capacity(map.headers.len().min(FEW_HEADERS));
            for WireHeader { key, value, raw_value } in map.headers {
                text(&value)?;
                if is_of_the_request(&key) {
                    let (name, value) = header(&key, if raw_value.is_empty() { value } else { raw_value })?;
                    headers.try_append(name, value).map_err(|_| BAD)?;
                }
            }
        }
        None => {
            headers = HeaderMap::with_capacity(request.headers.len().min(FEW_HEADERS));
            for HeadersEntry { key, value } in request.headers {
                text(&value)?;
                // Envoy joins repeated headers with a comma, and a valid `Authorization` value never contains a comma.
                if key.eq_ignore_ascii_case(AUTHORIZATION.as_str().as_bytes()) && value.contains(&b',') {
                    return Err(Denial::TwoCredentials);
                }
                if is_of_the_request(&key) {
                    let (name, value) = header(&key, value)?;
                    if headers.try_insert(name, value).map_err(|_| BAD)?.is_some() {
                        return Err(Denial::BadFact("a header is repeated"));
                    }
                }
            }
        }
    }
    Ok(headers)
}

pub(super) fn spoken(reply: &mut Reply) -> Bytes {
    let allowed = reply.extensions_mut().remove::<Allowed>();
    match allowed.filter(|_| reply.status() == StatusCode::OK) {
        Some(Allowed::Kept(answer)) => answer,
        Some(Allowed::Made { changes, caller, keep_for }) => {
            let answer = Bytes::from(permit(changes, caller.as_deref()).encode_to_vec());
            if let (Some(caller), Some(route)) = (caller, keep_for) {
                kept::keep(&caller, &route, &answer);
            }
            answer
        }
        None => denied(reply).encode_to_vec().into(),
    }
}

fn permit(Mutations { set, remove }: Mutations, caller: Option<&Verified>) -> CheckResponse {
    let mut texts = Texts::new();
    CheckResponse {
        status: Some(proto::google::rpc::Status::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: overwritten(&set, &mut texts),
            headers_to_remove: remove.iter().map(|name| texts.copy(name.as_str())).collect(),
        })),
        dynamic_metadata: caller.map(|caller| metadata(caller.token(), &mut texts)),
    }
}

fn denied(reply: &Response<reply::ReplyBody>) -> CheckResponse {
    let mut texts = Texts::new();
    let status = match reply.status() {
        // A redirect sends a browser tab to the login.
        status if status.is_client_error() || status.is_server_error() || status == StatusCode::SEE_OTHER => status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::SEE_OTHER => tonic::Code::Unauthenticated,
        _ => tonic::Code::PermissionDenied,
    };
    let mut headers = reply.headers().clone();
    for name in [CONTENT_LENGTH, STATUS, DETAIL] {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = String::from_utf8_lossy(reply.body().data());
    CheckResponse {
        status: Some(proto::google::rpc::Status { code: code.into(), message: Bytes::new() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: status.as_u16().into() }),
            headers: overwritten(&headers, &mut texts),
            body: if body.len() <= MAX_BODY_BYTES { texts.copy(&body) } else { Bytes::new() },
        })),
        dynamic_metadata: None,
    }
}

/// The headers overwrite the client's copies explicitly, because Envoy appends by default. Further values of the same
/// name are appended.
fn overwritten(headers: &HeaderMap, texts: &mut Texts) -> Vec<HeaderValueOption> {
    let mut previous = None;
    let one = |(name, value): (_, &HeaderValue)| HeaderValueOption {
        header: Some(WireHeader {
            key: texts.copy(HeaderName::as_str(name)),
            value: texts.copy(&lossy(value)),
            ..WireHeader::default()
        }),
        append_action: match previous.replace(name) {
            Some(same) if same == name => HeaderAppendAction::AppendIfExistsOrAdd.into(),
            _ => HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        },
    };
    headers.iter().map(one).collect()
}

/// Like `from_utf8_lossy`, but faster for valid UTF-8.
fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    }
}

struct Texts(BytesMut);

impl Texts {
    fn new() -> Self {
        Self(BytesMut::with_capacity(TEXT_BYTES))
    }

    fn copy(&mut self, text: &str) -> Bytes {
        self.0.extend_from_slice(text.as_bytes());
        self.0.split().freeze()
    }
}

fn metadata(token: &AccessToken, texts: &mut Texts) -> Struct {
    let mut text = |text: &str| Kind::StringValue(texts.copy(text));
    let scope = token.scope.iter().map(|scope| Value { kind: Some(text(scope)) }).collect();
    let expires = token.expires.as_secs();
    #[expect(clippy::cast_precision_loss, reason = "exact for three hundred thousand years")]
    let expires = Kind::NumberValue(expires as f64);
    let fields = [
        ("subject", Some(text(&token.subject))),
        ("issuer", Some(text(token.issuer()))),
        ("scope", Some(Kind::ListValue(ListValue { values: scope }))),
        ("expires", Some(expires)),
        ("client", token.client.as_deref().map(&mut text)),
        ("session", token.session.map(|(session, _)| text(&session.to_string()))),
    ];
    let entry = |(name, kind): (&'static str, Option<_>)| {
        let value = Some(Value { kind: Some(kind?) });
        Some(FieldsEntry { key: Bytes::from_static(name.as_bytes()), value })
    };
    Struct { fields: fields.into_iter().filter_map(entry).collect() }
}
