//! Common parts of tests with the real binary: gate processes, HTTP client, upstreams, sockets and certificates.
//!
//! All output of the gates goes to `target/test-output/`, which `tests/all.sh` searches for secrets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a panic fails the test, and the documentation is for authors of tests"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub mod chain;
mod client;
pub mod clients;
mod config;
pub mod device;
pub mod documents;
pub mod events;
pub mod figure;
pub mod frames;
mod gate;
pub mod generated;
pub mod history;
pub mod pki;
mod place;
pub mod postgres;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod redis_cluster;
pub mod round_trips;
pub mod server;
pub mod stub;
pub mod tls_client;
pub mod wire;

pub use client::{Answer, Tokens, raw, send, try_send};
pub use config::{CONFIG, with};
pub use gate::Gate;
pub use place::{NOBODY, Place, Ran, copy_folder, in_shell, key_file, of_another_user};

/// This build's folder, such as `target/debug`. Tests run in the subfolder `deps`.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).expect("a test is in target/*/deps").to_owned()
}

/// Returns the path of the tested binary, which cargo builds for its package's tests.
pub fn binary() -> PathBuf {
    build_folder().join("rotogate")
}

/// Repeats a check until it succeeds, for at most a minute.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never happened: {what}");
}

/// Returns the first response that is not a fault. A store may fail over more than once.
pub async fn decided(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    let mut answer = ask().await;
    until("the request is decided", async || {
        if answer.is_fault() {
            answer = ask().await;
        }
        !answer.is_fault()
    })
    .await;
    answer
}

/// Records a secret that no process may print. `tests/all.sh` searches all output for it. Tokens are recognized by
/// their format.
pub fn keep_secret(secret: &str) {
    assert!(secret.len() >= 8, "too short to be looked for");
    let escaped = serde_json::to_string(secret).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let lines = format!("{secret}\n{}\n{encoded}\n", escaped.trim_matches('"'));
    let name = format!("{}.txt", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(target_folder("test-secrets").join(name));
    // A single write prevents concurrent tests from mixing their lines.
    file.unwrap().write_all(lines.as_bytes()).unwrap();
}

/// Returns a folder in `target`. Creates a missing folder.
pub fn target_folder(name: &str) -> PathBuf {
    let folder = build_folder().parent().unwrap().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn output_file(what: &str) -> (File, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = target_folder("test-output");
    loop {
        let name = format!("{what}-{}-{}.log", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        // An earlier process may have had this process id.
        match OpenOptions::new().create_new(true).append(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            file => return (file.unwrap(), path),
        }
    }
}
