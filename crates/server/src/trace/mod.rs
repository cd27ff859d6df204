//! Decides which requests are traced, and records a request's span. `docs/traces.md` describes traces for operators.
//!
//! The gate decides whether to record a request before it creates any span. A request that is not recorded costs only
//! the handling of `traceparent`.
//!
//! This module creates span data for the batch processor of the OpenTelemetry SDK. The SDK's tracer and `tracing` spans
//! are not used, because they decide about each span separately. This module takes the parent from the request's
//! context.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Version};

use rotogate::gate::{Reason, Verdict};
use rotogate_core::token::verify::beginning;
use rotogate_core::trace::{Position, Span, TRACEPARENT, TRACESTATE, Trace, Value};
use rotogate_proxy::known_method;

#[cfg(feature = "otel")]
mod credentials;
#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod recorder;
#[cfg(feature = "otel")]
mod transport;

#[cfg(feature = "otel")]
pub(crate) use credentials::Credentials;
#[cfg(not(feature = "otel"))]
pub use none::Tracer;
#[cfg(feature = "otel")]
pub use recorder::Tracer;

/// The maximum length of a client's string in an attribute, in bytes.
const MAX_FOREIGN_BYTES: usize = 256;

/// The known flags mean that the trace is sampled, and that the trace id is random. Other flags are sent as zero.
const KNOWN_FLAGS: u8 = 3;

pub(crate) static COUNTS: SpanCounts =
    SpanCounts { sent: AtomicU64::new(0), queue_full: AtomicU64::new(0), not_sent: AtomicU64::new(0) };

#[derive(Debug)]
pub(crate) struct SpanCounts {
    sent: AtomicU64,
    queue_full: AtomicU64,
    not_sent: AtomicU64,
}

impl SpanCounts {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self) -> [(&'static str, u64); 2] {
        [("queue_full", self.queue_full.load(Ordering::Relaxed)), ("not_sent", self.not_sent.load(Ordering::Relaxed))]
    }
}

/// Facts about a request that a span records in addition to the request head.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// Whether the peer is a trusted proxy.
    pub is_trusted: bool,
    /// Whether the request has a `traceparent`.
    pub is_traced: bool,
    /// The time when the request began, in microseconds since 1970.
    pub micros: u64,
    /// The id of the request.
    pub id: &'a HeaderValue,
    /// The address of the client, behind trusted proxies.
    pub client: std::net::IpAddr,
    /// The address of the connection's peer.
    pub peer: std::net::IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The trace of a request, and its span if it is recorded. A drop before the response means that the client
/// disconnected.
#[derive(Debug)]
pub struct RequestTrace {
    trace: Trace,
    names_user: bool,
}

impl RequestTrace {
    /// Decides whether a request is recorded, and sets `traceparent` and `tracestate` for the upstream.
    pub fn begin<B>(tracer: Option<&Arc<Tracer>>, request: &mut Request<B>, facts: &RequestFacts<'_>) -> Self {
        let given = facts.is_traced.then(|| Position::from_headers(request.headers())).flatten();
        let Some(tracer) = tracer else {
            // Without tracing, both headers are passed on unchanged.
            let trace = given.map_or(Trace::None, |given| Trace::Unrecorded { id: given.trace, flags: None });
            return Self { trace, names_user: false };
        };
        let (position, parent) = match given {
            Some(parent) if facts.is_trusted => {
                if !parent.is_sampled() {
                    let trace = Trace::Unrecorded { id: parent.trace, flags: Some(parent.flags) };
                    return Self { trace, names_user: false };
                }
                (Position { span: random_span(), flags: parent.flags & KNOWN_FLAGS, ..parent }, Some(parent))
            }
            _ => {
                // The gate does not continue the client's trace, so it removes `tracestate`.
                request.headers_mut().remove(&TRACESTATE);
                let trace = random_trace();
                let flags = u8::from(tracer.samples(trace));
                let position = Position { trace, span: random_span(), flags };
                if flags == 0 {
                    request.headers_mut().insert(TRACEPARENT, position.header());
                    return Self { trace: Trace::Unrecorded { id: trace, flags: Some(flags) }, names_user: false };
                }
                (position, None)
            }
        };
        let name = known_method(request.method()).unwrap_or("HTTP");
        let link = given.filter(|_| parent.is_none());
        let span = tracer.server_span(name, position, (parent, link), request.headers(), facts.micros);
        describe(&*span, request, facts);
        // The upstream's span gets this span as its parent.
        request.headers_mut().insert(TRACEPARENT, position.header());
        Self { trace: Trace::Recorded(span), names_user: tracer.names_user() }
    }

    /// Returns the trace, for log lines and for the spans of single steps.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Ends the span with the properties of the response.
    pub fn end(self, method: &Method, status: StatusCode, reason: Reason, verdict: Option<&Verdict>) {
        let Some(span) = self.trace.span() else { return };
        span.set("http.response.status_code", Value::Number(i64::from(status.as_u16())));
        if reason.is_served() && status.is_server_error() {
            span.set_error(status.as_str(), true);
        } else if !reason.is_served() {
            span.set_error(reason.word(), status.is_server_error());
        }
        if let Some(detail) = reason.detail() {
            span.set("rotogate.detail", Value::Fixed(detail));
        }
        if let Some(verdict) = verdict {
            if let Some(route) = &verdict.route {
                span.rename(format!("{} {}", known_method(method).unwrap_or("HTTP"), route.path));
                span.set("http.route", Value::Text(&route.path));
                span.set("rotogate.route", Value::Text(&route.id));
            }
            if let Some((dialect, operation)) = verdict.operation() {
                span.set("rotogate.dialect", Value::Fixed(dialect));
                span.set("rotogate.operation", Value::Fixed(operation));
            }
            if let Some(user) = verdict.subject().filter(|_| self.names_user) {
                span.set("user.id", Value::Text(user));
            }
        }
        span.end();
    }
}

impl Drop for RequestTrace {
    fn drop(&mut self) {
        if let Some(span) = self.trace.span() {
            // No effect if the span has already ended.
            span.set_error(Reason::CLIENT_GONE.word(), false);
            span.end();
        }
    }
}

/// Sets the attributes from the request head, without the query.
fn describe<B>(span: &dyn Span, request: &Request<B>, facts: &RequestFacts<'_>) {
    let text =
        |key, bytes: &[u8]| span.set(key, Value::Text(beginning(&String::from_utf8_lossy(bytes), MAX_FOREIGN_BYTES)));
    match known_method(request.method()) {
        Some(method) => span.set("http.request.method", Value::Fixed(method)),
        None => {
            span.set("http.request.method", Value::Fixed("_OTHER"));
            text("http.request.method_original", request.method().as_str().as_bytes());
        }
    }
    text("url.path", &crate::log::without_key(request.uri().path().as_bytes()));
    span.set("url.scheme", Value::Fixed(facts.scheme));
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    if let Some(host) = authority.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes)) {
        text("server.address", host);
    }
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    span.set("network.protocol.version", Value::Fixed(version));
    span.set("client.address", Value::Text(&facts.client.to_string()));
    span.set("network.peer.address", Value::Text(&facts.peer.to_string()));
    if let Some(agent) = request.headers().get(USER_AGENT) {
        text("user_agent.original", agent.as_bytes());
    }
    text("http.request.id", facts.id.as_bytes());
}

/// Returns a new trace id. The id is not a secret, and is never zero.
fn random_trace() -> [u8; 16] {
    fastrand::u128(1..).to_be_bytes()
}

fn random_span() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}
