//! No space left. A limit on the size of files stands for it: a write past it fails, as on a full disk.

use std::process::Command;

use http::StatusCode;

use super::support::{Gate, Place};
use super::{Acknowledged, config, is_fault, readyz};

/// Refreshes before the disk is full.
const TURNS: usize = 40;

/// Without it, a write past the limit ends the process.
const TRAP: &str = r#"trap '' XFSZ; exec "$@""#;

/// Sessions that go on, one of them rotated many times, and one that is over.
async fn begun(gate: &Gate) -> Acknowledged {
    let mut kept = Acknowledged { live: vec![gate.login().await, gate.login().await], over: vec![gate.login().await] };
    assert_eq!(gate.revoke(&kept.over[0].refresh).await.status, StatusCode::OK);
    for _ in 0..TURNS {
        let answer = gate.refresh(&kept.live[1].refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        kept.live[1] = answer.tokens();
    }
    kept
}

/// The store cannot be written: the gate says so, goes on with what needs no store, and acknowledges nothing.
async fn says_so(gate: &Gate, kept: &Acknowledged) {
    let refused = gate.refresh(&kept.live[1].refresh).await;
    assert!(is_fault(&refused), "{refused:?}");
    let ready = readyz(gate).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let reason = String::from_utf8_lossy(&ready.body);
    assert!(reason.contains("the store") && reason.contains("File too large"), "{reason}");
    assert_eq!(gate.get("/x", &kept.live[1].access).await.status, StatusCode::OK);
    // A revocation that is not durable is not acknowledged, and holds here all the same.
    let revoked = gate.revoke(&kept.live[0].refresh).await;
    assert!(is_fault(&revoked), "{revoked:?}");
    assert_eq!(gate.get("/x", &kept.live[0].access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/x", &kept.over[0].access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn r2_a_disk_that_fills_up_under_a_running_gate_loses_nothing() {
    let place = Place::new(&config());
    let gate = place.start_in_shell(TRAP);
    let mut kept = begun(&gate).await;
    // From now on: no more than this of any file, the log's among them.
    let filled =
        Command::new("prlimit").args([format!("--pid={}", gate.child.id()), "--fsize=4096".to_owned()]).status();
    assert!(filled.unwrap().success());
    says_so(&gate, &kept).await;
    drop(gate);

    // Whether the revocation without an answer counts is not known. Everything else is.
    kept.live.remove(0);
    let gate = place.start();
    assert_eq!(readyz(&gate).await.status, StatusCode::OK);
    kept.holds(&gate).await;
}
