//! Keys of several gates, each with its own folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use http::StatusCode;
use serde_json::Value;
use support::redis::Redis;
use support::{CONFIG, Gate, Place, copy_folder, until, with};

use super::{node_beside, place_on, store_of};

/// Whether a gate publishes a key for verification.
pub(super) async fn has(gate: &Gate, kid: &str) -> bool {
    let published = gate.call(http::Method::GET, "/.well-known/jwks.json", &[], "").await.json();
    published["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid)
}

#[tokio::test]
async fn c28_a_gate_whose_index_names_a_key_that_it_lacks_keeps_its_keys_and_says_so() {
    let server = Redis::start(&[]);
    let first = place_on(&server);
    let a = first.start();
    let other = node_beside(&first, &server);
    let b = other.start();
    let next = first.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    fs::copy(first.path("data/keys/keyring.toml"), other.path("data/keys/keyring.toml")).unwrap();
    until("it is said", async || b.log().contains("own keys changed but cannot be used")).await;
    assert!(b.log().contains(&next), "which file");
    let tokens = a.login().await;
    assert_eq!(b.get("/hello", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(b.refresh(&tokens.refresh).await.status, StatusCode::OK);
    other.copy_keys_from(&first);
    until("the key is there", async || has(&b, &next).await).await;
}

#[tokio::test]
async fn c28_a_gate_whose_keys_are_two_steps_from_those_of_a_running_one_does_not_start() {
    let server = Redis::start(&[]);
    let first = place_on(&server);
    let a = first.start();
    let listed = first.json_lines(&["keys", "list"]);
    let old = listed[0]["kid"].as_str().unwrap().to_owned();
    let behind = node_beside(&first, &server);
    let next = first.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    let one_step = node_beside(&first, &server);
    first.done(&["keys", "promote", &next, "--force"], "");
    let retire = || first.fails(&["keys", "retire", &old], "");
    until("the gate said that it signs by the new key", async || !retire().contains("sign with it")).await;
    let said = behind.refused();
    let part = format!("has {next}, which this gate does not have, and signs with {next} (this gate: {old})");
    assert!(said.contains(&part) && said.contains("Copy the key folder"), "{said}");
    let b = one_step.start();
    behind.copy_keys_from(&first);
    let c = behind.start();
    let tokens = a.login().await;
    for gate in [&b, &c] {
        assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    }
}

/// The number of files in a key folder.
fn keys_of(place: &Place) -> usize {
    let names = fs::read_dir(place.path("data/keys")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| !name.as_encoded_bytes().starts_with(b".")).count()
}

#[test]
fn c28_gates_that_start_at_once_without_keys_make_one_keyring() {
    let server = Redis::start(&[]);
    one_makes_the_keyring(&[place_on(&server), place_on(&server), place_on(&server)]);
}

/// Of three gates that start at once without keys, one makes the keyring.
pub(crate) fn one_makes_the_keyring(places: &[Place; 3]) {
    let begin = |place: &Place| place.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut gates = places.each_ref().map(begin);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        for (n, gate) in gates.iter_mut().enumerate() {
            if !ended.contains(&n) && gate.try_wait().unwrap().is_some() {
                ended.push(n);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let winner = (0..3).find(|n| !ended.contains(n)).unwrap();
    // The others end as soon as the store names the winner's key ring, whose last file is written after that.
    while keys_of(&places[winner]) < 3 && gates[winner].try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    gates[winner].kill().unwrap();
    for (n, gate) in gates.into_iter().enumerate() {
        let said = String::from_utf8(gate.wait_with_output().unwrap().stderr).unwrap();
        let keys = keys_of(&places[n]);
        if n == winner {
            assert_eq!(keys, 3, "index, key and secret");
        } else {
            assert!(said.contains("Copy the key folder"), "{said}");
            assert_eq!(keys, 0, "nothing is left behind");
        }
    }
    assert!(places[winner].command().args(["keys", "list"]).status().unwrap().success());
}

#[test]
fn c28_gates_of_one_key_folder_that_start_at_once_share_what_the_first_one_makes() {
    let server = Redis::start(&[]);
    let shared = tempfile::tempdir().unwrap();
    let keys = with(CONFIG, "issuer", &format!("keys = \"{}\"", shared.path().join("keys").display()));
    let config = format!("{keys}{}", store_of(&server));
    let places = [Place::new(&config), Place::new(&config), Place::new(&config)];
    let gates = std::thread::scope(|scope| {
        places.each_ref().map(|place| scope.spawn(|| place.start())).map(|gate| gate.join().unwrap())
    });
    assert_eq!(server.cli(&["HLEN", "{rg:0}:n"]), "3");
    drop(gates);
}

/// The form in which Kubernetes mounts a secret: links through `..data`, which is swapped.
fn mount(folder: &Path, version: &str, from: &Path) {
    let content = folder.join(format!("..{version}"));
    copy_folder(from, &content);
    let link = folder.join("..data_tmp");
    symlink(format!("..{version}"), &link).unwrap();
    fs::rename(link, folder.join("..data")).unwrap();
    for entry in fs::read_dir(&content).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && !folder.join(&name).exists() {
            symlink(Path::new("..data").join(&name), folder.join(&name)).unwrap();
        }
    }
}

#[tokio::test]
async fn c19_c28_keys_that_are_mounted_are_swapped_and_never_written() {
    let server = Redis::start(&[]);
    let first = place_on(&server);
    let a = first.start();
    let mounted = tempfile::tempdir().unwrap();
    mount(mounted.path(), "1", &first.path("data/keys"));
    let keys = with(CONFIG, "issuer", &format!("keys = \"{}\"", mounted.path().display()));
    let other = Place::new(&format!("{keys}{}", store_of(&server)));
    fs::create_dir_all(other.path("data")).unwrap();
    fs::copy(first.path("data/users.toml"), other.path("data/users.toml")).unwrap();
    let files = || {
        let entries = fs::read_dir(mounted.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    let b = other.start();
    let tokens = a.login().await;
    assert_eq!(b.refresh(&tokens.refresh).await.status, StatusCode::OK);
    assert_eq!(files(), before, "nothing is written beside the keys");
    assert!(other.path("data/store.mark").exists());
    let next = first.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    mount(mounted.path(), "2", &first.path("data/keys"));
    until("the swapped keys are in force", async || has(&b, &next).await).await;
    // Several gates on one machine may share a mark.
    let sequence = |mark: &Path| {
        let mark: Value = serde_json::from_slice(&fs::read(mark).unwrap()).unwrap();
        mark["sequence"].as_u64().unwrap()
    };
    let mark = other.path("data/store.mark");
    let known = sequence(&mark);
    let third = other.start();
    assert!(sequence(&mark) > known, "raised by another start");
    drop((third, b, a));
    // The store is emptied, or an older copy is restored.
    server.cli(&["FLUSHALL"]);
    let refused = other.refused();
    assert!(refused.contains("LOOKS LIKE A RESTORED BACKUP") && refused.contains("store accept-restored"), "{refused}");
    assert_eq!(other.json(&["store", "accept-restored"], "")["accepted"], true);
    drop(other.start());
}
