//! The collector, and the received spans.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

pub(super) type Spans = Vec<Value>;

pub(super) struct Collector {
    process: Child,
    input: ChildStdin,
    output: Receiver<Value>,
    ports: Value,
    is_tls: bool,
}

impl Collector {
    /// Starts a collector that accepts batches (`ok`), refuses them (`fail`) or answers late (`hold`), by `mode`.
    pub(super) fn start(mode: &str) -> Self {
        Self::with_tls(mode, None)
    }

    /// With a certificate and its key.
    pub(super) fn with_tls(mode: &str, pair: Option<[&Path; 2]>) -> Self {
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/traces");
        let cache = support::clients::installed("traces");
        let mut command = Command::new(cache.join("bin/python3"));
        command.arg(source.join("collector.py")).args(pair.into_iter().flatten());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        writeln!(input, "{mode}").unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        // Reads the output at once: with a full pipe, the collector would answer no request.
        let (lines, output) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map(Result::unwrap) {
                let _ = lines.send(serde_json::from_str(&line).expect(&line));
            }
        });
        let ports: Value = output.recv().expect("the collector did not start");
        Self { process, input, output, ports, is_tls: pair.is_some() }
    }

    pub(super) fn url(&self, protocol: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports[protocol])
    }

    /// Waits for the next line: a span, or a batch that is held.
    pub(super) fn next(&self) -> Value {
        self.output.recv().expect("the collector ended")
    }

    /// Makes the collector answer held batches and later ones.
    pub(super) fn release(&mut self) {
        writeln!(self.input, "go on").unwrap();
    }

    /// Ends the collector. Returns the received spans that no call has returned yet.
    pub(super) fn end(self) -> Spans {
        let Self { mut process, input, output, .. } = self;
        drop(input);
        let mut spans: Spans = output.iter().collect();
        assert!(process.wait().unwrap().success());
        spans.sort_by_key(|span| span["begun"].as_u64());
        spans
    }
}

/// The one span of this name.
pub(super) fn named<'a>(spans: &'a Spans, name: &str) -> &'a Value {
    let all: Vec<_> = spans.iter().filter(|span| span["name"] == name).collect();
    assert_eq!(all.len(), 1, "{name}: {spans:#?}");
    all[0]
}

/// The child spans of a span, in the same trace.
pub(super) fn children(spans: &Spans, parent: &Value) -> Spans {
    let inside: Spans = spans.iter().filter(|span| span["parent"] == parent["span"]).cloned().collect();
    assert!(inside.iter().all(|span| span["trace"] == parent["trace"]), "{inside:#?}");
    inside
}
