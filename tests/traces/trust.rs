//! The trace of a request, and the trace headers at the upstream.

use serde_json::{Value, json};

use super::collector::{Collector, children, named};
use super::{access, lines, stopped, traced};
use support::stub::{Edge, HEAD, ROUTES};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]";

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}")
}

/// Trace, parent and flags at the upstream.
fn forwarded(edge: &Edge) -> [String; 3] {
    let request = edge.stub.one();
    let [value] = request.all("traceparent")[..] else { panic!("{request:?}") };
    let parts: Vec<_> = value.split('-').map(str::to_owned).collect();
    let [version, trace, parent, flags] = &parts[..] else { panic!("{value}") };
    assert_eq!((version.as_str(), trace.len(), parent.len(), flags.len()), ("00", 32, 16, 2), "{value}");
    [trace.clone(), parent.clone(), flags.clone()]
}

#[test]
fn p45_p46_the_trace_of_a_trusted_proxy_goes_on_and_the_upstream_has_our_span_as_its_parent() {
    // The proxy's decision counts, whatever part of new traces is recorded.
    for sample in ["0", "1"] {
        let collector = Collector::start("ok");
        let edge = traced(&format!("sample = {sample}\nendpoint = \"{}\"", collector.url("http")), PROXY);
        let state = ["tracestate: vendor=1", "tracestate: other=2"];
        assert_eq!(edge.ask("GET /public/x", &[&[traceparent("01").as_str()], &state[..]].concat()).status, 200);
        assert_eq!(edge.stub.take()[0].all("tracestate"), ["vendor=1", "other=2"]);
        assert_eq!(edge.ask("GET /public/y", &[&traceparent("01")]).status, 200);
        let [trace, parent, flags] = forwarded(&edge);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        let line = access(&edge, "/public/y");
        let spans = stopped(edge, collector);
        let servers: Vec<_> = spans.iter().filter(|span| span["kind"] == 2).collect();
        assert_eq!(servers.len(), 2, "{spans:#?}");
        assert!(
            servers.iter().all(|span| span["trace"] == TRACE && span["parent"] == PARENT && span["links"] == json!([]))
        );
        assert_eq!((&servers[0]["state"], &servers[1]["state"]), (&json!("vendor=1,other=2"), &json!("")));
        let attempts = children(&spans, servers[1]);
        assert_eq!((attempts.len(), &attempts[0]["span"]), (1, &json!(parent)), "the span of the attempt");
        assert_eq!(
            (&line["trace_id"], &line["span_id"], &line["trace_flags"]),
            (&json!(TRACE), &servers[1]["span"], &json!("01"))
        );
    }
}

#[test]
fn p45_p46_anybody_else_begins_a_new_trace_that_is_linked_to_theirs() {
    let collector = Collector::start("ok");
    let edge = traced(&format!("endpoint = \"{}\"", collector.url("http")), "");
    assert_eq!(edge.ask("GET /public/x", &[&traceparent("01"), "tracestate: vendor=1"]).status, 200);
    let request = edge.stub.one();
    assert!(request.all("tracestate").is_empty(), "{request:?}");
    let value = request.all("traceparent").concat();
    let spans = stopped(edge, collector);
    let server = named(&spans, "GET /public/{*rest}");
    assert_ne!(server["trace"], TRACE);
    assert_eq!((&server["parent"], &server["links"]), (&json!(""), &json!([[TRACE, PARENT]])));
    let attempt = &children(&spans, server)[0];
    let ours = |span: &Value| format!("00-{}-{}-01", server["trace"].as_str().unwrap(), span["span"].as_str().unwrap());
    assert_eq!(value, ours(attempt));
}

#[test]
fn p45_p46_each_attempt_is_a_parent_of_its_own() {
    let collector = Collector::start("ok");
    let edge = traced(&format!("endpoint = \"{}\"", collector.url("http")), "");
    assert_eq!(edge.ask("GET /public/reset", &[]).status, 502);
    let given: Vec<_> = edge.stub.take().iter().map(|request| request.all("traceparent").concat()).collect();
    let spans = stopped(edge, collector);
    let server = named(&spans, "GET /public/{*rest}");
    let attempts = children(&spans, server);
    let ids: Vec<_> = attempts.iter().map(|span| span["span"].as_str().unwrap()).collect();
    assert!(given.len() == 2 && ids.len() == 2, "{given:?} {ids:?}");
    for (given, id) in given.iter().zip(ids) {
        assert!(given.contains(id), "{given}: {id}");
    }
}

#[test]
fn p45_what_is_not_recorded_is_told_so_to_the_upstream() {
    let collector = Collector::start("ok");
    let endpoint = collector.url("http");
    // The gate does not continue a stranger's trace, and ignores its flags.
    let edge = traced(&format!("sample = 0\nendpoint = \"{endpoint}\""), "");
    for (path, headers) in
        [("/public/a", vec![]), ("/public/b", vec![traceparent("01"), "tracestate: vendor=1".to_owned()])]
    {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        assert_eq!(edge.ask(&format!("GET {path}"), &headers).status, 200);
        let [trace, parent, flags] = forwarded(&edge);
        assert!(trace != TRACE && parent != PARENT && flags == "00", "{trace} {parent} {flags}");
        let line = access(&edge, path);
        assert_eq!((&line["trace_id"], &line["trace_flags"], line.get("span_id")), (&json!(trace), &json!("00"), None));
    }
    drop(edge);
    // A trusted proxy has decided already.
    let edge = traced(&format!("sample = 1\nendpoint = \"{endpoint}\""), PROXY);
    assert_eq!(edge.ask("GET /public/c", &[&traceparent("00"), "tracestate: vendor=1"]).status, 200);
    let request = edge.stub.one();
    assert_eq!(request.all("traceparent").concat(), traceparent("00")["traceparent: ".len()..]);
    assert_eq!(request.all("tracestate"), ["vendor=1"]);
    assert_eq!(access(&edge, "/public/c")["trace_id"], TRACE);
    assert_eq!(stopped(edge, collector), Vec::<Value>::new());
}

#[test]
fn p39_p45_with_traces_off_both_headers_pass_and_the_id_is_logged_if_it_parses() {
    let edge = Edge::with(&format!("{HEAD}{ROUTES}\n[log]\nformat = \"json\"\n"), |_| {}, |_| {});
    for (path, flags, is_good) in [("/public/a", "01", true), ("/public/b", "00", true), ("/public/c", "0", false)] {
        let header = traceparent(flags);
        assert_eq!(edge.ask(&format!("GET {path}"), &[&header, "tracestate: vendor=1"]).status, 200);
        let request = edge.stub.one();
        assert_eq!(request.all("traceparent").concat(), header["traceparent: ".len()..]);
        assert_eq!(request.all("tracestate"), ["vendor=1"]);
        let line = access(&edge, path);
        assert_eq!(line.get("trace_id"), is_good.then(|| json!(TRACE)).as_ref(), "{line}");
        assert_eq!((line.get("span_id"), line.get("trace_flags")), (None, None), "the span is not ours");
    }
    // The application log has the trace, too.
    assert_eq!(edge.ask("GET /private/x", &[&traceparent("01")]).status, 401);
    let refused = lines(&edge).into_iter().find(|line| line["message"] == "refused").unwrap();
    assert_eq!(refused["trace_id"], TRACE, "{refused}");
}
