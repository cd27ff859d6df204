//! Sends finished spans to the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::transport::{OtlpHttp, channel, with_headers};
use super::{COUNTS, Credentials};
use rotogate_config::{TraceProtocol, TracingConfig};
use rotogate_core::clock::{SystemTime, TimeSource};

/// The minimum interval between log messages about unsent spans.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Runs OpenTelemetry's exporter on the gate's runtime, because the batch processor's thread has none.
pub(super) struct Exporter {
    otlp: Arc<Otlp>,
    runtime: Handle,
    timeout: Duration,
    endpoint: String,
    queued: Arc<AtomicUsize>,
    time: SystemTime,
    reported: Mutex<Option<Duration>>,
}

rotogate_core::debug_with!(Exporter { endpoint });

impl Exporter {
    /// Call this function within a Tokio runtime.
    ///
    /// # Errors
    /// Returns the faulty configuration key, and a description of the problem.
    pub(super) fn new(
        settings: &TracingConfig,
        credentials: Credentials,
        queued: Arc<AtomicUsize>,
    ) -> Result<Self, (&'static str, String)> {
        let at_endpoint = |message: String| ("tracing.endpoint", message);
        let endpoint = settings.endpoint.to_string();
        let otlp = match settings.protocol {
            TraceProtocol::Http => Otlp::builder()
                .with_http()
                .with_http_client(OtlpHttp::new(&settings.endpoint, &credentials).map_err(at_endpoint)?)
                .with_endpoint(&endpoint)
                .with_protocol(Protocol::HttpBinary)
                .with_timeout(settings.timeout)
                .build(),
            TraceProtocol::Grpc => Otlp::builder()
                .with_tonic()
                .with_channel(channel(&settings.endpoint, &credentials).map_err(at_endpoint)?)
                .with_interceptor(with_headers(credentials.headers))
                .with_timeout(settings.timeout)
                .build(),
        };
        Ok(Self {
            otlp: Arc::new(otlp.map_err(|error| at_endpoint(error.to_string()))?),
            runtime: Handle::current(),
            timeout: settings.timeout,
            endpoint,
            queued,
            time: SystemTime::new(),
            reported: Mutex::new(None),
        })
    }

    fn report(&self, error: &OTelSdkError, spans: usize) {
        let now = self.time.monotonic();
        let mut reported = self.reported.lock();
        if reported.is_some_and(|last| now.saturating_sub(last) < REPORT_INTERVAL) {
            return;
        }
        *reported = Some(now);
        tracing::warn!(endpoint = self.endpoint, spans, %error, "spans not sent to the collector");
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (spans, otlp, timeout) = (batch.len(), Arc::clone(&self.otlp), self.timeout);
        let sending = self.runtime.spawn(async move { tokio::time::timeout(timeout, otlp.export(batch)).await });
        let sent = match sending.await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(timeout)),
            Err(_) => Err(OTelSdkError::InternalFailure("the gate is stopping, or the exporter failed".to_owned())),
        };
        // Subtract only now, because a span that is being sent still takes memory.
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        match &sent {
            Ok(()) => COUNTS.sent.fetch_add(spans as u64, Ordering::Relaxed),
            Err(error) => {
                self.report(error, spans);
                COUNTS.not_sent.fetch_add(spans as u64, Ordering::Relaxed)
            }
        };
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // The resource is set before the exporter is shared.
        if let Some(otlp) = Arc::get_mut(&mut self.otlp) {
            otlp.set_resource(resource);
        }
    }
}
