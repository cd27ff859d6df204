//! Entries that this program does not know.

use super::*;
use rotogate_core::store::conformance::{gone, session, start};

/// An unknown entry may be a revocation, so later entries must not overtake it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn o4_an_unknown_entry_of_the_log_leaves_a_node_stale() {
    for (field, entry) in [("e", "\u{2}12345678"), ("f", "anything"), ("e", "\u{1}12345678X")] {
        let server = Server::start(&[]);
        let store = server.connect("rg").await;
        let put = || drop(server.cli(&["XADD", "{rg:0}:log", "*", field, entry]));
        conformance::server::o4_an_unknown_entry_leaves_a_node_stale(&*store, put).await;
        assert!(store.revocations_since(Cursor::default()).await.is_ok(), "the live ones are read");
    }
}

/// A revocation must not replace an unknown entry of its target.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn o4_an_unknown_live_revocation_is_neither_read_nor_merged() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let id = session("alice", 1, start()).id;
    let target = record::target(&rotogate_core::revocation::Target::Session(id)).unwrap();
    let hex: String = target.iter().map(|byte| format!("\\{byte:03}")).collect();
    let put = format!("return redis.call('HSET', '{{rg:0}}:r', '{hex}', 'X' .. string.rep('\\0', 32) .. '1-1')");
    server.cli(&["EVAL", &put, "0"]);
    assert!(store.revocations().await.is_err());
    assert!(store.revoke(gone(id), RevokedBecause::Operator).await.is_err());
    let kept = format!("return string.sub(redis.call('HGET', '{{rg:0}}:r', '{hex}'), 1, 1)");
    assert_eq!(server.cli(&["EVAL", &kept, "0"]), "X");
}
