//! Keys that are refused, and where no key is accepted.

use rotogate_core::api_key::KeyPrefix;
use secrecy::ExposeSecret;
use serde_json::json;

use support::keep_secret;
use support::stub::{Edge, HEAD};

const CONFIG: &str = r#"
[api_keys]
prefix = "acme"
[[resources]]
path = "/mcp"
mcp = {}
[[routes]]
path = "/mcp"
resource = "/mcp"
upstream = "app"
[[routes]]
resource = "/mcp"
calls = ["*"]
[[routes]]
path = "/{*rest}"
credentials = ["token", "key"]
upstream = "app"
"#;

fn edge(limits: &str) -> Edge {
    let edge = Edge::with(&format!("{HEAD}{CONFIG}{limits}"), |_| {}, |_| {});
    edge.place.point_commands_at(&edge.gate);
    edge
}

fn made(edge: &Edge, name: &str, more: &[&str]) -> String {
    let made = edge.place.json(&[&["api-key", "create", name, "--user", "demo"], more].concat(), "");
    let key = made["key"].as_str().unwrap().to_owned();
    keep_secret(&key);
    key
}

#[test]
fn a1_k1_who_shows_unknown_keys_waits_with_whatever_is_new_and_junk_is_not_counted() {
    let edge = edge("[limits]\nfor_tests.forged_per_address = \"3/1h\"\n");
    let status = |key: &str| edge.ask("GET /x", &[&format!("X-API-Key: {key}")]).status;
    let [seen, new] = ["seen", "new"].map(|name| made(&edge, name, &[]));
    assert_eq!(status(&seen), 200);
    let unknown = || KeyPrefix::new("acme").unwrap().generate().unwrap().1.expose_secret().to_owned();
    // A key whose checksum is wrong costs nothing.
    for _ in 0..8 {
        let mut junk = unknown();
        let last = if junk.ends_with('0') { "1" } else { "0" };
        junk.replace_range(junk.len() - 1.., last);
        assert_eq!(status(&junk), 401);
    }
    let refused: Vec<_> = (0..6).map(|_| status(&unknown())).collect();
    assert_eq!(refused, [401, 401, 401, 401, 429, 429]);
    assert_eq!((status(&new), status(&seen)), (429, 200));
}

#[test]
fn k6_a_key_is_no_credential_for_the_calls_of_an_mcp_resource() {
    let edge = edge("");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "x", "arguments": {} } });
    let body = body.to_string();
    let call = |path: &str, key: &str| {
        let (key, length) = (format!("X-API-Key: {key}"), format!("Content-Length: {}", body.len()));
        let version = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: x"];
        let own = ["Host: gate.test", "Content-Type: application/json", &length, &key];
        let mut wire = edge.wire();
        wire.head(&format!("POST {path}"), &[&own[..], &version].concat());
        wire.send(&body);
        wire.reply()
    };
    let [for_gate, for_resource] = [("gate", &[][..]), ("resource", &["--audience", "http://gate.test/mcp"])]
        .map(|(name, more)| made(&edge, name, more));
    assert_eq!(call("/x", &for_gate).status, 200);
    edge.stub.take();
    for key in [&for_gate, &for_resource] {
        assert_eq!(call("/mcp", key).status, 401);
    }
    assert!(edge.stub.take().is_empty(), "nothing is forwarded");
}
