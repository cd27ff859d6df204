//! Kuzzle's own SDK for JavaScript, from the registry, drives the real binary. Needs node and npm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use support::{CONFIG, Gate, Place};

fn config() -> String {
    let routes = CONFIG.replace("path = \"/{*rest}\"", "dialect = \"kuzzle\"\npath = \"/{*rest}\"");
    format!("{routes}\n[[endpoints]]\ndialect = \"kuzzle\"\n")
}

/// One test at a time installs.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The SDK in a folder that git ignores, as the lock file says.
fn installed() -> PathBuf {
    let _alone = INSTALLING.lock();
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
    drive_with(script, gate, &[]);
}

fn drive_with(script: &str, gate: &Gate, more: &[(&str, &str)]) {
    let node = Command::new("node")
        .arg(script)
        .current_dir(installed())
        .env("GATE_PORT", gate.address.port().to_string())
        .env("GATE_PID", gate.child.id().to_string())
        .env("GATE_PASSWORD", &gate.password)
        .envs(more.iter().copied())
        .output()
        .expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
    let said = String::from_utf8_lossy(&node.stderr);
    assert!(node.status.success(), "{script}: {said}");
    assert_eq!(String::from_utf8_lossy(&node.stdout).trim(), "the SDK is content", "{script} ran to its end");
}

#[test]
fn kuzzle_sdk_over_http_lives_a_whole_life() {
    let place = Place::new(&config());
    drive("http.js", &place.start());
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn t9_kuzzle_sdk_over_websocket_lives_a_whole_life() {
    let mut upstream = Command::new("node");
    upstream.arg("upstream.js").current_dir(installed()).stdout(Stdio::piped());
    let upstream = upstream.spawn().expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
    let mut upstream = Running(upstream);
    let mut port = String::new();
    BufReader::new(upstream.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let route = format!(
        "[[upstreams]]\nname = \"kuzzle\"\nurls = [\"http://127.0.0.1:{}\"]\n\
         [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"kuzzle\"\n",
        port.trim()
    );
    let text = config().replace("audience = [\"api\"]", "audience = [\"api\"]\nleeway = \"0s\"");
    let place = Place::new(&format!("{text}{route}"));
    drive("socket.js", &place.start());
}

/// A Kuzzle server's own actions are known to the SDK: by the upstream's list, or by the SDK's own where the route of that
/// list is not for everyone.
#[test]
fn kuzzle_sdk_over_http_calls_the_upstreams_controllers() {
    let mut upstream = Command::new("node");
    upstream.args(["controllers.js", "upstream"]).current_dir(installed()).stdout(Stdio::piped());
    let upstream = upstream.spawn().expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
    let mut upstream = Running(upstream);
    let mut port = String::new();
    BufReader::new(upstream.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let text = config().replace("echo:", &format!("http://127.0.0.1:{}", port.trim()));
    let public = "[[routes]]\npath = \"/_publicApi\"\nauth = \"none\"\ndialect = \"kuzzle\"\nupstream = \"app\"\n";
    for more in [public, ""] {
        let place = Place::new(&format!("{text}{more}"));
        let mut gate = place.start();
        drive_with("controllers.js", &gate, &[("PUBLIC", if more.is_empty() { "0" } else { "1" })]);
        gate.kill();
    }
}
