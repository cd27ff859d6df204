//! Assertions of real libraries at the real binary, and the gate's own assertions at a real provider.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::documents::Documents;
use support::{Place, keep_secret};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{mcp, oauth2};
use crate::edge::issuer::{Issuer, claims};

const SEED: u8 = 61;

/// The private key, as a JWK.
fn private() -> Value {
    let mut key = Issuer::new(SEED).jwk("k1");
    key["d"] = json!(URL_SAFE_NO_PAD.encode([SEED; 32]));
    key
}

/// A gate whose issuer URL names its address.
fn place(address: &str, further: &str) -> Place {
    let config = support::CONFIG
        .replace("http://gate.test", &format!("http://{address}"))
        .replace("listen = \"127.0.0.1:0\"\npublic_url", &format!("listen = \"{address}\"\npublic_url"))
        // The MCP SDKs take no metadata without it.
        .replace("[issuer]\n", "[issuer]\nauthorization_endpoint = \"https://login.test/\"\n")
        .replace("[limits]", "[store]\nkind = \"memory\"\n[limits]");
    let place = Place::new(&format!("{config}{further}"));
    let set = json!({ "keys": [Issuer::new(SEED).jwk("k1")] }).to_string();
    std::fs::write(place.path("keys.json"), set).unwrap();
    place
}

async fn passes(command: &mut Command, address: &str) {
    let ran =
        command.env("ISSUER", format!("http://{address}")).env("KEY", private().to_string()).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn d24_openid_client_and_authlib_authenticate_by_assertions() {
    let address = mcp::free_address();
    let client = "[[clients]]\nid = \"orders\"\nkeys = { jwks_file = \"keys.json\" }\n\
                  grants = [\"client_credentials\"]\nscopes = [\"read\"]\n";
    let _gate = place(&address, client).start();
    let cache = oauth2::clients();
    passes(Command::new("node").arg(cache.join("private_key_jwt.mjs")), &address).await;
    passes(Command::new(cache.join("python/bin/python")).arg(cache.join("private_key_jwt.py")), &address).await;
}

/// Runs a program of an MCP SDK at a gate that takes identity assertions for `/mcp`, with further lines.
async fn exchanges_identity_assertions(program: &mut Command, address: &str, further: &str) {
    let secret = uuid::Uuid::new_v4().to_string();
    keep_secret(&secret);
    let made = Place::new(support::CONFIG).run(&["client", "secret", "--stdin", "--json"], &secret).stdout;
    let made: Value = serde_json::from_str(&made).unwrap();
    let config = format!(
        "[[clients]]\nid = \"wiki\"\nsecret_hash = {}\ngrants = [\"jwt-bearer\"]\nscopes = [\"read\", \"write\"]\n\
         [[issuers]]\nname = \"idp\"\nurl = \"https://idp.test/\"\naudience = [\"unused\"]\njwks_file = \"keys.json\"\n\
         scopes = [\"read\", \"write\"]\nsubject_prefix = \"idp|\"\nid_jag = {{ clients = [\"wiki\"] }}\n\
         [[routes]]\npath = \"/mcp\"\nresource = \"/mcp\"\nscopes = [\"read\"]\n{further}",
        made["secret_hash"]
    );
    let _gate = place(address, &config).start();
    passes(program.env("CLIENT_SECRET", &secret).env("IDP", "https://idp.test/"), address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_d19_the_mcp_sdk_exchanges_an_identity_assertion() {
    let mut node = Command::new("node");
    node.arg(mcp::cache().join("id_jag.mjs"));
    let further = "upstream = \"app\"\n[[resources]]\npath = \"/mcp\"\n";
    exchanges_identity_assertions(&mut node, &mcp::free_address(), further).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_m21_the_mcp_sdk_for_python_calls_by_identity_assertions_and_steps_up() {
    let address = mcp::free_address();
    let (urls, _process) = mcp::world(&format!("http://{address}/mcp")).await;
    let further = format!(
        "upstream = \"tools\"\n[[upstreams]]\nname = \"tools\"\nurls = [{}]\n[[resources]]\npath = \"/mcp\"\nmcp = {{}}\n{}",
        urls["newest"],
        mcp::CALLS
    );
    let mut python = Command::new(mcp::cache().join("python/bin/python"));
    exchanges_identity_assertions(python.arg(mcp::cache().join("id_jag.py")), &address, &further).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d24_a_provider_takes_the_assertions_of_the_gate_for_its_issuer_alone() {
    let mut node = Command::new("node");
    node.arg(mcp::cache().join("judge.mjs")).env("KEY", private().to_string());
    let mut judge = node.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(judge.stdout.take().unwrap()).lines();
    let issuer = loop {
        let line = lines.next_line().await.unwrap().expect("the provider did not start");
        if line.starts_with("http://") {
            break line;
        }
    };
    let asks = |audience: &str| {
        let further = format!(
            "[[issuers]]\nname = \"op\"\nurl = \"{issuer}\"\naudience = [\"api\"]\neverywhere = true\nintrospection = {{ url = \
             \"{issuer}/token/introspection\", client_id = \"gate\", key_file = \"gate.pem\", key_id = \"k1\", \
             assertion_audience = \"{audience}\" }}\n"
        );
        let place = place(&mcp::free_address(), &further);
        support::pki::write_private(&place.path("gate.pem"), &Issuer::new(SEED).private_pem());
        tokio::task::block_in_place(|| place.run(&["check", "--online"], ""))
    };
    let good = asks(&issuer);
    assert!(good.code == Some(0) && good.stdout.contains("an unknown token as inactive"), "{good:?}");
    let other = asks("https://other.test");
    assert!(
        other.code != Some(0) && other.stderr.contains("returned 401 Unauthorized: the gate's `client_id`"),
        "{other:?}"
    );
}

const WORKLOADS: &str = r#"
[[issuers]]
name = "ci"
url = "https://token.actions.githubusercontent.com"
audience = ["unused"]
jwks_file = "keys.json"
preset = "github-actions"
require = { repository_owner_id = "4242" }
jwt_bearer = { subjects = ["repo:acme/app:ref:refs/heads/main"], as_client = "deploy" }
[[issuers]]
name = "cluster"
url = "https://kubernetes.default.svc.cluster.local"
audience = ["unused"]
jwks_file = "keys.json"
typ = [""]
jwt_bearer = { subjects = ["system:serviceaccount:jobs:nightly"], as_client = "deploy" }
[[clients]]
id = "deploy"
grants = ["jwt-bearer"]
scopes = ["read"]
"#;

/// Runs the example, and uses the token that it prints.
async fn exchanges(gate: &support::Gate, platform: &str, env: &[(&str, &str)]) -> bool {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("examples/client/workload.mjs");
    let mut node = Command::new("node");
    node.arg(script).args([platform, &gate.url(""), "read"]).envs(env.iter().copied());
    let ran = node.output().await.unwrap();
    let token = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if !ran.status.success() {
        return false;
    }
    keep_secret(&token);
    gate.get("/data", &token).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn d22_d23_the_example_gets_a_token_in_github_actions_and_in_kubernetes() {
    let address = mcp::free_address();
    let gate = place(&address, WORKLOADS).start();
    let platform = Documents::start();
    let key = Issuer::new(SEED);
    let says = |typ: Option<&str>, changes: &Value| {
        let mut head = json!({ "alg": "EdDSA", "kid": "k1" });
        if let Some(typ) = typ {
            head["typ"] = json!(typ);
        }
        let said = json!({ "aud": format!("http://{address}"), "jti": uuid::Uuid::new_v4(), "scope": null, "client_id": null });
        key.sign(&head, &claims(&merged(said, changes)))
    };
    let of_run = || {
        let said = json!({
            "iss": "https://token.actions.githubusercontent.com", "sub": "repo:acme/app:ref:refs/heads/main",
            "repository_owner_id": "4242",
        });
        let audience = format!("http%3A%2F%2F{}", address.replace(':', "%3A"));
        platform.document(&format!("/run?v=2&audience={audience}"), &json!({ "value": says(Some("JWT"), &said) }));
    };
    let url = platform.at("/run?v=2");
    let github = [("ACTIONS_ID_TOKEN_REQUEST_URL", &*url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of the run")];
    of_run();
    assert!(exchanges(&gate, "github", &github).await, "{}", gate.log());
    assert!(!exchanges(&gate, "github", &github).await, "the same token again");
    of_run();
    assert!(exchanges(&gate, "github", &github).await);
    let of_account = || {
        let said = json!({
            "iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:jobs:nightly",
        });
        says(None, &said)
    };
    let request = "/api/v1/namespaces/jobs/serviceaccounts/nightly/token";
    let mounted = tempfile::tempdir().unwrap();
    std::fs::write(mounted.path().join("token"), of_account()).unwrap();
    let api = platform.url();
    let cluster = [("KUBERNETES_API", &*api), ("SERVICE_ACCOUNT", mounted.path().to_str().unwrap())];
    for _ in 0..2 {
        platform.document(request, &json!({ "status": { "token": of_account() } }));
        assert!(exchanges(&gate, "kubernetes", &cluster).await, "{}", gate.log());
    }
    assert_eq!(platform.times(request), 2, "a new token each time");
}

fn merged(mut into: Value, from: &Value) -> Value {
    into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    into
}
