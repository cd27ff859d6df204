//! What an application's log says of its own mistakes.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use rotogate::gate::NewSession;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The warnings, each with its fields.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut Line(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn o50_a_client_that_the_application_did_not_register_is_named_with_the_remedy() {
    let gate = crate::gate().await;
    let warnings = Warnings::default();
    let lines = || warnings.0.lock().unwrap().clone();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    assert_eq!(lines(), Vec::<String>::new());
    gate.sessions().start(NewSession::new("ada", "mobile")).await.unwrap_err();
    let lines = lines();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("client=\"mobile\"") && line.contains("GateBuilder::client"), "{line}");
}
