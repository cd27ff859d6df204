//! The spans that a collector receives. `tests/traces/collector.py` implements OTLP with the messages that
//! OpenTelemetry publishes for Python.

mod collector;
mod hanging;
mod settings;
mod trust;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::stub::{Edge, HEAD, ROUTES};

use collector::{Collector, Spans, children, named};

/// A gate with this section, in front of a stub.
fn traced(tracing: &str, more: &str) -> Edge {
    Edge::with(&configuration(tracing, more), |_| {}, |_| {})
}

/// A gate that logs in JSON, and sends spans at once.
fn configuration(tracing: &str, server: &str) -> String {
    let head = HEAD.replace("[server]\n", &format!("[server]\n{server}\n"));
    format!("{head}{ROUTES}\n[log]\nformat = \"json\"\n[tracing]\nfor_tests.flush_interval = \"100ms\"\n{tracing}\n")
}

/// All lines of a log.
fn lines(edge: &Edge) -> Vec<Value> {
    let log = edge.gate.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The access line of a path.
fn access(edge: &Edge, path: &str) -> Value {
    let mut lines = lines(edge);
    lines.retain(|line| line["event.dataset"] == "rotogate.access" && line["url.path"] == path);
    assert_eq!(lines.len(), 1, "{path}: {lines:#?}");
    lines.remove(0)
}

/// Stops the gate, which sends its remaining spans. Returns all received spans.
fn stopped(edge: Edge, collector: Collector) -> Spans {
    let Edge { gate, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    collector.end()
}

#[test]
fn p45_a_trace_with_all_its_spans_arrives_over_both_protocols() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start("ok");
        let section = format!("for_tests.protocol = \"{protocol}\"\nendpoint = \"{}\"", collector.url(protocol));
        let edge = traced(&section, "");
        let tokens = edge.login();
        assert_eq!(
            edge.ask_as(&tokens.access, "GET /private/x?key=kept-to-oneself", &["User-Agent: probe/1"]).status,
            200
        );
        assert_eq!(edge.ask_as(&tokens.access, "GET /private/y", &[]).status, 200);
        assert_eq!(edge.ask("GET /private/z", &[]).status, 401);
        assert_eq!(edge.ask("BREW /private/pot", &[]).status, 405);
        assert_eq!(edge.ask("GET /public/reset", &[]).status, 502);
        assert_eq!(edge.ask("GET /public/status-503", &[]).status, 503);
        let address = edge.stub.address;
        let password = edge.gate.password.clone();
        let spans = stopped(edge, collector);
        let text = format!("{spans:?}");
        for secret in ["kept-to-oneself", &password, &tokens.access, &tokens.refresh, "demo"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(spans.iter().all(|span| span["protocol"] == protocol && span["scope"] == "rotogate"), "{text}");
        for span in &spans {
            let resource = &span["resource"];
            assert_eq!(
                (&resource["service.name"], &resource["service.version"]),
                (&json!("rotogate"), &json!(env!("CARGO_PKG_VERSION")))
            );
            assert_eq!(resource["service.instance.id"].as_str().unwrap().len(), 36, "{resource}");
            assert!(span["attributes"].get("user.id").is_none(), "{span}");
        }
        // A login: the endpoint asks the directory, and waits for the store.
        let login = named(&spans, "POST");
        assert_eq!((&login["kind"], &login["parent"]), (&json!(2), &json!("")));
        let endpoint = &children(&spans, login)[0];
        assert_eq!(endpoint["name"], "rotogate.endpoint");
        assert_eq!(endpoint["attributes"]["rotogate.dialect"], "oauth2");
        let inside = children(&spans, endpoint);
        let steps: BTreeSet<_> = inside.iter().map(|span| span["name"].as_str().unwrap()).collect();
        assert_eq!(steps, BTreeSet::from(["rotogate.directory", "rotogate.store.commit"]), "{text}");
        // Requests: the first verifies the token.
        let route = spans.iter().filter(|span| span["name"] == "GET /{*rest}").collect::<Vec<_>>();
        let of_path = |path: &str| *route.iter().find(|span| span["attributes"]["url.path"] == path).unwrap();
        for (path, steps) in
            [("/private/x", &["GET", "rotogate.verify"][..]), ("/private/y", &["GET"]), ("/private/z", &[])]
        {
            let inside = children(&spans, of_path(path));
            let mut names: Vec<_> = inside.iter().map(|span| span["name"].as_str().unwrap()).collect();
            names.sort_unstable();
            assert_eq!(names, steps, "{path}");
        }
        let (passed, attempt) = (of_path("/private/x"), children(&spans, of_path("/private/x")));
        let attempt = attempt.iter().find(|span| span["kind"] == 3).unwrap();
        let expected = json!({
            "http.request.method": "GET", "url.path": "/private/x", "url.scheme": "http", "server.address": "gate.test",
            "network.protocol.version": "1.1", "client.address": "127.0.0.1", "network.peer.address": "127.0.0.1",
            "user_agent.original": "probe/1", "http.request.id": passed["attributes"]["http.request.id"],
            "http.response.status_code": 200, "http.route": "/{*rest}", "rotogate.route": passed["attributes"]["rotogate.route"],
        });
        assert_eq!(passed["attributes"], expected);
        assert_eq!(passed["status"], 0);
        let expected = json!({
            "http.request.method": "GET", "url.full": format!("http://{address}/private/x"), "server.address": "127.0.0.1",
            "server.port": address.port(), "http.response.status_code": 200, "rotogate.upstream": "app",
            "rotogate.upstream.address": attempt["attributes"]["rotogate.upstream.address"],
        });
        assert_eq!(attempt["attributes"], expected);
        assert!(attempt["nanoseconds"].as_u64() <= passed["nanoseconds"].as_u64(), "{text}");
        assert!(attempt["begun"].as_u64() >= passed["begun"].as_u64(), "{text}");
        // Failed requests.
        let refused = of_path("/private/z");
        assert_eq!(
            (&refused["attributes"]["error.type"], &refused["status"]),
            (&json!("no_credential"), &json!(0)),
            "{refused}"
        );
        let other = named(&spans, "HTTP");
        assert_eq!(
            (&other["attributes"]["http.request.method"], &other["attributes"]["http.request.method_original"]),
            (&json!("_OTHER"), &json!("BREW"))
        );
        let public: Vec<_> = spans.iter().filter(|span| span["name"] == "GET /public/{*rest}").collect();
        let lost = public.iter().find(|span| span["attributes"]["url.path"] == "/public/reset").unwrap();
        assert_eq!(
            (&lost["attributes"]["error.type"], &lost["status"]),
            (&json!("upstream_reset"), &json!(2)),
            "{lost}"
        );
        let mut attempts = children(&spans, lost);
        attempts.sort_by_key(|span| span["begun"].as_u64());
        let counts: Vec<_> =
            attempts.iter().map(|span| span["attributes"]["http.request.resend_count"].as_u64()).collect();
        assert_eq!(counts, [None, Some(1)], "{attempts:?}");
        assert!(attempts.iter().all(|span| span["attributes"]["error.type"] == "reset" && span["status"] == 2));
        let failed = public.iter().find(|span| span["attributes"]["url.path"] == "/public/status-503").unwrap();
        assert_eq!((&failed["attributes"]["error.type"], &failed["status"]), (&json!("503"), &json!(2)), "{failed}");
    }
}

#[test]
fn p45_spans_name_the_user_only_if_that_is_wanted() {
    let collector = Collector::start("ok");
    let edge = traced(&format!("identity = true\nendpoint = \"{}\"", collector.url("http")), "");
    let tokens = edge.login();
    assert_eq!(edge.ask_as(&tokens.access, "GET /private/x", &[]).status, 200);
    assert_eq!(edge.ask_as("no.good.token", "GET /private/y", &[]).status, 401);
    let subject = access(&edge, "/private/x")["user.id"].clone();
    let spans = stopped(edge, collector);
    let users: Vec<_> =
        spans.iter().filter(|span| span["kind"] == 2).map(|span| &span["attributes"]["user.id"]).collect();
    assert_eq!(users, [&subject, &subject, &Value::Null], "a refused token names nobody");
}

#[test]
fn p39_the_id_of_a_request_is_in_its_trace_its_audit_lines_and_its_way_to_the_upstream() {
    for (server, given, kept) in [
        ("trusted_proxies = [\"127.0.0.1\"]", "from-the-proxy.1", true),
        ("trusted_proxies = [\"127.0.0.1\"]", "no good", false),
        ("", "from-a-stranger", false),
    ] {
        let collector = Collector::start("ok");
        let edge = traced(&format!("endpoint = \"{}\"", collector.url("http")), server);
        let header = format!("X-Request-Id: {given}");
        let fields = [("grant_type", "password"), ("username", "demo"), ("password", edge.gate.password.as_str())];
        let login = edge.token(&[&header], &fields);
        let id = login.header("x-request-id").to_owned();
        assert_eq!((login.status, id == given), (200, kept), "{id}");
        let audit = |id: &str| -> Vec<Value> {
            let of_request = |line: &Value| line["event.dataset"] == "rotogate.audit" && line["http.request.id"] == id;
            lines(&edge).into_iter().filter(of_request).collect()
        };
        let entries = audit(&id);
        assert!(entries.iter().any(|line| line["event.action"] == "session.start"), "{entries:#?}");
        let passed = edge.ask("GET /public/x", &[&header]);
        let upstream = edge.stub.one().all("x-request-id").concat();
        assert_eq!((upstream.as_str(), upstream == given), (passed.header("x-request-id"), kept));
        assert_eq!(access(&edge, "/public/x")["http.request.id"], upstream.as_str());
        let refused = edge.ask("GET /private/x", &[&header]);
        assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
        let trace = access(&edge, "/connect/token")["trace_id"].clone();
        assert!(entries.iter().all(|line| line["trace_id"] == trace && line["trace_flags"] == "01"), "{entries:#?}");
        let wanted = [id, upstream, refused.header("x-request-id").to_owned()];
        let spans = stopped(edge, collector);
        let servers = spans.iter().filter(|span| span["kind"] == 2);
        let told: Vec<_> = servers.map(|span| span["attributes"]["http.request.id"].as_str().unwrap()).collect();
        assert_eq!(told, wanted);
        assert!(kept || !format!("{spans:?}").contains(given));
    }
}
