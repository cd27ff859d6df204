//! C30: what another release wrote.

use super::*;
use crate::clock::SystemTime;
use crate::store::conformance::{gone, insert, later, session, start};
use crate::store::rolling::two_releases_share_a_store;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c30_two_releases_share_a_store_in_postgres_rolled_forward_and_back() {
    let server = Server::start(&[]);
    let connect = async |is_next| {
        let options = server.options();
        let options = if is_next { options.of_the_next_release() } else { options };
        Arc::new(PostgresStore::connect(options).await.unwrap())
    };
    let forget = async |_: &PostgresStore, name: &str| {
        server.sql(&format!(
            "update rotogate.node set beat = 0 where convert_from(substr(said, 4), 'UTF8') like '%\"node\":\"{name}\"%'"
        ));
    };
    two_releases_share_a_store(connect, forget).await;
}

/// The next release adds a column, which has a default. This one starts again beside it, and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c30_a_schema_that_lets_this_release_use_it_is_used_and_another_is_refused() {
    let server = Server::start(&[]);
    let next = PostgresStore::connect(server.options().of_the_next_release()).await.unwrap();
    assert_eq!(server.sql("select max(number) from rotogate.migration"), "2");
    let store = PostgresStore::connect(server.options()).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    assert_eq!(next.load(begun.id).await.unwrap(), Some(begun));
    assert_eq!(server.sql("select later from rotogate.session"), "a default");
    server.sql("update rotogate.migration set least = 2 where number = 2");
    let said = PostgresStore::connect(server.options()).await.unwrap_err().to_string();
    assert!(said.contains("schema 2") && said.contains("the version that made it"), "{said}");
}

/// It may be a revocation. What is written behind it does not pass it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c30_an_unknown_entry_of_the_log_leaves_a_node_stale() {
    for effect in ["58".to_owned() + &"00".repeat(24), "47".to_owned() + &"00".repeat(25)] {
        let server = Server::start(&[]);
        let store = server.connect("rotogate").await;
        let follow =
            Follow { time: Arc::new(SystemTime::new()), every: Duration::from_millis(10), row: Arc::default() };
        let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
        while feed.next().await.unwrap().complete.is_none() {}
        let entry = gone(session("alice", 1, start()).id);
        let target: String = record::target(&entry.target).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        server.sql(&format!(
            "insert into rotogate.revocation_log (written, target, effect, until) values (1, '\\x{target}', '\\x{effect}', 1)"
        ));
        store.revoke(Revocation { until: later(start(), 600_000), ..entry }, RevokedBecause::Operator).await.unwrap();
        // A proof that was asked for before may be under way.
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
