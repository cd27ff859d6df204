//! Entries that this program does not know.

use super::*;
use rotogate_core::store::conformance::{gone, session, start};

/// An unknown entry may be a revocation, so later entries must not overtake it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn o4_an_unknown_entry_of_the_log_leaves_a_node_stale() {
    for effect in ["58".to_owned() + &"00".repeat(24), "47".to_owned() + &"00".repeat(25)] {
        let server = Server::start(&[]);
        let store = server.connect("rotogate").await;
        let target = encode_target(&gone(session("alice", 1, start()).id).target).unwrap();
        let target: String = target.iter().map(|byte| format!("{byte:02x}")).collect();
        let put = || {
            server.sql(&format!(
                "insert into rotogate.revocation_log (written, target, effect, until) \
                 values (1, '\\x{target}', '\\x{effect}', 1)"
            ));
        };
        conformance::server::o4_an_unknown_entry_leaves_a_node_stale(&*store, put).await;
    }
}
