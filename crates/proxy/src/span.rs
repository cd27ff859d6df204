//! Trace spans of attempts.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};

use super::address::Address;
use super::counts::AttemptResult;
use super::error::ProxyError;
use rotogate_core::trace::{self, Span, StepKind, TRACEPARENT, Value};

/// The method, if OpenTelemetry defines it. Other methods are client input, so span names do not contain them.
pub fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

/// Dropping this value records a disconnected client.
pub(super) struct AttemptSpan(Option<Arc<dyn Span>>);

impl AttemptSpan {
    /// Begins the span and makes it the parent of the upstream's spans. `attempt` starts at 1.
    pub(super) fn begin(head: &mut Parts, upstream: &str, address: &Address, attempt: u8) -> Self {
        let method = known_method(&head.method);
        let Some(span) = trace::begin(StepKind::Client, method.unwrap_or("HTTP")) else { return Self(None) };
        head.headers.insert(TRACEPARENT, span.position().header());
        span.set("http.request.method", Value::Fixed(method.unwrap_or("_OTHER")));
        if let Some(url) = address.url.address() {
            let (scheme, host, port) = (if url.is_tls() { "https" } else { "http" }, url.name(), url.port());
            span.set("server.address", Value::Text(host));
            span.set("server.port", Value::Number(port.into()));
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            // The query may contain secrets.
            let full = format!("{scheme}://{host}:{port}{}", head.uri.path());
            span.set("url.full", Value::Text(&full));
        }
        if attempt > 1 {
            span.set("http.request.resend_count", Value::Number(i64::from(attempt) - 1));
        }
        span.set("rotogate.upstream", Value::Text(upstream));
        span.set("rotogate.upstream.address", Value::Text(address.name()));
        Self(Some(span))
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        let Some(span) = self.0.take() else { return };
        span.set("http.response.status_code", Value::Number(i64::from(status.as_u16())));
        if status.is_client_error() || status.is_server_error() {
            span.set_error(status.as_str(), true);
        }
        span.end();
    }

    pub(super) fn failed(mut self, kind: ProxyError) {
        let Some(span) = self.0.take() else { return };
        span.set_error(AttemptResult::from_error(kind).map_or("_OTHER", AttemptResult::name), true);
        span.end();
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.set_error(AttemptResult::ClientGone.name(), false);
            span.end();
        }
    }
}
