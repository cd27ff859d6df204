//! Shared work of gates on one store: counters, keys, users, marks.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;
use support::{CONFIG, Gate, until};

use super::{node_beside, place, place_of, server, store_of};

fn kid(token: &str) -> String {
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

/// Whether a gate publishes a key for verification.
async fn has(gate: &Gate, kid: &str) -> bool {
    let published = gate.call(http::Method::GET, "/.well-known/jwks.json", &[], "").await.json();
    published["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid)
}

#[tokio::test]
async fn c29_guesses_at_one_account_are_as_few_at_two_gates_as_at_one() {
    let server = server();
    let config = CONFIG.replace("login_per_account = \"1000/1s\"", "login_per_account = \"10/1h\"");
    let place = place_of(&format!("{config}{}", store_of(&server)));
    let gates = [place.start(), place.start()];
    let mut admitted = 0;
    for n in 0..30 {
        match gates[n % 2].log_in("nobody-has-this-name", "wrong").await.status {
            StatusCode::BAD_REQUEST => admitted += 1,
            StatusCode::TOO_MANY_REQUESTS => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(admitted, 10);
    let names =
        server.sql("select count(*) from rotogate.counter where position('nobody' in encode(name, 'escape')) > 0");
    assert_eq!(names, "0", "the store learns no name");
}

#[tokio::test]
async fn c28_a_key_signs_once_every_gate_can_verify_by_it() {
    let server = server();
    let first = place(&server);
    let a = first.start();
    let other = node_beside(&first, &server);
    let b = other.start();
    let tokens = a.login().await;
    let next = first.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    until("the first gate has the key", async || has(&a, &next).await).await;
    let refused = || first.fails(&["keys", "promote", &next], "");
    until("the first gate said so", async || refused().matches("last report").count() == 1).await;
    assert!(refused().contains("cannot verify"), "{}", refused());
    other.copy_keys_from(&first);
    until("the other gate has the key", async || has(&b, &next).await).await;
    until("both gates said so", async || !refused().contains("last report")).await;
    assert!(refused().contains("published before"), "{}", refused());
    first.done(&["keys", "promote", &next, "--force"], "");
    until("it signs", async || kid(&a.login().await.access) == next).await;
    let by_next = a.login().await;
    assert_ne!(kid(&b.login().await.access), next, "the other gate has the former index");
    assert_eq!(b.get("/hello", &by_next.access).await.status, StatusCode::OK);
    assert_eq!(a.get("/hello", &tokens.access).await.status, StatusCode::OK);
    other.copy_keys_from(&first);
    until("it signs", async || kid(&b.login().await.access) == next).await;
    assert_eq!(b.refresh(&tokens.refresh).await.status, StatusCode::OK);
}

#[test]
fn c28_gates_that_start_at_once_without_keys_make_one_keyring() {
    let server = server();
    crate::redis::keys::one_makes_the_keyring(&[place(&server), place(&server), place(&server)]);
}

#[tokio::test]
async fn c28_a_store_in_postgresql_whose_first_keys_are_lost_is_begun_anew_as_the_error_says() {
    let server = server();
    drop(place(&server).start());
    let here = place(&server);
    let said = here.refused();
    let (_, remedy) = said.split_once("drop its schema (").expect(&said);
    server.sql(remedy.split_once(')').unwrap().0);
    here.start().login().await;
    fs::remove_dir_all(here.path("data/keys")).unwrap();
    let said = here.refused();
    assert!(said.contains("another keyring") && !said.contains("drop schema"), "sessions may exist: {said}");
}

#[tokio::test]
async fn a_changed_password_ends_the_sessions_of_the_old_one_at_every_gate_and_no_login_by_the_new_one() {
    let server = server();
    let here = place(&server);
    let a = here.start();
    let there = node_beside(&here, &server);
    let b = there.start();
    let before = a.login().await;
    let new = "another horse battery";
    here.point_commands_at(&a);
    here.done(&["user", "passwd", "demo", "--stdin"], &format!("{new}\n"));
    a.until_refused(&before.access).await;
    b.until_refused(&before.access).await;
    let by_new = a.log_in("demo", new).await.tokens();
    fs::copy(here.path("data/users.toml"), there.path("data/users.toml")).unwrap();
    until("the new password is known", async || b.log_in("demo", new).await.status == StatusCode::OK).await;
    for gate in [&a, &b] {
        assert_eq!(gate.get("/hello", &by_new.access).await.status, StatusCode::OK, "the new password stays");
    }
}

#[test]
fn c19_a_store_that_was_emptied_while_no_gate_ran_is_refused_until_the_operator_accepts_it() {
    let server = server();
    let here = place(&server);
    drop(here.start());
    assert!(here.path("data/store.mark").exists());
    let there = node_beside(&here, &server);
    drop(there.start());
    server.sql("drop schema rotogate cascade");
    for place in [&here, &there] {
        let refused = place.refused();
        assert!(refused.contains("store accept-restored"), "{refused}");
    }
    let said = here.run(&["check", "--online"], "");
    assert!(said.code == Some(2) && said.stderr.contains("store accept-restored"), "{said:?}");
    assert_eq!(here.json(&["store", "accept-restored"], "")["accepted"], true);
    drop(here.start());
    assert!(there.refused().contains("store accept-restored"), "each gate has a mark of its own");
}
