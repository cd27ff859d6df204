//! A read-only store.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use http::StatusCode;

use super::{Acknowledged, STORE, config, readyz};
use support::{Place, in_shell};

/// As root, drops the capabilities that override file modes.
const PLAIN: &str =
    r#"[ "$(id -u)" = 0 ] || exec "$@"; exec setpriv --bounding-set=-dac_override,-dac_read_search "$@""#;

fn set_mode(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn o4_a_store_that_may_not_be_written_stops_the_start_and_is_left_alone() {
    let place = Place::new(&config());
    let gate = place.start();
    let kept = Acknowledged { live: vec![gate.login().await], over: Vec::new() };
    assert_eq!(gate.stop(), Some(0));
    let before = fs::read(place.path(STORE)).unwrap();

    set_mode(&place, STORE, 0o400);
    let said = place.refused_with(in_shell(PLAIN));
    assert!(said.contains("rotogate.redb") && said.contains("ermission denied"), "{said}");
    set_mode(&place, STORE, 0o600);
    assert!(fs::read(place.path(STORE)).unwrap() == before, "the file was changed");

    let gate = place.start_in_shell(PLAIN);
    kept.holds(&gate).await;
}

#[tokio::test]
async fn a_folder_that_becomes_read_only_under_a_running_gate_loses_nothing() {
    let place = Place::new(&config());
    let gate = place.start_in_shell(PLAIN);
    let first = gate.login().await;
    set_mode(&place, "data", 0o500);
    set_mode(&place, "data/keys", 0o500);
    // The store is open, and writes continue.
    let answer = gate.refresh(&first.refresh).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let mut kept = Acknowledged { live: vec![answer.tokens()], over: Vec::new() };
    let over = gate.login().await;
    assert_eq!(gate.revoke(&over.refresh).await.status, StatusCode::OK);
    kept.over.push(over);
    assert_eq!(readyz(&gate).await.status, StatusCode::OK);
    drop(gate);

    // A start must write the mark. The error names the key of the configuration, the folder and the reason.
    let said = place.refused_with(in_shell(PLAIN));
    let why = "data: may not be written by user";
    assert!(said.contains(": store.mark: ") && said.contains(why), "{said}");
    set_mode(&place, "data", 0o700);
    set_mode(&place, "data/keys", 0o700);
    let gate = place.start();
    kept.holds(&gate).await;
}
