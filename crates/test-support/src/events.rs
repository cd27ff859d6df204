//! Collects the events of a test's thread.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// The fields of an event, including `message`.
pub type Fields = BTreeMap<&'static str, String>;

pub struct Events {
    seen: Arc<Mutex<Vec<Fields>>>,
    _guard: DefaultGuard,
}

impl Events {
    #[must_use]
    pub fn collect(wanted: fn(&Metadata<'_>) -> bool) -> Self {
        // With a single subscriber, tracing would apply the interest of that subscriber to all threads. A concurrent
        // test could then disable the event. With two subscribers, tracing queries the interest of each one.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
        let seen = Arc::default();
        let guard = tracing::subscriber::set_default(Collector { wanted, seen: Arc::clone(&seen) });
        Self { seen, _guard: guard }
    }

    #[must_use]
    pub fn taken(&self) -> Vec<Fields> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

struct Collector {
    wanted: fn(&Metadata<'_>) -> bool,
    seen: Arc<Mutex<Vec<Fields>>>,
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (self.wanted)(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        self.seen.lock().unwrap().push(fields);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
