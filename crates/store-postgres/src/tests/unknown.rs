//! Entries that this program does not know.

use super::*;
use rotogate_core::clock::SystemTime;
use rotogate_core::store::conformance::{gone, later, session, start};

/// An unknown entry may be a revocation, so later entries must not overtake it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn o4_an_unknown_entry_of_the_log_leaves_a_node_stale() {
    for effect in ["58".to_owned() + &"00".repeat(24), "47".to_owned() + &"00".repeat(25)] {
        let server = Server::start(&[]);
        let store = server.connect("rotogate").await;
        let follow =
            Follow { time: Arc::new(SystemTime::new()), every: Duration::from_millis(10), row: Arc::default() };
        let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
        while feed.next().await.unwrap().complete.is_none() {}
        let entry = gone(session("alice", 1, start()).id);
        let target: String = encode_target(&entry.target).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        server.sql(&format!(
            "insert into rotogate.revocation_log (written, target, effect, until) values (1, '\\x{target}', '\\x{effect}', 1)"
        ));
        store.revoke(Revocation { until: later(start(), 600_000), ..entry }, RevokedBecause::Operator).await.unwrap();
        // The answer to an earlier beat may still arrive.
        let (mut faults, mut proofs) = (0, 0);
        while faults < 5 {
            match feed.next().await {
                Ok(step) => proofs += usize::from(step.complete.is_some()),
                Err(_) => faults += 1,
            }
        }
        assert!(proofs <= 1, "{proofs}");
    }
}
