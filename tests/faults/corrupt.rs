//! Flipped bits on the disk.

use std::fs;

use http::StatusCode;

use super::{Acknowledged, STORE, config};
use support::Place;

/// The number of damaged places, one at a time.
const PLACES: usize = 24;
const PAGE: usize = 4096;

#[tokio::test]
async fn o4_a_flipped_bit_is_found_or_does_not_matter_wherever_it_lies() {
    let place = Place::new(&config());
    let gate = place.start();
    let mut kept = Acknowledged::default();
    for _ in 0..8 {
        kept.live.push(gate.login().await);
    }
    let over = gate.login().await;
    assert_eq!(gate.revoke(&over.refresh).await.status, StatusCode::OK);
    kept.over.push(over);
    assert_eq!(gate.stop(), Some(0));
    // A copy of the store has few unused pages.
    assert_eq!(place.run(&["store", "backup", "good.redb"], "").code, Some(0));
    fs::rename(place.path("good.redb"), place.path(STORE)).unwrap();
    let good = fs::read(place.path(STORE)).unwrap();

    // Most of the file is the list of free pages, so half of the places are chosen in the pages of sessions.
    let page = |at: usize| &good[at / PAGE * PAGE..][..PAGE];
    let has_session = |at: &usize| page(*at).windows(6).any(|text| text == b"oauth2");
    let written: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let of_sessions: Vec<usize> = written.iter().copied().filter(has_session).collect();
    let mut found = 0;
    for nth in 0..PLACES {
        let places = if nth % 2 == 0 { &of_sessions } else { &written };
        let at = places[nth * (places.len() - 1) / (PLACES - 1)];
        let mut bad = good.clone();
        bad[at] ^= 1 << (nth % 8);
        fs::write(place.path(STORE), &bad).unwrap();
        let started = place.run(&["store", "backup", "copy.redb"], "");
        if started.code == Some(0) {
            // The whole file was read, and this bit belongs to no record of the store.
            fs::remove_file(place.path("copy.redb")).unwrap();
            let gate = place.start();
            kept.holds(&gate).await;
            drop(gate);
        } else {
            let said = place.refused();
            assert!(said.contains("rotogate.redb") && said.contains("left as it was"), "byte {at}: {said}");
            assert!(fs::read(place.path(STORE)).unwrap() == bad, "byte {at}: the file was changed");
            found += 1;
        }
        fs::write(place.path(STORE), &good).unwrap();
    }
    println!("{found} of {PLACES} were found");
    assert!(found > PLACES / 6, "{found} of {PLACES} were found");
    let gate = place.start();
    kept.holds(&gate).await;
}
