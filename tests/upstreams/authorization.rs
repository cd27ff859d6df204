//! `authorization_file`: the gate's own credential at an upstream.

use std::os::unix::fs::PermissionsExt;

use support::pki::write_private;
use support::stub::{Edge, HEAD, ROUTES};
use support::{CONFIG, Place, until};

fn edge(credential: &str) -> Edge {
    let config = HEAD.replacen("name = \"app\"", "name = \"app\"\nauthorization_file = \"app.authorization\"", 1);
    let config = format!("{config}{ROUTES}");
    Edge::with(&config, |place| write_private(&place.path("app.authorization"), credential), |_| {})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gates_own_credential_replaces_the_callers_and_the_caller_is_in_the_identity_headers() {
    let edge = edge("Bearer kapikey-of-the-gate\n");
    support::keep_secret("kapikey-of-the-gate");
    let (stub, tokens) = tokio::task::block_in_place(|| (&edge.stub, edge.login()));
    let seen = |token: Option<&str>, path: &str| {
        let reply = match token {
            Some(token) => edge.ask_as(token, &format!("GET {path}"), &[]),
            None => edge.ask(&format!("GET {path}"), &[]),
        };
        assert_eq!(reply.status, 200);
        stub.one()
    };
    let request = tokio::task::block_in_place(|| seen(Some(&tokens.access), "/x"));
    assert_eq!(request.all("authorization"), ["Bearer kapikey-of-the-gate"]);
    assert_eq!(request.all("x-auth-subject").len(), 1);
    // Without a caller, too, because the upstream trusts the gate.
    let request = tokio::task::block_in_place(|| seen(None, "/public/x"));
    assert_eq!(request.all("authorization"), ["Bearer kapikey-of-the-gate"]);
    assert!(request.all("x-auth-subject").is_empty());
    // A changed file is read again, at once with SIGHUP; a broken one changes nothing.
    write_private(&edge.place.path("app.authorization"), "Bearer second-of-the-gate");
    edge.gate.signal("HUP");
    until("it is read again", async || {
        let request = tokio::task::block_in_place(|| seen(Some(&tokens.access), "/x"));
        request.all("authorization") == ["Bearer second-of-the-gate"]
    })
    .await;
    write_private(&edge.place.path("app.authorization"), "no-scheme");
    until("the mistake is in the log", async || edge.gate.log().contains("the whole value of Authorization")).await;
    let request = tokio::task::block_in_place(|| seen(Some(&tokens.access), "/x"));
    assert_eq!(request.all("authorization"), ["Bearer second-of-the-gate"]);
    assert!(!edge.gate.log().contains("-of-the-gate"), "it is in no log");
}

#[test]
fn a_file_that_is_missing_open_or_incomplete_is_found_by_check() {
    let config = CONFIG.replacen("name = \"app\"", "name = \"app\"\nauthorization_file = \"app.authorization\"", 1);
    let place = Place::new(&config);
    let file = place.path("app.authorization");
    let said = || {
        let ran = place.run(&["check"], "");
        (ran.code, ran.stderr)
    };
    let (code, text) = said();
    assert!(code == Some(2) && text.contains("upstreams[0].authorization_file"), "{text}");
    write_private(&file, "only-a-key");
    let (code, text) = said();
    assert!(
        code == Some(2) && text.contains("the whole value of Authorization") && !text.contains("only-a-key"),
        "{text}"
    );
    write_private(&file, "Bearer key");
    assert_eq!(said().0, Some(0));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(said().0, Some(2));
}
