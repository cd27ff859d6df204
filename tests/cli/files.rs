//! Requirement O2 on the real binary: the modes of new files, and refused files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::{CONFIG, Place};

/// Everything below a folder, and itself.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        all.extend(fs::read_dir(path).unwrap().flat_map(|entry| tree(&entry.unwrap().path())));
    }
    all
}

#[tokio::test]
async fn o2_everything_that_a_gate_makes_is_for_its_user_alone() {
    let place = Place::new(CONFIG);
    // Holds for any umask of the operator.
    let gate = place.start_in_shell("umask 0; exec \"$@\"");
    gate.login().await;
    place.done(&["user", "add", "ada"], "a password");
    let all = tree(&place.path("data"));
    for name in ["keys", "keyring.toml", "store.mark", "users.toml", "rotogate.redb", "admin.token"] {
        assert!(all.iter().any(|path| path.ends_with(name)), "{name}: {all:?}");
    }
    for path in all {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}: {mode:o}", path.display());
    }
}

#[test]
fn o2_a_file_that_others_can_read_stops_the_start() {
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    let is_secret = |path: &PathBuf| path.is_file() && !path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let files: Vec<_> = tree(&place.path("data")).into_iter().filter(is_secret).collect();
    // keyring.toml, a key, the refresh secret, store.mark, users.toml, the store, what is owed to it, admin.token
    assert_eq!(files.len(), 8, "{files:?}");
    for file in files {
        for bad in [0o644, 0o604, 0o660] {
            fs::set_permissions(&file, fs::Permissions::from_mode(bad)).unwrap();
            let said = place.refused();
            assert!(said.contains(&format!("chmod 600 {}", file.display())), "{bad:o}: {said}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(place.path("data/keys"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(place.refused().contains("chmod 700"));
    fs::set_permissions(place.path("data/keys"), fs::Permissions::from_mode(0o700)).unwrap();
    drop(place.start());
}

/// The limits of a process.
fn limits(pid: u32, name: &str) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut values = line.split_whitespace().map(str::to_owned);
    (values.next().unwrap(), values.next().unwrap())
}

#[test]
fn o3_a_gate_leaves_no_core_dump() {
    let place = Place::new(CONFIG);
    let gate = place.start_in_shell("ulimit -c unlimited; exec \"$@\"");
    assert_eq!(limits(gate.child.id(), "Max core file size"), ("0".to_owned(), "0".to_owned()));
}

#[test]
fn a_gate_takes_as_many_open_files_as_it_may_have() {
    let place = Place::new(CONFIG);
    let gate = place.start_in_shell("ulimit -Sn 64; exec \"$@\"");
    let (soft, hard) = limits(gate.child.id(), "Max open files");
    assert_eq!(soft, hard);
}

#[test]
fn a_limit_of_open_files_below_the_connections_is_a_warning() {
    let place = Place::new(CONFIG);
    let check = |limit: &str| {
        let mut command = std::process::Command::new("bash");
        let script = format!("ulimit -n {limit}; exec \"$0\" check");
        let ran = command.args(["-c", &script]).arg(support::binary()).current_dir(place.path("")).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    let said = check("9999");
    assert!(
        said.contains("server.max_connections: is 10000, but the system allows this process only 9999 open files"),
        "{said}"
    );
    assert!(!check("10000").contains("open files"));
}
