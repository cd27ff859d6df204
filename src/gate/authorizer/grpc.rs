//! Envoy's external authorization over gRPC, version 3 (`envoy.service.auth.v3.Authorization/Check`).
//!
//! The facts are attributes that Envoy fills itself, never headers. Equal names in `headers` are joined by commas;
//! `header_map`, if the filter sends it, has each by itself and then counts alone. Every failure of ours is a refusal with
//! an HTTP status, not an error of the call: an error would pass where the filter says `failure_mode_allow`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use self::proto::envoy::config::core::v3::address::Address;
use self::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use self::proto::envoy::config::core::v3::{HeaderValue as WireHeader, HeaderValueOption};
use self::proto::envoy::service::auth::v3::attribute_context::HttpRequest;
use self::proto::envoy::service::auth::v3::check_response::HttpResponse;
use self::proto::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use self::proto::envoy::r#type::v3::HttpStatus;
use super::answer::{Mutations, STATUS};
use super::facts::{self, Facts};
use super::{Authorizer, Neighbour};
use crate::denial::Denial;
use crate::dialect::knox::calls::{collected, refusal};
use crate::dialect::knox::streams::{self, Streams};
use crate::headers::Peer;
use crate::reply::{self, Reply, StreamedBody};
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
/// The largest question, in bytes: the headers of a request, each at most twice.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The longest body of a refusal.
const MAX_BODY_BYTES: usize = 4096;

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpRequest(…)")
    }
}

impl fmt::Debug for WireHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderValue(…)")
    }
}

/// What a permit changes in the request, and whose it is. In the extensions of the reply.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    changes: Mutations,
    caller: Option<Arc<Verified>>,
}

impl Allowed {
    pub(super) const fn new(changes: Mutations, caller: Option<Arc<Verified>>) -> Self {
        Self { changes, caller }
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
            Ok::<_, Status>(tonic::Response::new(spoken(&mut verdict(head).await)))
        };
        let codec = ProstCodec::<CheckResponse, CheckRequest>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = http::Request::new(body);
        *request.headers_mut() = call.headers.clone();
        collected(grpc.unary(tower::service_fn(serve), request).await).await
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
        self.head_of(facts, &headers(request)?, true)
    }
}

fn present(attribute: &str) -> Result<&str, Denial> {
    if attribute.is_empty() { Err(Denial::BadFact("an attribute is empty")) } else { Ok(attribute) }
}

/// The headers of the request, without pseudo-headers.
fn headers(request: HttpRequest) -> Result<HeaderMap, Denial> {
    let bad = Denial::BadFact("a header is malformed");
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| -> Result<(), Denial> {
        if !name.starts_with(':') {
            let name = HeaderName::from_str(name).map_err(|_| bad)?;
            headers.try_append(name, HeaderValue::from_bytes(value).map_err(|_| bad)?).map_err(|_| bad)?;
        }
        Ok(())
    };
    match request.header_map.filter(|map| !map.headers.is_empty()) {
        Some(map) => {
            for header in &map.headers {
                let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
                add(&header.key, value)?;
            }
        }
        None => {
            for (name, value) in &request.headers {
                // Several headers of one name look like this, and one that is good never does.
                if name.eq_ignore_ascii_case(AUTHORIZATION.as_str()) && value.contains(',') {
                    return Err(Denial::TwoCredentials);
                }
                add(name, value.as_bytes())?;
            }
        }
    }
    Ok(headers)
}

/// A reply in the words of the call.
pub(super) fn spoken(reply: &mut Reply) -> CheckResponse {
    let allowed = reply.extensions_mut().remove::<Allowed>();
    match allowed.filter(|_| reply.status() == StatusCode::OK) {
        Some(Allowed { changes: Mutations { set, remove }, caller }) => CheckResponse {
            status: Some(proto::google::rpc::Status::default()),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                headers: overwritten(&set),
                headers_to_remove: remove.iter().map(ToString::to_string).collect(),
            })),
            dynamic_metadata: caller.map(|caller| metadata(caller.token())),
        },
        None => denied(reply),
    }
}

fn denied(reply: &Response<reply::ReplyBody>) -> CheckResponse {
    let status = match reply.status() {
        status if status.is_client_error() || status.is_server_error() => status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let code =
        if status == StatusCode::UNAUTHORIZED { tonic::Code::Unauthenticated } else { tonic::Code::PermissionDenied };
    let mut headers = reply.headers().clone();
    for name in [CONTENT_LENGTH, STATUS] {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = String::from_utf8_lossy(reply.body().data());
    CheckResponse {
        status: Some(proto::google::rpc::Status { code: code.into(), message: String::new() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: status.as_u16().into() }),
            headers: overwritten(&headers),
            body: if body.len() <= MAX_BODY_BYTES { body.into_owned() } else { String::new() },
        })),
        dynamic_metadata: None,
    }
}

/// Overwritten, because the default is to append to what the client sent. Further values of a name, such as a second
/// challenge, follow the first.
fn overwritten(headers: &HeaderMap) -> Vec<HeaderValueOption> {
    let each = headers.keys().flat_map(|name| headers.get_all(name).iter().enumerate().map(move |one| (name, one)));
    let one = |(name, (index, value)): (&HeaderName, (usize, &HeaderValue))| HeaderValueOption {
        header: Some(WireHeader {
            key: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ..WireHeader::default()
        }),
        append_action: match index {
            0 => HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
            _ => HeaderAppendAction::AppendIfExistsOrAdd.into(),
        },
    };
    each.map(one).collect()
}

/// The caller, for other filters and for logs.
fn metadata(token: &AccessToken) -> Struct {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let scope = token.scope.iter().map(text).collect();
    let expires = token.expires.as_secs();
    #[expect(clippy::cast_precision_loss, reason = "exact for three hundred thousand years")]
    let expires = Value { kind: Some(Kind::NumberValue(expires as f64)) };
    let mut fields = vec![
        ("subject", text(&token.subject)),
        ("issuer", text(&token.issuer)),
        ("scope", Value { kind: Some(Kind::ListValue(ListValue { values: scope })) }),
        ("expires", expires),
    ];
    fields.extend(token.client.as_deref().map(|client| ("client", text(client))));
    fields.extend(token.session.map(|(session, _)| ("session", text(&session.to_string()))));
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}
