//! openid-client exchanges a token at the gate, with the program of docs/act-for-a-user.md.

use std::path::Path;
use std::process::{Command, Output};

use super::oauth2::clients;
use crate::edge::exchange::{ACCESS, world};

#[tokio::test(flavor = "multi_thread")]
async fn d3_openid_client_exchanges_a_token_and_calls_the_other_service() {
    let world = world();
    let (edge, secret) = (&world.edge, &world.secret);
    let held = edge.login();
    let script = clients().join("exchange.mjs");
    let run = |token: &str| -> Output {
        let gate = edge.gate.url("");
        let gate = gate.trim_end_matches('/');
        Command::new("node")
            .arg(&script)
            .args([gate, token, secret])
            .output()
            .expect("node is missing: install Node.js")
    };
    let ran = run(&held.access);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), format!("200 read {ACCESS}"));
    assert_eq!(edge.stub.one().confusable("x-auth-actor"), ["client:orders"]);
    assert_eq!(edge.gate.revoke(&held.refresh).await.status, 200);
    assert!(!run(&held.access).status.success(), "the session is over");
    let text = std::fs::read_to_string(&script).unwrap();
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("docs/act-for-a-user.md");
    let (_, snippet) = text.split_once("Snippet:\n").unwrap();
    assert!(
        std::fs::read_to_string(page).unwrap().contains(snippet),
        "the page does not show the program as it was run"
    );
}
