//! The five mistakes of a new user: each gets a text that helps.

use std::fs::File;
use std::net::TcpListener;

use http::StatusCode;

use super::assert_invalid_grant;
use support::{CONFIG, Place};

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (section, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let place = Place::new(&CONFIG.replace(
            &format!("[{section}]\nlisten = \"127.0.0.1:0\""),
            &format!("[{section}]\nlisten = \"{address}\""),
        ));
        let said = place.refused();
        assert!(said.contains(&address.to_string()) && said.contains(key), "{said}");
        assert!(said.contains("another program listens there"), "{said}");
        assert!(!place.path("data").exists(), "nothing was made by a start that failed");
    }
}

#[test]
fn o10_a_misspelt_key_stops_the_start_and_what_was_meant_is_named() {
    let place = Place::new(&CONFIG.replace("drain_timeout", "drain_timout"));
    let ran = place.run(&[], "");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("server.drain_timout: unknown key; did you mean drain_timeout?"), "{ran:?}");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502_and_a_warning_that_names_it() {
    let place = Place::new(&CONFIG.replace("echo:", "http://127.0.0.1:1"));
    let gate = place.start();
    let answer = gate.get("/public/a", "x").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(!String::from_utf8_lossy(&answer.body).contains("127.0.0.1"), "the caller learns no address");
    let log = gate.log();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("127.0.0.1:1"));
    assert!(warning.is_some_and(|line| line.contains("upstream=app ")), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in what is no terminal");
}

#[tokio::test]
async fn a_wrong_password_is_invalid_grant_and_does_not_say_which_part_is_wrong() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let wrong = gate.log_in("demo", "not the password").await;
    assert_invalid_grant(&wrong);
    let unknown = gate.log_in("nobody", "not the password").await;
    assert_invalid_grant(&unknown);
    assert_eq!(wrong.body, unknown.body);
    let log = gate.log();
    assert!(!log.contains("not the password"));
    // The name field may contain a password, so the name of an unknown user is not written.
    assert!(log.contains("event.action=session.start_refused") && !log.contains("nobody"), "{log}");
}

#[tokio::test]
async fn a_store_that_another_gate_uses_is_not_opened() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let said = place.refused();
    assert!(said.contains("rotogate.redb") && said.contains("in use by another process"), "{said}");
    gate.login().await;
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[tokio::test]
async fn a_gate_whose_log_cannot_be_written_serves_all_the_same() {
    let place = Place::new(CONFIG);
    let gate = place.start_with(|command| {
        command.stderr(full());
    });
    let tokens = gate.login().await;
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_no_panic() {
    let place = Place::new(CONFIG);
    let output = place.command().arg("check").stdout(full()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("rotogate: ") && !said.contains("panicked"), "{said}");
}
