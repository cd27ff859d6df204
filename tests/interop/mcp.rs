//! The official MCP SDKs (TypeScript and Python) against the real binary: their clients go from the 401 of a resource to a token
//! of an outside provider (`oidc-provider`), and through to a server of the SDK. `tests/interop/mcp/install.sh` installs them, pinned.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::Value;
use support::{Gate, Place, keep_secret};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(super) fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let node = ["world.mjs", "user.mjs", "client.mjs", "calls.mjs", "id_jag.mjs", "judge.mjs"];
        let python = ["user.py", "client.py", "calls.py", "id_jag.py"];
        support::clients::installed_with("interop/mcp", &[&node[..], &python].concat())
    })
}

/// The provider and the server behind the gate.
pub(super) async fn world(resource: &str) -> (Value, Child) {
    let mut node = Command::new("node");
    node.arg(cache().join("world.mjs")).arg(resource).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut process = node.spawn().expect("node is missing: install Node.js 20 or newer");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let urls = lines.next_line().await.unwrap().expect("the provider did not start");
    // The program prints further lines, and ends if a write fails.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (serde_json::from_str(&urls).unwrap(), process)
}

/// The gate must know its URL before it listens, because the client is configured with it.
pub(super) fn free_address() -> String {
    format!("127.0.0.1:{}", support::server::free_port())
}

/// A gate at this address, with the resource `/mcp` of a provider, and this upstream.
fn config(address: &str, issuer: &str, upstream: &str) -> String {
    format!(
        r#"
[server]
listen = "{address}"
public_url = "http://{address}"
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[store]
kind = "memory"
[[issuers]]
name = "idp"
url = "{issuer}"
discovery = true
audience = ["http://{address}/mcp"]
scopes = ["read", "write"]
[[upstreams]]
name = "tools"
urls = ["{upstream}"]
[[routes]]
path = "/mcp"
resource = "/mcp"
issuers = ["idp"]
scopes = ["read"]
upstream = "tools"
[[resources]]
path = "/mcp"
authorization_servers = ["{issuer}"]
scopes = ["read", "write"]
"#
    )
}

/// The rules of calls.
pub(super) const CALLS: &str = r#"
[[routes]]
resource = "/mcp"
calls = ["tools/call:delete_*"]
scopes = ["write"]
[[routes]]
resource = "/mcp"
calls = ["tools/call:secret_*"]
roles = ["boss"]
[[routes]]
resource = "/mcp"
calls = ["*"]
"#;

/// A gate of older versions: its calls go to the server of the SDK's first version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m7_m9_m21_sdks_of_older_versions_call_refresh_and_step_up_and_newer_ones_are_told_the_versions() {
    let address = free_address();
    let resource = format!("http://{address}/mcp");
    let (urls, _process) = world(&resource).await;
    let [issuer, upstream] = ["issuer", "upstream"].map(|name| urls[name].as_str().unwrap());
    let (v1, v2) = (cache().join("python-v1/bin/python"), cache().join("python/bin/python"));
    let node = Path::new("node");
    for (versions, further, programs) in [
        ("\"2026-07-28\", \"2025-11-25\", \"2025-06-18\"", "calls", [(node, "client.mjs"), (&v1, "client.py")]),
        ("\"2025-11-25\", \"2025-06-18\"", "older", [(node, "calls.mjs"), (&v2, "calls.py")]),
    ] {
        let calls =
            format!("implies = {{ write = [\"read\"] }}\nmcp = {{ for_tests.versions = [{versions}] }}\n{CALLS}");
        let place = Place::new(&(config(&address, issuer, upstream) + &calls));
        let gate = place.start();
        for (program, script) in programs {
            token_of(program, script, &gate, &[further]).await;
        }
        let metrics = gate.admin_get("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let deleted = "rotogate_mcp_calls_total{calls=\"/mcp tools/call:delete_*\",result=\"permitted\"}";
        let count = metrics.lines().find_map(|line| line.strip_prefix(deleted)).map(str::trim);
        // The client in Python calls a second time, after its refresh.
        assert_eq!(count, Some(if further == "calls" { "3" } else { "0" }), "{metrics}");
    }
}

/// Runs a client of an SDK, which prints its last access token.
async fn token_of(program: &Path, script: &str, gate: &Gate, more: &[&str]) -> String {
    let ran = Command::new(program).arg(cache().join(script)).arg(gate.url("")).args(more).output().await.unwrap();
    let token = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    assert!(ran.status.success(), "{script}: {}\n{}", String::from_utf8_lossy(&ran.stderr), gate.log());
    keep_secret(&token);
    token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n47_the_mcp_sdks_go_from_a_401_to_an_outside_provider_and_through_and_steps_up() {
    let address = free_address();
    let resource = format!("http://{address}/mcp");
    let (urls, _process) = world(&resource).await;
    let [issuer, upstream] = ["issuer", "upstream"].map(|name| urls[name].as_str().unwrap());
    let admin = r#"
[[routes]]
path = "/mcp/admin"
resource = "/mcp"
issuers = ["idp"]
scopes = ["write"]
upstream = "tools"
"#;
    let place = Place::new(&(config(&address, issuer, upstream) + admin));
    let gate = place.start();
    for (program, script) in [(Path::new("node"), "client.mjs"), (&cache().join("python-v1/bin/python"), "client.py")] {
        let token = token_of(program, script, &gate, &[]).await;
        // The token is the provider's, for the resource alone.
        assert_eq!(gate.get("/mcp/admin", &token).await.status, 406, "the server of the SDK answers");
        assert_eq!(gate.get("/mcp/admin", &format!("{token}x")).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_m19_m21_the_sdks_call_by_rules_and_steps_up_to_the_scope_of_one_call() {
    let address = free_address();
    let resource = format!("http://{address}/mcp");
    let (urls, _process) = world(&resource).await;
    let [issuer, upstream] = ["issuer", "newest"].map(|name| urls[name].as_str().unwrap());
    let calls = format!("implies = {{ write = [\"read\"] }}\nmcp = {{}}\n{CALLS}");
    let place = Place::new(&(config(&address, issuer, upstream) + &calls));
    let gate = place.start();
    for (program, script) in [(Path::new("node"), "calls.mjs"), (&cache().join("python/bin/python"), "calls.py")] {
        token_of(program, script, &gate, &[]).await;
    }
    let metrics = gate.admin_get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        metrics.contains("rotogate_mcp_calls_total{calls=\"/mcp tools/call:delete_*\",result=\"permitted\"} 2"),
        "{metrics}"
    );
    drop(gate);
    // The server of the SDK compares headers and body.
    let calls = calls.replace("mcp = {}", "mcp = { check = \"headers\" }");
    place.write_config(&(config(&address, issuer, upstream) + &calls));
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("resource /mcp: the upstream tools compares the headers of a call with its body"), "{said}");
}
