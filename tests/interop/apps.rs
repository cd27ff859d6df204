//! The session of `examples/client/session.mjs`, which docs/apps.md recommends, against the real binary in Node.js.

use std::path::Path;
use std::process::Command;

use support::{CONFIG, Place, keep_secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n77_the_session_of_the_documents_refreshes_once_and_survives_lost_responses() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    keep_secret(&gate.password);
    let tests = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/apps.mjs"));
    let ran = Command::new("node")
        .arg(tests)
        .args([format!("http://{}", gate.address), gate.password.clone()])
        .output()
        .expect("Node.js is missing: install Node.js 20 or later");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 7, "{said}");
}
