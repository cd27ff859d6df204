//! A collector that does not answer costs spans, and nothing else.

use serde_json::Value;

use super::collector::Collector;
use super::{lines, stopped, traced};

/// Each request to an upstream has two spans.
const SPANS: u64 = 2;
/// The smallest queue.
const QUEUE: u64 = 512;
const REQUESTS: u64 = 1000;

/// Sends requests over one connection, each after the answer to the last.
fn ask_many(edge: &support::stub::Edge) {
    let mut wire = edge.wire();
    for number in 0..REQUESTS {
        wire.head(&format!("GET /public/{number}"), &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 200, "{number}");
    }
}

#[test]
fn p48_a_collector_that_hangs_delays_no_request_and_what_it_does_not_take_is_counted() {
    for protocol in ["http", "grpc"] {
        let mut collector = Collector::start("hold");
        let section = format!(
            "for_tests.protocol = \"{protocol}\"\nendpoint = \"{}\"\nfor_tests.queue = {QUEUE}\nfor_tests.timeout = \"60s\"",
            collector.url(protocol)
        );
        let edge = traced(&section, "");
        assert_eq!(edge.ask("GET /public/first", &[]).status, 200);
        // From here on the collector has a batch, and holds its answer.
        let held = collector.next()["held"].as_u64().unwrap();
        assert!((1..=SPANS).contains(&held), "{held}");
        ask_many(&edge);
        let metrics = edge.metrics();
        assert!(metrics.contains("\nrotogate_trace_spans_total 0\n"), "{metrics}");
        let dropped = edge.series("rotogate_trace_dropped_spans_total{cause=\"queue_full\"}");
        assert_eq!(dropped, SPANS * (REQUESTS + 1) - QUEUE, "the queue has the others, those under way among them");
        collector.release();
        let spans = stopped(edge, collector);
        let taken: Vec<_> = spans.iter().filter(|span| span.get("held").is_none()).collect();
        assert_eq!(taken.len() as u64, QUEUE);
    }
}

#[test]
fn p48_a_collector_that_never_answers_does_not_keep_the_gate_from_stopping() {
    let collector = Collector::start("hold");
    let edge = traced(&format!("endpoint = \"{}\"\nfor_tests.timeout = \"60s\"", collector.url("http")), "");
    assert_eq!(edge.ask("GET /public/first", &[]).status, 200);
    assert!(collector.next()["held"].is_u64());
    ask_many(&edge);
    let support::stub::Edge { gate, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn p48_what_a_collector_refuses_is_counted_and_said_once() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start("fail");
        let section = format!("for_tests.protocol = \"{protocol}\"\nendpoint = \"{}\"", collector.url(protocol));
        let edge = traced(&section, "");
        let not_sent = || edge.series("rotogate_trace_dropped_spans_total{cause=\"not_sent\"}");
        for batch in 1..=2 {
            assert_eq!(edge.ask(&format!("GET /public/{batch}"), &[]).status, 200);
            while not_sent() < SPANS * batch {
                std::thread::yield_now();
            }
        }
        let said = |line: &Value| line["message"] == "spans not sent to the collector";
        let said: Vec<_> = lines(&edge).into_iter().filter(said).collect();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0]["endpoint"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{said:#?}");
        assert!(stopped(edge, collector).is_empty());
    }
}
