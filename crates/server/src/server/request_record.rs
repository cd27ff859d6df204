//! What the server records about a request: its id, its access-log line, and the context for log events that it causes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polled, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::drain::{DrainedStream, StreamKind};
use super::metrics;
use super::origin::Origin;
use super::request::{ReplyBody, State};
use crate::log::{self, AccessLogLine, ExchangeProgress, TunnelLine, UpstreamInfo, request_id};
use crate::proxy::ProxyBody;
use crate::trace::{RequestFacts, RequestTrace};
use rotogate::clock::wall_micros;
use rotogate::context::Context;
use rotogate::gate::Verdict;
use rotogate::headers;
use rotogate::lease::UntilClosed;

const PROBLEM: &[u8] = b"application/problem+json";
const EVENTS: &[u8] = b"text/event-stream";
const GRPC: &[u8] = b"application/grpc";
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The record of one request. Dropped before the response, it logs that the client disconnected.
pub(super) struct RequestRecord {
    context: Context,
    line: Option<AccessLogLine>,
    /// The line of an upgraded connection.
    tunnel: Option<TunnelLine>,
    method: Method,
    trace: RequestTrace,
}

impl RequestRecord {
    /// Gives the request an id, which the upstream sees too, and begins its line.
    pub(super) fn new<B>(
        state: &State,
        origin: &Origin,
        request: &mut Request<B>,
        began: Duration,
        received: Option<&ExchangeProgress>,
    ) -> Self {
        let micros = wall_micros();
        let peer = origin.peer.address();
        let proxies = state.trusted_by(&origin.peer);
        let given = (!proxies.is_empty()).then(|| request_id::trusted(request.headers(), &state.request_id)).flatten();
        let id = given.unwrap_or_else(|| request_id::new(micros));
        let client = if proxies.is_empty() { peer } else { headers::client_ip(request.headers(), peer, proxies) };
        let facts = RequestFacts {
            is_trusted: !proxies.is_empty(),
            micros,
            id: &id,
            client,
            peer,
            scheme: origin.peer.scheme(),
        };
        let trace = RequestTrace::begin(state.tracer.as_ref(), request, &facts);
        let mut line = log::access().map(|log| {
            let connection = (origin.log_fields(log), (client != peer).then_some(client));
            log.begin(request, &id, (micros, began), connection, received.cloned())
        });
        if let Some(line) = &mut line {
            line.set_trace(trace.trace());
        }
        let tunnel = (line.is_some() && request.headers().contains_key(UPGRADE)).then(TunnelLine::default);
        if let Some(tunnel) = &tunnel {
            request.extensions_mut().insert(tunnel.clone());
            request.extensions_mut().insert(UntilClosed(Arc::new(tunnel.clone())));
        }
        request.headers_mut().insert(state.request_id.clone(), id.clone());
        let method = request.method().clone();
        let context = Context { id, client: Some(client), actor: None, trace: trace.trace().clone() };
        Self { context, line, tunnel, method, trace }
    }

    /// The context for the code that works on the request.
    pub(super) fn context(&self) -> Context {
        self.context.clone()
    }

    /// Completes the record with the response.
    pub(super) fn complete(
        self,
        state: &State,
        mut response: Response<ReplyBody>,
        verdict: Option<&Verdict>,
        now: Duration,
    ) -> Response<LoggedBody> {
        let Self { context: Context { id, .. }, line, tunnel, method, trace } = self;
        trace.end(&method, response.status(), metrics::outcome(verdict), verdict);
        let media = response.headers().get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        let (is_problem, is_grpc, is_events) = (media == PROBLEM, media.starts_with(GRPC), media.starts_with(EVENTS));
        if is_problem && let Some(bytes) = response.body_mut().own_bytes(ProxyBody::own_bytes) {
            add_request_id(bytes, &id);
        }
        response.headers_mut().insert(state.request_id.clone(), id);
        let kind = if is_events { Some(StreamKind::Events) } else { is_grpc.then_some(StreamKind::Grpc) };
        let stream = kind.map(|kind| DrainedStream::new(kind, state.drain.clone()));
        let Some(mut line) = line else { return response.map(|body| LoggedBody { body, line: None, stream }) };
        let status = response.status();
        let reason = metrics::outcome(verdict);
        let upstream = verdict.and_then(|verdict| verdict.route.as_ref()?.upstream);
        match (upstream, response.body().inner_ref().map(ProxyBody::sent)) {
            (Some(upstream), Some((address, attempts, took))) => state.proxy.with_name(upstream, |upstream| {
                let sent = UpstreamInfo { upstream, address, attempts, took };
                line.set_response(now, status, reason, verdict, Some(&sent));
            }),
            (Some(_) | None, _) => line.set_response(now, status, reason, verdict, None),
        }
        // A response without a message has its status here, not in trailers.
        if is_grpc {
            line.set_grpc_status(response.headers().get(&GRPC_STATUS));
        }
        if let Some(tunnel) = tunnel.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS) {
            tunnel.begin(line);
            return response.map(|body| LoggedBody { body, line: None, stream: None });
        }
        if is_events {
            line.begin_stream();
        }
        let is_bare = method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare || response.body().is_end_stream() {
            line.set_end("complete");
        }
        response.map(|body| LoggedBody { body, line: Some(line), stream })
    }
}

/// Adds the request id to a problem document (RFC 9457) of the gate.
fn add_request_id(problem: &mut Bytes, id: &HeaderValue) {
    if let Some(document) = problem.strip_suffix(b"}") {
        *problem = [document, b",\"request_id\":\"", id.as_bytes(), b"\"}"].concat().into();
    }
}

pin_project! {
    /// A response body whose end writes the access-log line.
    #[derive(Debug)]
    pub(super) struct LoggedBody {
        #[pin]
        body: ReplyBody,
        line: Option<AccessLogLine>,
        // If the reply may have no end of its own.
        stream: Option<DrainedStream>,
    }
}

impl Body for LoggedBody {
    type Data = <ReplyBody as Body>::Data;
    type Error = <ReplyBody as Body>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Polled<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        if this.stream.as_ref().is_some_and(DrainedStream::is_over) {
            return Poll::Ready(None);
        }
        let next = this.body.as_mut().poll_frame(cx);
        if next.is_pending()
            && let Some(stream) = this.stream
            && let Poll::Ready(trailers) = stream.poll_end(cx)
        {
            if let Some(line) = this.line {
                line.set_grpc_status(trailers.as_ref().and_then(|trailers| trailers.get(&GRPC_STATUS)));
                line.set_end("shutdown");
            }
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Some(line) = this.line else { return next };
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    line.add_sent(data.remaining());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    line.set_grpc_status(trailers.get(&GRPC_STATUS));
                }
                if this.body.is_end_stream() {
                    line.set_end(this.body.cut().unwrap_or("complete"));
                } else if this.body.size_hint().exact().is_none() {
                    line.body_continues();
                }
            }
            Poll::Ready(None) => line.set_end(this.body.cut().unwrap_or("complete")),
            Poll::Ready(Some(Err(_))) => line.set_end(this.body.cut().unwrap_or("upstream")),
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(DrainedStream::is_over) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
