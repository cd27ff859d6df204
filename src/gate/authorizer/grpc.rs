//! Envoy's external authorization over gRPC, version 3 (`envoy.service.auth.v3.Authorization/Check`).
//!
//! The facts are attributes that Envoy fills itself, never headers. Equal names in `headers` are joined by commas;
//! `header_map`, if the filter sends it, has each by itself and then counts alone. Every failure of ours is a refusal with
//! an HTTP status, not an error of the call: an error would pass where the filter says `failure_mode_allow`.

use std::borrow::Cow;
use std::fmt;
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
use super::{Authorizer, Form, Neighbour, kept};
use crate::denial::Denial;
use crate::dialect::knox::calls::{collected, refusal};
use crate::dialect::knox::streams::{self, Streams};
use crate::headers::Peer;
use crate::reply::{self, Reply, StreamedBody};
use crate::route::Route;
use crate::token::claims::AccessToken;
use crate::verify_cache::Verified;

/// The messages, generated at build time.
#[expect(missing_docs, reason = "generated; what it means is said in the .proto")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/ext_authz.rs"));
}

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ext_authz.bin"));
const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// How the question is compressed.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The largest question, in bytes: the headers of a request, each at most twice.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The longest body of a refusal.
const MAX_BODY_BYTES: usize = 4096;
/// The buffer that a question arrives in, and the one that its answer is written to. Both grow.
const QUESTION_BUFFER_BYTES: usize = 4096;
const ANSWER_BUFFER_BYTES: usize = 1024;
/// tonic's default: how much of an answer is a frame.
const YIELD_BYTES: usize = 32 * 1024;
/// The most headers of a question: more than any proxy lets a client send (requirement A24).
const MAX_HEADERS: usize = 1024;
/// For how many headers there is space from the start.
const FEW_HEADERS: usize = 64;
/// The text of an answer with an identity.
const TEXT_BYTES: usize = 1024;

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpRequest(…)")
    }
}

impl fmt::Debug for HeadersEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadersEntry(…)")
    }
}

impl fmt::Debug for WireHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderValue(…)")
    }
}

/// The answer to a question about a permitted request. In the extensions of the reply.
#[derive(Clone, Debug)]
pub(super) enum Allowed {
    /// As it was given before, encoded.
    Kept(Bytes),
    /// What changes in the request, whose it is, and the route for which the answer is kept: it is the same for each of
    /// the caller's requests there.
    Made { changes: Mutations, caller: Option<Arc<Verified>>, keep_for: Option<Arc<Route>> },
}

/// The codec of a check.
#[derive(Debug)]
struct CheckCodec;

impl Codec for CheckCodec {
    /// A [`CheckResponse`], encoded.
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
        // The fields of a message in `Bytes` are parts of them.
        let message = buffer.copy_to_bytes(buffer.remaining());
        CheckRequest::decode(message).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(QUESTION_BUFFER_BYTES, YIELD_BYTES)
    }
}

/// The calls of the service, with server reflection and health.
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
    /// Answers a call. `verdict` decides on the head that a question makes, and returns the reply with its whole body.
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
            return reply::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("this listener speaks gRPC"));
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
            // Pinned where it is made, as below: an awaited future is copied first, and this one has a request in it.
            let mut reply = pin!(verdict(head)).await;
            Ok::<_, Status>(tonic::Response::new(spoken(&mut reply)))
        };
        let mut grpc = Grpc::new(CheckCodec).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = http::Request::new(body);
        // tonic reads no other header.
        request.headers_mut().extend(call.headers.get(&ENCODING).map(|encoding| (ENCODING, encoding.clone())));
        let answer = pin!(grpc.unary(tower::service_fn(serve), request)).await;
        collected(answer).await
    }
}

impl Authorizer {
    /// The head of the request that a question is about.
    ///
    /// # Errors
    /// A fact is missing or malformed.
    #[doc(hidden)]
    pub fn head_of_check(&self, question: CheckRequest) -> Result<Parts, Denial> {
        let missing = Denial::BadFact("an attribute is missing");
        let attributes = question.attributes.ok_or(missing)?;
        let request = attributes.request.and_then(|request| request.http).ok_or(missing)?;
        let source = attributes.source.and_then(|source| source.address?.address).ok_or(missing)?;
        let Address::SocketAddress(source) = source;
        let facts = Facts {
            method: facts::method(present(&request.method)?)?,
            host: facts::host(present(&request.host)?)?,
            // Its query too: `query` and `fragment` are always empty.
            target: facts::target(present(&request.path)?)?,
            is_secure: facts::is_secure(Neighbour::Envoy, present(&request.scheme)?)?,
            client: facts::client(present(&source.address)?)?,
        };
        let headers = headers(request)?;
        self.marked(&headers, Form::Message)?.head_of(facts, headers)
    }
}

fn present(attribute: &Bytes) -> Result<&str, Denial> {
    if attribute.is_empty() { Err(Denial::BadFact("an attribute is empty")) } else { text(attribute) }
}

/// What the message says is text.
fn text(attribute: &Bytes) -> Result<&str, Denial> {
    std::str::from_utf8(attribute).map_err(|_| Denial::BadFact("an attribute is not UTF-8"))
}

/// The headers of the request, without pseudo-headers.
fn headers(request: HttpRequest) -> Result<HeaderMap, Denial> {
    const BAD: Denial = Denial::BadFact("a header is malformed");
    let header = |name: &[u8], value: Bytes| -> Result<(HeaderName, HeaderValue), Denial> {
        let name = HeaderName::from_bytes(name).map_err(|_| BAD)?;
        Ok((name, HeaderValue::from_maybe_shared(value).map_err(|_| BAD)?))
    };
    let is_of_the_request = |name: &Bytes| !name.starts_with(b":");
    let listed = request.header_map.as_ref().map_or(0, |map| map.headers.len());
    if listed.max(request.headers.len()) > MAX_HEADERS {
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
                // Several headers of one name look like this, and one that is good never does.
                if key.eq_ignore_ascii_case(AUTHORIZATION.as_str().as_bytes()) && value.contains(&b',') {
                    return Err(Denial::TwoCredentials);
                }
                if is_of_the_request(&key) {
                    let (name, value) = header(&key, value)?;
                    // A name is there once, in whatever spelling.
                    if headers.try_insert(name, value).map_err(|_| BAD)?.is_some() {
                        return Err(Denial::BadFact("a header is repeated"));
                    }
                }
            }
        }
    }
    Ok(headers)
}

/// A reply in the words of the call: a [`CheckResponse`], encoded.
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
        status if status.is_client_error() || status.is_server_error() => status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let code =
        if status == StatusCode::UNAUTHORIZED { tonic::Code::Unauthenticated } else { tonic::Code::PermissionDenied };
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

/// Overwritten, because the default is to append to what the client sent. Further values of a name, such as a second
/// challenge, follow the first.
fn overwritten(headers: &HeaderMap, texts: &mut Texts) -> Vec<HeaderValueOption> {
    let mut previous = None;
    // The values of a name come one after the other.
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

/// `from_utf8_lossy`, which looks for a fault byte by byte where there is none.
fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    }
}

/// The texts of a message, one after the other in one allocation.
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

/// The caller, for other filters and for logs.
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
