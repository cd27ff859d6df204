//! Records spans, and passes them to OpenTelemetry's batch processor.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime as WallTime, UNIX_EPOCH};

use http::HeaderMap;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use parking_lot::Mutex;

use super::export::Exporter;
use super::{COUNTS, Credentials, random_span};
use rotogate_config::{Config, TracingConfig};
use rotogate_core::clock::{SystemTime, TimeSource, wall_micros};
use rotogate_core::trace::{Position, Span, StepKind, TRACESTATE, Value};
use rotogate_kit::file_stamp::Stamp;

/// How long to wait for a collector when the process stops or the configuration changes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BATCH: usize = 512;
/// The initial capacity for attributes.
const USUAL_ATTRIBUTES: usize = 24;

/// `service.instance.id`, which identifies the process across reloads.
static INSTANCE: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());

/// Records requests under one configuration.
#[derive(Debug)]
pub struct Tracer {
    recorder: Arc<Recorder>,
    /// Traces with an id below this number are recorded.
    below: u64,
    settings: TracingConfig,
    /// The state of the files when they were read.
    stamps: Vec<Stamp>,
}

impl Tracer {
    /// Returns the tracer for a configuration, or the running tracer if nothing changed. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// Returns the faulty configuration key, and a description of the problem.
    pub fn start(config: &Config, running: Option<&Arc<Self>>) -> Result<Option<Arc<Self>>, (&'static str, String)> {
        let Some(settings) = &config.tracing else { return Ok(None) };
        let stamps = Credentials::stamps(settings);
        if let Some(running) = running
            && (&running.settings, &running.stamps) == (settings, &stamps)
        {
            return Ok(Some(Arc::clone(running)));
        }
        let recorder = Recorder::start(settings, Credentials::read(settings)?)?;
        let (recorder, below) = (Arc::new(recorder), threshold(settings.sample));
        Ok(Some(Arc::new(Self { recorder, below, settings: settings.clone(), stamps })))
    }

    /// Returns whether a new trace is recorded. Other programs with the same ratio make the same decision
    /// (`TraceIdRatioBased` of OpenTelemetry).
    pub(super) fn samples(&self, trace: [u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.below
    }

    pub(super) const fn names_user(&self) -> bool {
        self.settings.identity
    }

    /// Begins the span of a request. `parent` is a span in another process. `link` is from an untrusted client.
    pub(super) fn server_span(
        &self,
        name: &'static str,
        position: Position,
        (parent, link): (Option<Position>, Option<Position>),
        headers: &HeaderMap,
        micros: u64,
    ) -> Arc<dyn Span> {
        let states = parent.map(|_| headers.get_all(&TRACESTATE).iter().filter_map(|value| value.to_str().ok()));
        let states = states.map(|states| states.collect::<Vec<_>>().join(",")).unwrap_or_default();
        // A malformed `tracestate` is dropped, but the trace continues.
        let state: TraceState = states.parse().unwrap_or_default();
        let mut links = SpanLinks::default();
        links.links.extend(link.map(|link| Link::with_context(context(link, true, TraceState::default()))));
        let at = context(position, false, state);
        let begun = UNIX_EPOCH + Duration::from_micros(micros);
        let data = self.recorder.data(SpanKind::Server, name, (at.clone(), begun), parent.map(|parent| parent.span));
        let data = SpanData { parent_span_is_remote: parent.is_some(), links, ..data };
        Arc::new(RecordedSpan::new(Arc::clone(&self.recorder), position, at, data))
    }

    /// Sends the recorded spans within a limited time. Later spans are not recorded.
    pub async fn flush(&self) {
        let recorder = Arc::clone(&self.recorder);
        // If the collector takes longer, the thread ends with the process.
        let _ = tokio::task::spawn_blocking(move || recorder.shut_down()).await;
    }
}

/// The trace ids below the threshold are sampled.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the product is within u64")]
fn threshold(sample: f64) -> u64 {
    if sample >= 1.0 { u64::MAX } else { (sample * 2f64.powi(63)) as u64 }
}

fn context(Position { trace, span, flags }: Position, is_remote: bool, state: TraceState) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    SpanContext::new(trace, span, TraceFlags::new(flags), is_remote, state)
}

/// Receives finished spans. Dropping it sends the remaining spans.
struct Recorder {
    /// `None` while the recorder is being dropped.
    processor: Option<BatchSpanProcessor>,
    queued: Arc<AtomicUsize>,
    queue: usize,
    scope: InstrumentationScope,
    time: SystemTime,
}

rotogate_core::debug_with!(Recorder { queued });

impl Recorder {
    fn start(settings: &TracingConfig, credentials: Credentials) -> Result<Self, (&'static str, String)> {
        let queued = Arc::new(AtomicUsize::new(0));
        let exporter = Exporter::new(settings, credentials, Arc::clone(&queued))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(MAX_BATCH.min(settings.queue))
            .with_scheduled_delay(settings.flush_interval)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(&resource(settings));
        let scope = InstrumentationScope::builder("rotogate").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor: Some(processor), queued, queue: settings.queue, scope, time: SystemTime::new() })
    }

    fn data(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        (at, begun): (SpanContext, WallTime),
        parent: Option<[u8; 8]>,
    ) -> SpanData {
        SpanData {
            span_context: at,
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: begun,
            end_time: begun,
            attributes: Vec::with_capacity(USUAL_ATTRIBUTES),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Receives a finished span without waiting. If the queue is full, the span is dropped and counted. The processor
    /// does not report when its own queue is full.
    fn take(&self, span: SpanData) {
        let Some(processor) = &self.processor else { return };
        if self.queued.fetch_add(1, Ordering::Relaxed) >= self.queue {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            COUNTS.queue_full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        processor.on_end(span);
    }

    fn shut_down(&self) {
        if let Some(processor) = &self.processor {
            // The exporter has already reported the unsent spans.
            let _ = processor.shutdown_with_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(processor) = self.processor.take() else { return };
        // The recorder may be dropped by a request, which must not wait for the collector.
        let end = move || drop(processor.shutdown_with_timeout(FLUSH_TIMEOUT));
        let _ = std::thread::Builder::new().name("trace-flush".to_owned()).spawn(end);
    }
}

fn resource(settings: &TracingConfig) -> Resource {
    let given = Resource::builder().build();
    let own = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", INSTANCE.as_str())];
    let missing = own.into_iter().filter(|(key, _)| given.get(&Key::from_static_str(key)).is_none());
    let missing = missing.map(|(key, value)| KeyValue::new(key, value));
    Resource::builder().with_service_name(settings.service_name.clone()).with_attributes(missing).build()
}

struct RecordedSpan {
    recorder: Arc<Recorder>,
    position: Position,
    context: SpanContext,
    begun: Duration,
    /// `None` after the span's end.
    data: Mutex<Option<SpanData>>,
}

rotogate_core::debug_with!(RecordedSpan { position });

impl RecordedSpan {
    fn new(recorder: Arc<Recorder>, position: Position, context: SpanContext, data: SpanData) -> Self {
        let begun = recorder.time.monotonic();
        Self { recorder, position, context, begun, data: Mutex::new(Some(data)) }
    }

    fn with(&self, work: impl FnOnce(&mut SpanData)) {
        self.data.lock().as_mut().map(work);
    }
}

impl Span for RecordedSpan {
    fn position(&self) -> Position {
        self.position
    }

    fn child(&self, kind: StepKind, name: &'static str) -> Arc<dyn Span> {
        let kind = match kind {
            StepKind::Internal => SpanKind::Internal,
            StepKind::Client => SpanKind::Client,
        };
        let position = Position { span: random_span(), ..self.position };
        let at = context(position, false, self.context.trace_state().clone());
        let begun = UNIX_EPOCH + Duration::from_micros(wall_micros());
        let data = self.recorder.data(kind, name, (at.clone(), begun), Some(self.position.span));
        Arc::new(Self::new(Arc::clone(&self.recorder), position, at, data))
    }

    fn set(&self, key: &'static str, value: Value<'_>) {
        let value = match value {
            Value::Fixed(text) => KeyValue::new(key, text),
            Value::Text(text) => KeyValue::new(key, text.to_owned()),
            Value::Number(number) => KeyValue::new(key, number),
        };
        self.with(|data| data.attributes.push(value));
    }

    fn rename(&self, name: String) {
        self.with(|data| data.name = name.into());
    }

    fn set_error(&self, error: &str, failed: bool) {
        self.with(|data| {
            data.attributes.push(KeyValue::new("error.type", error.to_owned()));
            if failed {
                data.status = Status::error("");
            }
        });
    }

    fn end(&self) {
        let Some(mut data) = self.data.lock().take() else { return };
        // The monotonic clock is never adjusted.
        data.end_time = data.start_time + self.recorder.time.monotonic().saturating_sub(self.begun);
        self.recorder.take(data);
    }
}

impl Drop for RecordedSpan {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry::Context;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    use super::*;

    proptest::proptest! {
        #[test]
        fn p45_a_position_is_what_opentelemetry_reads(
            text in "(00|00|01|cc|ff)-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{1,3})?"
        ) {
            let headers = HashMap::from([("traceparent".to_owned(), text.clone())]);
            let theirs = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
            let theirs = theirs.span().span_context().clone();
            match Position::parse(text.as_bytes()) {
                Some(ours) => {
                    proptest::prop_assert_eq!(ours.trace, theirs.trace_id().to_bytes());
                    proptest::prop_assert_eq!(ours.span, theirs.span_id().to_bytes());
                    proptest::prop_assert_eq!(ours.is_sampled(), theirs.is_sampled());
                }
                // OpenTelemetry also reads shorter ids.
                None => proptest::prop_assert!(!theirs.is_valid() || text.split('-').nth(1).unwrap().len() != 32),
            }
        }
    }

    #[test]
    fn p45_the_part_of_traces_that_is_recorded_is_decided_by_their_names() {
        assert_eq!((threshold(0.0), threshold(1.0)), (0, u64::MAX));
        assert_eq!(threshold(0.5), 1 << 62);
        let part =
            |sample: f64| (0..100_000).filter(|_| u64::from_be_bytes(random_span()) >> 1 < threshold(sample)).count();
        assert_eq!((part(0.0), part(1.0)), (0, 100_000));
        assert!((9_000..11_000).contains(&part(0.1)), "ten standard deviations");
    }
}
