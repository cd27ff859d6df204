//! A8: the answers when the upstream fails.

use support::stub::{Edge, HEAD, ROUTES};
use support::until;
use support::wire::Reply;

fn is_plain_problem(edge: &Edge, reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}");
    assert_eq!(reply.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(reply.header("cache-control"), "no-store", "{what}");
    let problem = reply.json();
    assert_eq!(problem["status"], status, "{what}");
    let text = reply.text().to_ascii_lowercase();
    let port = edge.stub.address.port().to_string();
    for secret in ["127.0.0.1", &port, "hyper", "secret-internal-detail", "connection", "refused", "os error"] {
        assert!(!text.contains(secret), "{what}: {secret} in {text}");
    }
}

#[test]
fn a8_o27_p25_an_upstream_that_fails_is_502_or_504_without_internal_detail() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        r#"
head_timeout = "300ms"
[[upstreams]]
name = "gone"
urls = ["http://{gone}"]
[[upstreams]]
name = "nowhere"
urls = ["http://no-such-host.invalid"]
[[routes]]
path = "/gone/{{*rest}}"
auth = "none"
upstream = "gone"
[[routes]]
path = "/nowhere/{{*rest}}"
auth = "none"
upstream = "nowhere"
"#
    );
    let edge = Edge::with(&format!("{HEAD}{more}{ROUTES}"), |_| {}, |_| {});
    for (path, status, outcome, upstream) in [
        ("/gone/x", 502, "upstream_unreachable", "gone"),
        ("/nowhere/x", 502, "upstream_unreachable", "nowhere"),
        ("/public/reset", 502, "upstream_reset", "app"),
        ("/public/garbage", 502, "upstream_protocol", "app"),
        ("/public/silent", 504, "upstream_timeout", "app"),
    ] {
        let result = outcome.strip_prefix("upstream_").unwrap();
        let attempts = format!("rotogate_upstream_requests_total{{upstream=\"{upstream}\",result=\"{result}\"}}");
        let before = edge.series(&attempts);
        is_plain_problem(&edge, &edge.ask(&format!("GET {path}"), &[]), status, path);
        // The metrics show an outage by its kind.
        let route = format!("{}{{*rest}}", &path[..path[1..].find('/').unwrap() + 2]);
        let series =
            format!("rotogate_requests_total{{route=\"{route}\",outcome=\"{outcome}\",code=\"{status}\"}} 1\n");
        assert!(edge.metrics().contains(&series), "{series}{}", edge.metrics());
        // A GET whose connection was lost is sent once more.
        let sent = if result == "reset" { 2 } else { 1 };
        assert_eq!(edge.series(&attempts), before + sent, "{attempts}");
        let said = format!("rotogate.outcome={outcome}");
        let is_logged = async || edge.gate.log().lines().any(|line| line.contains(&said) && line.contains(path));
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(until("the access log says so", is_logged));
        // A failure concerns only its own request.
        assert_eq!(edge.ask("GET /public/x", &[]).status, 200, "{path}");
    }
    for (series, at_least) in [
        ("rotogate_upstream_requests_total{upstream=\"app\",result=\"ok\"}", 5),
        ("rotogate_upstream_responses_total{upstream=\"app\",code_class=\"2xx\"}", 5),
        ("rotogate_upstream_request_duration_seconds_count{upstream=\"app\"}", 5),
        ("rotogate_upstream_retries_total{upstream=\"app\"}", 1),
        ("rotogate_upstream_addresses{upstream=\"app\",state=\"up\"}", 1),
    ] {
        assert_eq!(edge.series(series), at_least, "{series}");
    }
    // A lost request is repeated only if that is safe.
    edge.stub.take();
    assert_eq!(edge.ask("POST /public/reset", &["Content-Length: 0"]).status, 502);
    assert_eq!(edge.stub.take().len(), 1);
}

#[test]
fn a8_an_upstream_that_breaks_off_breaks_off_this_answer_alone() {
    let edge = Edge::new(ROUTES);
    let mut wire = edge.wire();
    wire.head("GET /public/parts", &["Host: gate.test"]);
    assert_eq!(wire.reply_head().status, 200);
    edge.stub.push(b"begun");
    assert_eq!(wire.chunk(), b"begun");
    // The client disconnects; the next one is served.
    drop(wire);
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}
