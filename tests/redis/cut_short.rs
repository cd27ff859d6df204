//! First starts of a gate that end between the claim of the store and the write of the index of the keys.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;

use http::StatusCode;
use support::redis::Redis;
use support::{CONFIG, Place};

use super::{place_on, store_of};

const HEAD: &str = "{rg:0}:h";

async fn serves(place: &Place) {
    let gate = place.start();
    let tokens = gate.login().await;
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
}

fn owner(server: &Redis) -> String {
    server.cli(&["HGET", HEAD, "keyring"])
}

/// The mark is written after the claim, and the name of its temporary file is too long for the file system.
#[tokio::test]
async fn c28_a_first_start_that_failed_after_it_claimed_the_store_is_completed_by_the_next() {
    let server = Redis::start(&[]);
    let place = Place::new(&format!("{CONFIG}{}mark = \"{}\"\n", store_of(&server), "m".repeat(250)));
    let refused = place.refused();
    assert!(refused.contains("too long"), "{refused}");
    let owner_then = owner(&server);
    assert!(!owner_then.is_empty(), "the store is claimed");
    place.write_config(&format!("{CONFIG}{}", store_of(&server)));
    place.done(&["check"], "");
    serves(&place).await;
    assert_eq!(owner(&server), owner_then);
}

/// Kills the gate as soon as the store is claimed.
#[tokio::test]
async fn c28_a_first_start_that_is_killed_once_the_store_is_claimed_is_completed_by_the_next() {
    let server = Redis::start(&[]);
    let mut asking = BufReader::new(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
    let mut is_claimed = || {
        asking.get_mut().write_all(format!("EXISTS {HEAD}\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        asking.read_line(&mut reply).unwrap();
        reply.trim() == ":1"
    };
    let mut cut_short = 0;
    for n in 0..6 {
        let place = place_on(&server);
        let mut gate = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !is_claimed() {
            assert!(gate.try_wait().unwrap().is_none(), "the gate ended before it claimed the store");
        }
        gate.kill().unwrap();
        gate.wait().unwrap();
        let is_cut_short = !place.path("data/keys/keyring.toml").exists();
        cut_short += usize::from(is_cut_short);
        if n % 2 == 0 {
            serves(&place).await;
        } else {
            // Another gate with a copy of the keys.
            let other = place_on(&server);
            support::copy_folder(&place.path("data/keys"), &other.path("data/keys"));
            serves(&other).await;
            if is_cut_short {
                place.done(&["keys", "init"], "");
            }
            place.done(&["keys", "list"], "");
        }
        server.cli(&["FLUSHALL"]);
    }
    eprintln!("C28 {cut_short} of 6 first starts were cut short between the claim and the index");
}

/// Deletes the keys that an error names.
fn delete(server: &Redis, said: &str) {
    let keys = said.split_once("delete its keys ").unwrap().1.split_once(',').unwrap().0;
    let command: Vec<_> = ["DEL"].into_iter().chain(keys.split(' ')).collect();
    assert_eq!(server.cli(&command), "2");
}

#[tokio::test]
async fn c28_a_store_whose_first_keys_are_lost_is_begun_anew_as_the_error_says() {
    let server = Redis::start(&[]);
    drop(place_on(&server).start());
    let place = place_on(&server);
    let said = place.refused();
    let begun = "No session ever began in the store";
    let (_, remedy) = said.split_once(begun).expect(&said);
    delete(&server, remedy);
    serves(&place).await;
    fs::remove_dir_all(place.path("data/keys")).unwrap();
    let said = place.refused();
    assert!(said.contains("another keyring") && !said.contains(begun), "sessions may exist: {said}");
    server.cli(&["FLUSHALL"]);
    // The mark of the gate that lost its keys names the former store.
    let place = place_on(&server);
    drop(place.start());
    fs::remove_dir_all(place.path("data/keys")).unwrap();
    let said = place.refused();
    assert!(said.contains(&format!("remove the file {}", place.path("data/store.mark").display())), "{said}");
    delete(&server, &said);
    fs::remove_file(place.path("data/store.mark")).unwrap();
    serves(&place).await;
}
