//! A users file with as many users as it should have: the memory that it needs in a gate, and the time of a command that
//! adds one user while the gate runs. And the time of an import of fifty thousand users into a database.
//!
//!     cargo bench --bench users --features sql           # 2000
//!     cargo bench --bench users --features sql -- 1000   # another size of the file
//!
//! The program itself runs, so the figures include its start, its password hash, the sync of the disk, and the wait
//! until the gate has read the file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rotogate_directories::users::MAX_USERS;
use support::program::{self, Gate, free_port, goal, rotogate};
use support::{measures, quantile};

/// The users of the import.
const IMPORTED: usize = 50_000;
/// The goals for an import of this many users.
const MEMORY_MIB: f64 = 60.0;
const ADD_SECONDS: f64 = 0.2;
const IMPORT_SECONDS: f64 = 10.0;

/// Runs a command to its end. Returns the time that it took.
fn timed(folder: &Path, arguments: &[&str], input: &str) -> Duration {
    let start = Instant::now();
    let mut child = rotogate(folder).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{arguments:?} failed");
    start.elapsed()
}

/// A folder with a configuration and this many users.
fn folder(users: usize) -> tempfile::TempDir {
    let folder = program::folder(|_| program::CONFIG.replace("ADMIN", &free_port().to_string()));
    let mut text = String::from("# Users of the gate.\n");
    for user in 0..users {
        write!(
            text,
            "\n[[users]]\nsubject = \"0198f0a4-0000-7000-8000-{user:012}\"\nusername = \"user{user}\"\n\
             password = \"$argon2id$v=19$m=19456,t=2,p=1${user:021}A$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc\"\n\
             active = true\nsessions_valid_from = 2026-01-31T12:00:00.123Z\nscopes = [\"read\", \"write\"]\n\
             profile = {{ email = \"user{user}@example.com\" }}\n"
        )
        .unwrap();
    }
    let path = folder.path().join("data/users.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let users = asked.unwrap_or(if measures() { MAX_USERS } else { 200 });
    println!("{users} users");

    let one = Gate::start(folder(1).path()).memory("VmRSS:");
    let many = folder(users);
    let size = fs::metadata(many.path().join("data/users.toml")).unwrap().len();
    println!("the file                                                   {:>8.2} MiB", size as f64 / 1048576.0);
    let start = Instant::now();
    let gate = Gate::start(many.path());
    println!("from start to listening                                    {:>8.2} s", start.elapsed().as_secs_f64());
    let peak = gate.memory("VmHWM:") - one;
    goal("memory of the gate, beyond that with one user", gate.memory("VmRSS:") - one, MEMORY_MIB, "MiB");
    println!("the same at its peak                                       {peak:>8.2} MiB");

    let rounds = if measures() { 9 } else { 1 };
    let seconds: Vec<f64> = (0..rounds)
        .map(|round| {
            let name = format!("added{round}");
            timed(many.path(), &["user", "add", &name, "--stdin"], "correct horse\n").as_secs_f64()
        })
        .collect();
    goal("user add, while the gate runs: median", quantile(&seconds, 0.5), ADD_SECONDS, "s");
    let grown = gate.memory("VmRSS:") - one;
    goal("memory of the gate after these reloads", grown, MEMORY_MIB, "MiB");
    drop(gate);
    let seconds: Vec<f64> = (0..rounds)
        .map(|round| {
            let name = format!("more{round}");
            timed(many.path(), &["user", "add", &name, "--stdin"], "correct horse\n").as_secs_f64()
        })
        .collect();
    goal("user add, without a gate: median", quantile(&seconds, 0.5), ADD_SECONDS, "s");

    let empty = folder(1);
    let path = empty.path().join("old.jsonl");
    let imported = if measures() { IMPORTED } else { 200 };
    let lines: String = (0..imported)
        .map(|user| {
            format!(
                "{{\"username\":\"old{user}\",\"subject\":\"old-{user}\",\"profile\":{{\"email\":\"old{user}@example.com\"}},\
                 \"password_hash\":\"$2b$12$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6\"}}\n"
            )
        })
        .collect();
    fs::write(&path, lines).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["user", "import", path.to_str().unwrap(), "--to", "sqlite:data/users.db"];
    let took = timed(empty.path(), &arguments, "").as_secs_f64();
    goal(&format!("user import of {imported} into a database"), took, IMPORT_SECONDS, "s");
}
