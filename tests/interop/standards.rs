//! Standard libraries and the official MCP SDK against the real binary. `tests/interop/standards/install.sh` installs
//! them, pinned, into `target/interop-cache`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::stub::{Edge, HEAD};
use support::{keep_secret, with};

/// The scripts, by the algorithm of the gate whose assertions they verify.
const FILES: [(&str, &[&str]); 2] =
    [("EdDSA", &["assertion.mjs", "assertion.py", "assertion.go"]), ("ES256", &["Assertion.java", "assertion.rb"])];
/// Debian's Jackson.
const JACKSON: [&str; 3] = ["databind", "core", "annotations"];

fn source() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/interop/standards")
}

fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let files: Vec<_> = FILES.iter().flat_map(|(_, files)| *files).copied().collect();
        support::clients::installed_with("interop/standards", &files)
    })
}

fn run(file: &str, arguments: &[&str]) -> Output {
    let file = cache().join(file);
    let mut command = match file.extension().and_then(|ending| ending.to_str()) {
        Some("mjs") => Command::new("node"),
        Some("py") => Command::new(cache().join("python/bin/python")),
        Some("rb") => Command::new("ruby"),
        Some("java") => {
            let mut java = Command::new("java");
            java.arg("-cp").arg(JACKSON.map(|part| format!("/usr/share/java/jackson-{part}.jar")).join(":"));
            java
        }
        _ => {
            let mut go = Command::new("go");
            go.arg("run").env("GO111MODULE", "off").env("GOFLAGS", "");
            go
        }
    };
    command.arg(file).args(arguments).output().expect("node, python3, go, java or ruby is missing: tests/setup.sh")
}

#[test]
fn n57_n58_libraries_of_five_languages_verify_an_assertion_and_nothing_else() {
    std::thread::scope(|scope| {
        for (algorithm, files) in FILES {
            scope.spawn(move || verify_with(algorithm, files));
        }
    });
}

const STATUS: [&str; 2] = ["status_list.mjs", "status_list.py"];

/// The path of the list that a token of this gate names.
fn path_of_list(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    claims["status"]["status_list"]["uri"].as_str().unwrap().replace("http://gate.test", "")
}

fn answer(file: &str, arguments: &[&str]) -> String {
    support::clients::put(&source().join(file), &cache().join(file));
    let ran = run(file, arguments);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_sd_jwt_and_pyjwt_read_our_status_list_and_the_gate_reads_one_of_sd_jwt() {
    let routes = "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n";
    let config = with(&[HEAD, routes].concat(), "status_list", "ttl = \"5s\"\nsize = \"2^14\"");
    let ours = Edge::with(&config, |_| {}, |_| {});
    let (held, other) = (ours.login(), ours.login());
    let gate = ours.gate.url("");
    let read = |token: &str| answer(STATUS[0], &["read", &gate, token]);
    let pyjwt = |token: &str| answer(STATUS[1], &[&gate, token]);
    let number = path_of_list(&held.access);
    support::until("the list is published", async || ours.gate.get(&number, "").await.status == 200).await;
    assert_eq!((read(&held.access), read(&other.access)), ("0".into(), "0".into()));
    assert_eq!(ours.gate.revoke(&held.refresh).await.status, 200);
    support::until("the logout is read", async || read(&held.access) == "1").await;
    assert_eq!((read(&other.access), pyjwt(&held.access), pyjwt(&other.access)), ("0".into(), "1".into(), "0".into()));

    let idp = support::documents::Documents::start();
    let made = answer(STATUS[0], &["make", &idp.url(), &idp.at("/status/1")]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    idp.document("/keys", &serde_json::json!({ "keys": [made["jwk"]] }));
    let list = made["list"].as_str().unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/statuslist+jwt\r\nconnection: close\r\n";
    idp.answer("/status/1", format!("{head}content-length: {}\r\n\r\n{list}", list.len()));
    let trusted = format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{url}\"\naudience = [\"api\"]\nscopes = \"any\"\neverywhere = true\n\
         jwks_url = \"{keys}\"\nstatus_list = {{ prefixes = [\"{url}/status/\"] }}\n",
        url = idp.url(),
        keys = idp.at("/keys")
    );
    let edge = Edge::with(&[HEAD, routes, &trusted].concat(), |_| {}, |_| {});
    let said: Vec<_> = made["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    let statuses: Vec<_> = said.iter().map(|token| edge.ask_as(token, "GET /x", &[]).status).collect();
    assert_eq!(statuses, [200, 401, 401, 200, 401, 401], "valid, two ended, valid, one more, beyond the list");
}

fn verify_with(algorithm: &str, files: &[&str]) {
    let routes = r#"
[identity]
assertion = { header = "x-auth-assertion" }
[[upstreams]]
name = "other"
urls = ["http://@upstream@"]
[[routes]]
path = "/other/{*rest}"
upstream = "other"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
    let config = with(&[HEAD, routes].concat(), "issuer", &format!("algorithm = \"{algorithm}\""));
    let edge = Edge::with(&config, |_| {}, |_| {});
    assert!(HEAD.contains("http://gate.test"), "the scripts know the issuer");
    let tokens = edge.login();
    let asserted = |path: &str| {
        assert_eq!(edge.ask_as(&tokens.access, &format!("GET {path}"), &[]).status, 200);
        let received = edge.stub.one();
        let [assertion, subject] = ["x-auth-assertion", "x-auth-subject"].map(|name| received.all(name)[0].to_owned());
        keep_secret(&assertion);
        (assertion, subject)
    };
    let ((good, subject), (other, _)) = (asserted("/x"), asserted("/other/x"));
    let (head, tail) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    let gate = edge.gate.url("");
    let page = std::fs::read_to_string(source().join("../../../docs/assertion.md")).unwrap();
    for file in files {
        let text = std::fs::read_to_string(source().join(file)).unwrap();
        let (_, snippet) = text.split_once("Snippet:\n").unwrap();
        assert!(page.contains(snippet), "docs/assertion.md does not show {file} as it was run");
        let ran = run(file, &[&gate, &good]);
        assert!(ran.status.success(), "{file}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), subject, "{file}");
        // An assertion for another upstream, a forged one, and an access token.
        for (what, text) in [("other", &other), ("forged", &forged), ("token", &tokens.access)] {
            assert!(!run(file, &[&gate, text]).status.success(), "{file} accepts: {what}");
        }
    }
}
