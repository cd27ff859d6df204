//! The record of a request: its id, access-log line, and context for log events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polled, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::drain::{DrainedStream, StreamKind};
use super::request::{ReplyBody, RequestState};
use super::route_label::{RouteLabel, RouteRef, outcome};
use super::tally::Tally;
use crate::log::refused::{self, RefusalFacts, RequestTarget};
use crate::log::{self, AccessLogLine, UpstreamFields, request_id};
use crate::server::listen::origin::Origin;
use crate::trace::{RequestFacts, RequestTrace};
use rotogate::gate::{Reason, Verdict};
use rotogate::program::{HTML, put_request_id};
use rotogate_core::clock::{SystemTime, TimeSource, wall_micros};
use rotogate_core::context::Context;
use rotogate_core::headers::{self, Present};
use rotogate_core::lease::UntilClosed;
use rotogate_core::overload::PoolPermit;
use rotogate_kit::exchange::{ExchangeEnd, ExchangeProgress, TunnelEnd};
use rotogate_proxy::ProxyBody;

const PROBLEM: &[u8] = b"application/problem+json";
const EVENTS: &[u8] = b"text/event-stream";
const GRPC: &[u8] = b"application/grpc";
/// After this time, a response of unknown length counts as a stream.
const STREAM_AFTER: Duration = Duration::from_secs(1);
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The record of a request until its response begins. If the record is dropped earlier, it logs that the client
/// disconnected.
pub(crate) struct RequestRecord {
    context: Context,
    // The line is boxed, because a record is moved several times.
    line: Option<Box<AccessLogLine>>,
    tunnel: Option<TunnelEnd>,
    received: Option<ExchangeProgress>,
    began: Duration,
    method: Method,
    target: RequestTarget,
    trace: RequestTrace,
}

impl RequestRecord {
    /// Gives the request an id, which the upstream also receives. Begins the access-log line.
    pub(crate) fn new<B>(
        state: &RequestState,
        origin: &Origin,
        (request, present): (&mut Request<B>, Present),
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
            is_traced: present.traceparent,
            micros,
            id: &id,
            client,
            peer,
            scheme: origin.peer.scheme(),
        };
        let trace = RequestTrace::begin(state.tracer.as_ref(), request, &facts);
        let mut line = log::access().map(|log| {
            let connection = (origin.log_fields(log), (client != peer).then_some(client));
            Box::new(log.begin(request, &id, (micros, began), connection))
        });
        if let Some(line) = &mut line {
            line.set_trace(trace.trace());
        }
        let tunnel = present.upgrade.then(TunnelEnd::default);
        if let Some(tunnel) = &tunnel {
            request.extensions_mut().insert(tunnel.clone());
            request.extensions_mut().insert(UntilClosed(Arc::new(tunnel.clone())));
        }
        request.headers_mut().insert(state.request_id.clone(), id.clone());
        let (method, target) = (request.method().clone(), RequestTarget::new(request));
        let context = Context::new(id, client, trace.trace().clone());
        Self { context, line, tunnel, received: received.cloned(), began, method, target, trace }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn complete(
        self,
        state: &RequestState,
        mut response: Response<ReplyBody>,
        (verdict, permit): (Option<Verdict>, Option<PoolPermit>),
        now: Duration,
    ) -> Response<LoggedBody> {
        let Self { context, mut line, tunnel, received, began, method, target, trace } = self;
        let (status, reason) = (response.status(), outcome(verdict.as_ref()));
        trace.end(&method, status, reason, verdict.as_ref());
        // A redirect leads a browser to its login, which is no incident.
        if !reason.is_served() && !status.is_redirection() {
            let route = RouteRef::borrowed_from(verdict.as_ref());
            let (context, verdict, micros) = (&context, verdict.as_ref(), wall_micros());
            let (method, target, route, upstream) = (&method, &target, route.id(), None);
            let refusal = RefusalFacts { context, method, target, status, reason, verdict, route, upstream, micros };
            keep_refused(state, &response, &refusal);
        }
        let media = response.headers().get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        let (is_grpc, is_events) = (media.starts_with(GRPC), media.starts_with(EVENTS));
        if media == PROBLEM || media == HTML.as_bytes() {
            response = identified(state, response, verdict.as_ref(), context.id());
        }
        response.headers_mut().insert(state.request_id.clone(), context.id().clone());
        let kind = if is_events { Some(StreamKind::Events) } else { is_grpc.then_some(StreamKind::Grpc) };
        let stream = kind.map(|kind| DrainedStream::new(kind, state.drain.clone()));
        if let Some(line) = &mut line {
            let upstream = verdict.as_ref().and_then(|verdict| verdict.route.as_ref()?.upstream);
            match (upstream, response.body().inner_ref().map(ProxyBody::sent)) {
                (Some(upstream), Some((address, attempts, took))) => state.proxy.with_name(upstream, |upstream| {
                    let sent = UpstreamFields { upstream, address, attempts, took };
                    line.set_response(now, status, reason, verdict.as_ref(), Some(&sent));
                }),
                (Some(_) | None, _) => line.set_response(now, status, reason, verdict.as_ref(), None),
            }
        }
        let tally = state.tally;
        let so_far = ExchangeEnd::default();
        let mut record = ReplyRecord { line, tally, route: RouteLabel::from_verdict(verdict), received, began, so_far };
        // A gRPC response without messages has its status in the headers.
        if is_grpc {
            record.so_far.set_grpc_status(response.headers().get(&GRPC_STATUS));
        }
        if let Some(tunnel) = tunnel.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS) {
            record.begin_stream();
            tunnel.begin(move |end| record.end(end));
            return response.map(|body| LoggedBody { body, record: None, stream: None, permit });
        }
        if is_events {
            record.begin_stream();
        }
        let is_bare = method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare || response.body().is_end_stream() {
            record.so_far.end = "complete";
        }
        response.map(|body| LoggedBody { body, record: Some(record), stream, permit })
    }
}

/// Keeps a refused request for the admin listener, with the name of the upstream that the request was sent to.
#[cold]
fn keep_refused(state: &RequestState, response: &Response<ReplyBody>, refusal: &RefusalFacts<'_>) {
    let upstream = refusal.verdict.and_then(|verdict| verdict.route.as_ref()?.upstream);
    match upstream.filter(|_| response.body().inner_ref().is_some()) {
        Some(upstream) => {
            state.proxy.with_name(upstream, |upstream| refused::keep(&RefusalFacts { upstream, ..*refusal }));
        }
        None => refused::keep(refusal),
    }
}

/// Records a request that the HTTP library rejected. The method and path of the request are unknown.
// Requirement T49.
pub(super) fn record_unread(state: &RequestState, origin: &Origin, status: StatusCode, reason: Reason) {
    let mut request = Request::new(());
    if let Ok(unknown) = Method::from_bytes(b"-") {
        (*request.method_mut(), *request.uri_mut()) = (unknown, Uri::from_static("*"));
    }
    let began = state.monotonic();
    let record = RequestRecord::new(state, origin, (&mut request, Present::default()), began, None);
    record.context().clone().enter(|| reason.tell());
    let verdict = Verdict::new(reason);
    let mut response = Response::<ReplyBody>::default();
    *response.status_mut() = status;
    state.tally.count_answer(Some(&verdict), status, Duration::ZERO, Duration::ZERO);
    drop(record.complete(state, response, (Some(verdict), None), began));
}

/// The record of a response. When the record is dropped, it completes the counts and the access-log line.
#[derive(Debug)]
struct ReplyRecord {
    line: Option<Box<AccessLogLine>>,
    tally: &'static Tally,
    route: RouteLabel,
    received: Option<ExchangeProgress>,
    began: Duration,
    so_far: ExchangeEnd,
}

impl ReplyRecord {
    fn begin_stream(&mut self) {
        if !self.so_far.is_stream {
            self.so_far.is_stream = true;
            if let Some(line) = &self.line {
                line.begin_stream();
            }
        }
    }

    fn end(mut self, end: &'static str) {
        self.so_far.end = end;
    }

    fn body_continues(&mut self) {
        if !self.so_far.is_stream && SystemTime::new().monotonic().saturating_sub(self.began) > STREAM_AFTER {
            self.begin_stream();
        }
    }
}

impl Drop for ReplyRecord {
    fn drop(&mut self) {
        self.so_far.received = self.received.as_ref().map_or(0, ExchangeProgress::received);
        self.tally.end(&self.route, &self.so_far);
        if let Some(line) = self.line.take() {
            line.finish(self.so_far);
        }
    }
}

/// Adds the request id to the gate's own problem document or page. A failure of the proxy becomes a page if a person reads
/// it.
fn identified(
    state: &RequestState,
    response: Response<ReplyBody>,
    verdict: Option<&Verdict>,
    id: &HeaderValue,
) -> Response<ReplyBody> {
    let (mut head, mut body) = response.into_parts();
    if let Some(bytes) = body.own_bytes(ProxyBody::own_bytes) {
        if head.headers.get(CONTENT_TYPE).is_some_and(|media| media == PROBLEM) {
            match verdict.and_then(|verdict| state.gate().page_of(verdict, head.status, &mut head.headers)) {
                Some(page) => *bytes = page,
                None => add_request_id(bytes, id),
            }
        }
        put_request_id(bytes, id.to_str().unwrap_or_default());
    }
    Response::from_parts(head, body)
}

/// Adds the request id to the gate's own problem document (RFC 9457).
fn add_request_id(problem: &mut Bytes, id: &HeaderValue) {
    if let Some(document) = problem.strip_suffix(b"}") {
        *problem = [document, b",\"request_id\":\"", id.as_bytes(), b"\"}"].concat().into();
    }
}

pin_project! {
    /// A response body that records its end.
    #[derive(Debug)]
    pub(crate) struct LoggedBody {
        #[pin]
        body: ReplyBody,
        record: Option<ReplyRecord>,
        // Set if the response may be endless.
        stream: Option<DrainedStream>,
        // The permit is kept until the body ends.
        permit: Option<PoolPermit>,
    }
}

impl LoggedBody {
    /// For gRPC responses to Envoy.
    pub(super) fn unrecorded(body: ReplyBody) -> Self {
        Self { body, record: None, stream: None, permit: None }
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
            if let Some(record) = this.record {
                record.so_far.set_grpc_status(trailers.as_ref().and_then(|trailers| trailers.get(&GRPC_STATUS)));
                record.so_far.end = "shutdown";
            }
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Some(record) = this.record else { return next };
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    record.so_far.sent = record.so_far.sent.saturating_add(data.remaining() as u64);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    record.so_far.set_grpc_status(trailers.get(&GRPC_STATUS));
                }
                if this.body.is_end_stream() {
                    record.so_far.end = this.body.cut().unwrap_or("complete");
                } else if this.body.size_hint().exact().is_none() {
                    record.body_continues();
                }
            }
            Poll::Ready(None) => record.so_far.end = this.body.cut().unwrap_or("complete"),
            Poll::Ready(Some(Err(_))) => record.so_far.end = this.body.cut().unwrap_or("upstream"),
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
