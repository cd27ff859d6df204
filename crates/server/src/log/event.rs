//! Application log lines from `tracing` events.

use std::fmt::{self, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as Around;

use super::audit::{TARGET, Trail, TrailEntry};
use super::line::LogLine;
use super::recent;
use super::writer::Sink;
use rotogate_config::LogFormat;
use rotogate_core::context::{Actor, Context};

pub(super) struct EventWriter {
    pub(super) outputs: Arc<ArcSwap<Outputs>>,
    pub(super) trail: Arc<Trail>,
}

pub(super) struct Outputs {
    pub(super) sink: Arc<Sink>,
    pub(super) format: LogFormat,
    /// The separate output of the audit trail, always in JSON.
    pub(super) audit: Option<Arc<Sink>>,
    /// Whether the log level is written in color.
    pub(super) colours: bool,
}

impl<S: Subscriber> Layer<S> for EventWriter {
    fn on_event(&self, event: &Event<'_>, _: Around<'_, S>) {
        let meta = event.metadata();
        let is_audit = meta.target() == TARGET;
        let outputs = self.outputs.load();
        let own_sink = outputs.audit.as_ref().filter(|_| is_audit);
        let format = if own_sink.is_some() { LogFormat::Json } else { outputs.format };
        let micros = rotogate_core::clock::wall_micros();
        let mut fields = Fields { message: String::new(), rest: Vec::new() };
        event.record(&mut fields);
        let entry = is_audit.then(|| {
            let event = fields.rest.iter().find_map(|(name, value)| match value {
                FieldValue::Text(event) if *name == "event" => Some(event.as_str()),
                _ => None,
            });
            self.trail.enter(event.unwrap_or_default(), micros)
        });
        let colours = outputs.colours;
        let line = |format| self.line((format, colours), meta, &fields, entry.as_ref(), micros);
        if is_audit {
            line(LogFormat::Json).end(recent::keep);
        }
        let is_important = *meta.level() <= Level::WARN || is_audit;
        line(format).end(|bytes| own_sink.unwrap_or(&outputs.sink).application(bytes, is_important));
    }
}

impl EventWriter {
    /// `entry` is `Some` if the event belongs to the audit trail.
    fn line(
        &self,
        (format, colours): (LogFormat, bool),
        meta: &Metadata<'_>,
        fields: &Fields,
        entry: Option<&TrailEntry>,
        micros: u64,
    ) -> LogLine {
        let is_audit = entry.is_some();
        let mut line = LogLine::new(format, micros);
        match format {
            LogFormat::Json => {
                line.word("level", meta.level().as_str());
                line.own("target", meta.target());
                if !fields.message.is_empty() {
                    line.own("message", &fields.message);
                }
            }
            LogFormat::Text => {
                let level = meta.level().as_str();
                match colours {
                    true => line.raw(&format!(" \u{1b}[{}m{level:>5}\u{1b}[0m", colour(*meta.level()))),
                    false => line.raw(&format!(" {level:>5}")),
                }
                line.lead(meta.target());
                line.raw(":");
                if !fields.message.is_empty() {
                    line.lead(&fields.message);
                }
            }
        }
        if let Some(entry) = entry {
            let outcome = fields.rest.iter().find_map(|(name, value)| match value {
                FieldValue::Text(outcome) if *name == OUTCOME => Some(outcome.as_str()),
                _ => None,
            });
            self.trail.begin(&mut line, entry, outcome);
        }
        for (name, value) in &fields.rest {
            if is_audit && ["event", OUTCOME].contains(name) {
                continue;
            }
            if is_audit && name.ends_with(".address") {
                if let FieldValue::Text(text) = value
                    && let Some(shown) = text.parse().ok().and_then(|address| self.trail.address(address))
                {
                    line.address(*name, shown);
                }
                continue;
            }
            match value {
                FieldValue::Text(text) => line.own(*name, text),
                FieldValue::Unsigned(number) => line.number(*name, *number),
                FieldValue::Signed(number) => line.signed(*name, *number),
                FieldValue::Flag(flag) => line.flag(*name, *flag),
            }
        }
        let has = |name| fields.rest.iter().any(|(known, _)| *known == name);
        if let Some(context) = Context::current() {
            line.bytes("http.request.id", context.id().as_bytes());
            context.trace().log(|name, value| line.word(name, value));
            let shown = |client| if is_audit { self.trail.address(client) } else { Some(client) };
            if let Some(client) = context.client().filter(|_| !has(CLIENT_ADDRESS)).and_then(shown) {
                line.address(CLIENT_ADDRESS, client);
            }
            // The actor is written only to the audit trail.
            if let Some(Actor { name, role, via }) = context.actor().filter(|_| is_audit && !has(ACTOR)) {
                line.own(ACTOR, name);
                line.word("rotogate.actor.role", role);
                line.word("rotogate.actor.via", via);
            }
        } else if is_audit && !has(ACTOR) {
            line.own(ACTOR, self.trail.actor());
        }
        line
    }
}

const CLIENT_ADDRESS: &str = "client.address";
const OUTCOME: &str = "event.outcome";
const ACTOR: &str = "rotogate.actor";

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

enum FieldValue {
    Text(String),
    Unsigned(u64),
    Signed(i64),
    Flag(bool),
}

struct Fields {
    message: String,
    rest: Vec<(&'static str, FieldValue)>,
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.push((field.name(), FieldValue::Signed(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push((field.name(), FieldValue::Unsigned(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.push((field.name(), FieldValue::Flag(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.rest.push((field.name(), FieldValue::Text(value.to_owned())));
        }
    }

    /// Also records `Display` values.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // A write into memory does not fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.rest.push((field.name(), FieldValue::Text(format!("{value:?}"))));
        }
    }
}
