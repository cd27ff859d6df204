//! The parts of the program (requirement O11): the lock file of the tests, and our own sources.
//!
//! `cargo deny check` judges licences, sources and bans in the GitHub workflow. These few rules hold without it, because
//! `tests/all.sh` must run where nothing but Rust and Debian's packages can be installed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Names and versions of all packages.
fn locked() -> Vec<(String, Vec<u64>)> {
    let text = fs::read_to_string(root("Cargo.lock")).unwrap();
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(" = ").trim_matches('"').to_owned()
    };
    let package = |block: &str| {
        let version = value(block, "version");
        let version = version.split(['-', '+']).next().unwrap();
        (value(block, "name"), version.split('.').map(|part| part.parse().unwrap()).collect())
    };
    text.split("[[package]]\n").skip(1).map(package).collect()
}

#[test]
fn o11_what_had_known_holes_is_newer_than_its_fix() {
    let locked = locked();
    for (name, least) in [
        // CVE-2026-25537.
        ("jsonwebtoken", [10, 3, 0]),
        ("h2", [0, 4, 4]),
        ("hyper", [1, 12, 0]),
        // RUSTSEC-2024-0003, RUSTSEC-2024-0332.
        ("tokio", [1, 54, 0]),
    ] {
        let found: Vec<_> = locked.iter().filter(|(other, _)| other == name).collect();
        assert!(!found.is_empty(), "{name}");
        for (_, version) in found {
            assert!(version.as_slice() >= &least[..], "{name} {version:?}");
        }
    }
}

#[test]
fn o11_one_library_does_the_cryptography() {
    let locked = locked();
    let denied = fs::read_to_string(root("deny.toml")).unwrap();
    for unwanted in ["openssl", "openssl-sys", "rsa", "native-tls"] {
        assert!(!locked.iter().any(|(name, _)| name == unwanted), "{unwanted}");
        assert!(denied.contains(&format!("name = \"{unwanted}\"")), "deny.toml stops {unwanted}, too");
    }
    // In the lock file as an optional dependency of other packages, but never built: `cargo deny` checks built
    // packages.
    assert!(denied.contains("name = \"ring\""));
    let manifest = fs::read_to_string(root("Cargo.toml")).unwrap();
    let is_of_tls = |line: &&str| line.contains("rustls = {") || line.contains("rcgen = {");
    for line in manifest.lines().filter(|line| is_of_tls(line) && !line.contains("opt-level")) {
        let inherits = line.contains("workspace = true") && !line.contains("default-features = true");
        assert!((inherits || line.contains("default-features = false")) && !line.contains("\"ring\""), "{line}");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// A resource server compiles no password hashing and no store, and at most these packages.
#[test]
fn o11_a_resource_server_needs_few_crates() {
    let features = ["--no-default-features", "--features", "remote-keys"];
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "rotogate", "--edges", "normal,build", "--prefix", "none"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let names: BTreeSet<&str> = crates.iter().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("rotogate"), "{tree}");
    // Five of them read key sets that a cache has compressed, two encode a provider's reply that is kept.
    assert!(crates.len() - 1 <= 122, "{} crates besides: {crates:?}", crates.len() - 1);
    for unwanted in ["argon2", "redb", "redis", "tokio-postgres", "axum"] {
        assert!(!names.contains(unwanted), "{unwanted}");
    }
}

#[test]
fn o11_no_source_of_ours_is_unsafe() {
    assert!(fs::read_to_string(root("Cargo.toml")).unwrap().contains("unsafe_code = \"forbid\""));
    for path in [sources(&root("src")), sources(&root("crates"))].concat() {
        let text = fs::read_to_string(&path).unwrap();
        // Code cannot lift `forbid` again. The check of files covers crates that lack the attribute.
        assert!(!text.contains("unsafe {") && !text.contains("unsafe fn"), "{}", path.display());
    }
}
