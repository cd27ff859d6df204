//! Standard libraries and the official MCP SDK against the real binary. `tests/interop/standards/install.sh` installs
//! them, pinned, into `target/interop-cache`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

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
    let gate = edge.gate.url("");
    let page = std::fs::read_to_string(source().join("../../../docs/assertion.md")).unwrap();
    for file in files {
        let text = std::fs::read_to_string(source().join(file)).unwrap();
        let (_, snippet) = text.split_once("Snippet:\n").unwrap();
        assert!(page.contains(snippet), "docs/assertion.md does not show {file} as it was run");
        // New ones for each program, because a minute is their life.
        let ((good, subject), (other, _)) = (asserted("/x"), asserted("/other/x"));
        let (head, tail) = good.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        let ran = run(file, &[&gate, &good]);
        assert!(ran.status.success(), "{file}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), subject, "{file}");
        // An assertion for another upstream, a forged one, and an access token.
        for (what, text) in [("other", &other), ("forged", &forged), ("token", &tokens.access)] {
            assert!(!run(file, &[&gate, text]).status.success(), "{file} accepts: {what}");
        }
    }
}
