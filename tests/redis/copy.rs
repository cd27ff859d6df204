//! The sessions of one store in another.

use http::StatusCode;
use support::redis::Redis;
use support::{CONFIG, Gate, Place, Tokens, with};

use super::store_of;

/// A live session refreshes at a gate, and an ended one is refused. Returns the next tokens of the live one.
async fn go_on(gate: &Gate, live: &Tokens, ended: &Tokens) -> Tokens {
    assert_eq!(gate.get("/hello", &live.access).await.status, StatusCode::OK);
    assert_eq!(gate.get("/hello", &ended.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.refresh(&ended.refresh).await.status, StatusCode::BAD_REQUEST);
    let next = gate.refresh(&live.refresh).await;
    assert_eq!(next.status, StatusCode::OK, "{next:?}");
    let next = next.tokens();
    assert_eq!(gate.refresh(&live.refresh).await.tokens(), next, "a repeat gets the same pair");
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn c31_sessions_go_on_in_a_copied_store_and_revoked_ones_stay_revoked() {
    let server = Redis::start(&[]);
    there_and_back(&Place::new(CONFIG), &store_of(&server)).await;
}

/// Copies from the embedded store into the store of a `[store]` section, and back into another embedded store.
pub(crate) async fn there_and_back(place: &Place, store: &str) {
    let gate = place.start();
    let (live, ended) = (gate.login().await, gate.login().await);
    assert_eq!(gate.revoke(&ended.refresh).await.status, StatusCode::OK);
    let shared = format!("{CONFIG}{store}");
    std::fs::write(place.path("shared.toml"), &shared).unwrap();
    let shared_path = place.path("shared.toml");
    let to_shared = ["store", "copy", "--to-config", shared_path.to_str().unwrap()];
    let said = place.fails(&to_shared, "");
    assert!(said.contains("another process"), "the gate runs: {said}");
    assert_eq!(gate.stop(), Some(0));
    let copied = place.json(&to_shared, "");
    assert_eq!((copied["sessions"].as_u64(), copied["revocations"].as_u64()), (Some(2), Some(1)), "{copied}");
    assert!(place.fails(&to_shared, "").contains("store accept-restored"), "its mark names the copy now");
    place.write_config(&shared);
    let gate = place.start();
    let live = go_on(&gate, &live, &ended).await;
    let back = with(CONFIG, "store", "path = \"data/back.redb\"");
    std::fs::write(place.path("back.toml"), &back).unwrap();
    let back_path = place.path("back.toml");
    let to_back = ["store", "copy", "--to-config", back_path.to_str().unwrap()];
    assert!(place.fails(&to_back, "").contains("Stop them"), "the gate runs");
    assert_eq!(gate.stop(), Some(0));
    for _ in 0..300 {
        if !place.path("data/back.redb").exists() {
            std::thread::sleep(std::time::Duration::from_millis(100));
            place.run(&to_back, "");
        }
    }
    assert!(place.fails(&to_back, "").contains("store accept-restored"), "its mark names the copy now");
    place.write_config(&back);
    let gate = place.start();
    go_on(&gate, &live, &ended).await;
}
