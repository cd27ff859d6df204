//! Long replies end with their authority: a revocation ends them within a second or so, a rotation carries them on, expiry
//! ends them unless the route keeps them. A client can see that a reply was cut.

use support::stub::{Edge, HEAD, tokens};
use support::until;
use support::wire::Wire;

const ROUTES: &str = r#"
[[routes]]
path = "/kept/{*rest}"
on_expiry = "keep"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// A stream that has begun.
pub(super) fn begun(edge: &Edge, path: &str, access: &str) -> Wire {
    let mut wire = edge.wire();
    wire.head(&format!("GET {path}"), &["Host: gate.test", &format!("Authorization: Bearer {access}")]);
    assert_eq!(wire.reply_head().status, 200);
    edge.stub.push(b"first");
    assert_eq!(wire.chunk(), b"first");
    wire
}

/// The connection ends, and its body has no end.
pub(super) fn is_cut(mut wire: Wire) {
    assert!(wire.is_closed(), "neither another chunk nor the last one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_cuts_a_stream_and_who_comes_again_with_the_token_is_refused() {
    let edge = Edge::new(ROUTES);
    for path in ["/events/parts", "/kept/parts"] {
        let held = edge.login();
        let stream = begun(&edge, path, &held.access);
        assert_eq!(edge.gate.revoke(&held.refresh).await.status, 200);
        is_cut(stream);
        assert_eq!(edge.ask_as(&held.access, &format!("GET {path}"), &[]).status, 401, "{path}");
        // The upstream gets nothing more, and its further bytes are dropped.
        edge.stub.push(b"");
    }
}

#[test]
fn a_rotation_carries_a_stream_on_though_it_ends_the_token() {
    let edge = Edge::new(&format!("{ROUTES}[sessions]\nrevoke_previous_after = \"0s\"\n"));
    let held = edge.login();
    let mut stream = begun(&edge, "/events/parts", &held.access);
    let mut latest = tokens(&edge.refresh(&[], &held.refresh));
    assert_eq!(edge.ask_as(&held.access, "GET /x", &[]).status, 401, "the old token is over");
    // Longer than a check of the gate takes on a slow machine.
    for n in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(800));
        let text = format!("part {n}");
        edge.stub.push(text.as_bytes());
        assert_eq!(stream.chunk(), text.as_bytes());
        latest = tokens(&edge.refresh(&[], &latest.refresh));
    }
    edge.stub.push(b"");
    assert_eq!(stream.chunk(), b"", "it ends as the upstream ends it");
    assert_eq!(edge.ask_as(&latest.access, "GET /x", &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_cuts_a_stream_unless_its_route_keeps_it_and_then_a_revocation_does() {
    let head = support::with(HEAD, "issuer", "for_tests = { leeway = \"0s\" }");
    let sessions = "[sessions]\naccess_ttl = \"2s\"\ngrace = \"1s\"\nlost_response_window = \"1s\"\n";
    let edge = Edge::with(&format!("{head}{ROUTES}{sessions}"), |_| {}, |_| {});
    let held = edge.login();
    let stream = begun(&edge, "/events/parts", &held.access);
    is_cut(stream);
    edge.stub.push(b"");

    let held = edge.login();
    let mut kept = begun(&edge, "/kept/parts", &held.access);
    until("the token has expired", async || edge.ask_as(&held.access, "GET /x", &[]).status == 401).await;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    edge.stub.push(b"still here");
    assert_eq!(kept.chunk(), b"still here");
    assert_eq!(edge.gate.revoke(&held.refresh).await.status, 200);
    is_cut(kept);
    edge.stub.push(b"");
}

#[test]
fn an_anonymous_stream_hangs_on_nobody() {
    let edge = Edge::new(&format!(
        "[[routes]]\npath = \"/open/{{*rest}}\"\nauth = \"optional\"\nupstream = \"app\"\n{ROUTES}"
    ));
    let mut wire = edge.wire();
    wire.head("GET /open/parts", &["Host: gate.test"]);
    assert_eq!(wire.reply_head().status, 200);
    for n in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let text = format!("part {n}");
        edge.stub.push(text.as_bytes());
        assert_eq!(wire.chunk(), text.as_bytes());
    }
    edge.stub.push(b"");
    assert_eq!(wire.chunk(), b"");
}
