//! Keys of several gates, each of which has a folder of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;
use support::redis::Redis;
use support::{CONFIG, Gate, Place, until, with};

use super::{copy_folder, node_beside, place_on, store_of};

fn kid(token: &str) -> String {
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

/// The keys before the index that names them, as an operator copies them.
fn copy_keys(from: &Place, to: &Place) {
    let keys = |place: &Place| place.path("data/keys");
    for entry in fs::read_dir(keys(from)).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name != "keyring.toml" && !name.as_encoded_bytes().starts_with(b".") {
            fs::copy(entry.path(), keys(to).join(name)).unwrap();
        }
    }
    fs::copy(keys(from).join("keyring.toml"), keys(to).join("keyring.toml")).unwrap();
}

/// Whether a gate can verify by a key, as it publishes.
async fn has(gate: &Gate, kid: &str) -> bool {
    let published = gate.call(http::Method::GET, "/.well-known/jwks.json", &[], "").await.json();
    published["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid)
}

/// Clients whose every request goes to the next gate. None may be refused.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(gates: &[Arc<Gate>; 3]) -> Self {
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |first: usize| {
            let (gates, stop, requests) = (gates.clone(), Arc::clone(&stop), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut tokens = gates[first % 3].login().await;
                let mut turn = first;
                while !stop.load(Ordering::SeqCst) {
                    for _ in 0..3 {
                        turn += 1;
                        let answer = gates[turn % 3].get("/hello", &tokens.access).await;
                        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    }
                    let answer = gates[turn % 3].refresh(&tokens.refresh).await;
                    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    tokens = answer.tokens();
                    turn += 1;
                    requests.fetch_add(4, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..6).map(client).collect();
        Self { stop, requests, clients }
    }

    /// Goes on for some more requests.
    async fn goes_on(&self) {
        let until_then = self.requests.load(Ordering::SeqCst) + 100;
        until("requests go on", async || {
            self.requests.load(Ordering::SeqCst) > until_then || self.clients.iter().any(|client| client.is_finished())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c28_a_key_is_rolled_over_three_gates_under_load_and_no_request_is_refused() {
    let server = Redis::start(&[]);
    let first = place_on(&server);
    let a = first.start();
    let others = [node_beside(&first, &server), node_beside(&first, &server)];
    let [b, c] = others.each_ref().map(Place::start);
    let gates = [a, b, c].map(Arc::new);
    let load = Load::on(&gates);
    load.goes_on().await;
    let added = first.json(&["keys", "add"], "");
    let next = added["kid"].as_str().unwrap().to_owned();
    until("the first gate has the key", async || has(&gates[0], &next).await).await;
    let refused = || first.fails(&["keys", "promote", &next], "");
    until("the first gate said so", async || refused().matches("heard of").count() == 2).await;
    assert!(refused().contains("cannot verify"), "{}", refused());
    load.goes_on().await;
    for (other, gate) in others.iter().zip(&gates[1..]) {
        copy_keys(&first, other);
        until("another gate has the key", async || has(gate, &next).await).await;
        load.goes_on().await;
    }
    until("all gates said so", async || !refused().contains("heard of")).await;
    assert!(refused().contains("published before"), "{}", refused());
    // The gates take it up one after the other.
    first.done(&["keys", "promote", &next, "--force"], "");
    for (other, gate) in others.iter().zip(&gates[1..]) {
        load.goes_on().await;
        copy_keys(&first, other);
        until("it signs", async || kid(&gate.login().await.access) == next).await;
    }
    until("it signs", async || kid(&gates[0].login().await.access) == next).await;
    load.goes_on().await;
    load.end().await;
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
    copy_keys(&first, &other);
    until("the key is there", async || has(&b, &next).await).await;
}

#[test]
fn c28_gates_that_start_at_once_without_keys_make_one_keyring() {
    let server = Redis::start(&[]);
    let places = [place_on(&server), place_on(&server), place_on(&server)];
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
    gates[winner].kill().unwrap();
    for (n, gate) in gates.into_iter().enumerate() {
        let said = String::from_utf8(gate.wait_with_output().unwrap().stderr).unwrap();
        let keys = fs::read_dir(places[n].path("data/keys")).unwrap().map(|entry| entry.unwrap().file_name());
        let keys = keys.filter(|name| !name.as_encoded_bytes().starts_with(b".")).count();
        if n == winner {
            assert_eq!(keys, 3, "index, key and secret");
        } else {
            assert!(said.contains("copy the key folder"), "{said}");
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

/// As Kubernetes mounts a secret: links through `..data`, which is swapped.
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
    // Several gates on one machine may have one mark.
    let sequence = |mark: &Path| {
        let mark: Value = serde_json::from_slice(&fs::read(mark).unwrap()).unwrap();
        mark["sequence"].as_u64().unwrap()
    };
    let mark = other.path("data/store.mark");
    let known = sequence(&mark);
    let third = other.start();
    assert!(sequence(&mark) > known, "raised by another start");
    drop((third, b, a));
    // The store is emptied, or an older one is put back.
    server.cli(&["FLUSHALL"]);
    let refused = other.refused();
    assert!(refused.contains("LOOKS LIKE A RESTORED BACKUP") && refused.contains("accept_restored_store"), "{refused}");
    other.write_config(&format!("{keys}{}accept_restored_store = true\n", store_of(&server)));
    drop(other.start());
    other.write_config(&format!("{keys}{}", store_of(&server)));
    drop(other.start());
}
