//! Kuzzle's own SDK for JavaScript, from the registry, drives the real binary. Needs node and npm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{CONFIG, Gate, Place};

fn config() -> String {
    let routes = CONFIG.replace("path = \"/{*rest}\"", "dialect = \"kuzzle\"\npath = \"/{*rest}\"");
    format!("{routes}\n[[endpoints]]\ndialect = \"kuzzle\"\n")
}

/// The SDK in a folder that git ignores, as the lock file says.
fn installed() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/kuzzle");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("interop-cache/kuzzle");
    fs::create_dir_all(&cache).unwrap();
    let lock = fs::read(ours.join("package-lock.json")).unwrap();
    let is_there = cache.join("node_modules").exists() && fs::read(cache.join("package-lock.json")).ok() == Some(lock);
    for file in fs::read_dir(&ours).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), cache.join(file.file_name())).unwrap();
    }
    if !is_there {
        let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&cache).output();
        let npm = npm.expect("npm is missing: install Node.js 20 or later to run Kuzzle's SDK");
        assert!(npm.status.success(), "npm ci: {}", String::from_utf8_lossy(&npm.stderr));
    }
    cache
}

fn drive(script: &str, gate: &Gate) {
    let node = Command::new("node")
        .arg(script)
        .current_dir(installed())
        .env("GATE_PORT", gate.address.port().to_string())
        .env("GATE_PASSWORD", &gate.password)
        .output()
        .expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
    let said = String::from_utf8_lossy(&node.stderr);
    assert!(node.status.success(), "{script}: {said}");
}

#[test]
fn kuzzle_sdk_over_http_lives_a_whole_life() {
    let place = Place::new(&config());
    drive("http.js", &place.start());
}
