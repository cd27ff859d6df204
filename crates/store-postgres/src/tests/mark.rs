//! The high-water mark of a store that was set back, and of a store whose gates noticed a loss.

use std::path::Path;

use super::*;

async fn connect(server: &Server, mark: &Path) -> Result<PostgresStore, StoreError> {
    PostgresStore::connect(with(server.options().schema("rg"), |network| network.high_water = Some(mark.into()))).await
}

fn writes(server: &Server) -> u64 {
    server.sql("select last_value from rg.writes").parse().unwrap()
}

/// A store whose mark is 500 writes ahead of it.
async fn set_back(server: &Server, mark: &Path) -> PostgresStore {
    let store = connect(server, mark).await.unwrap();
    server.sql("select setval('rg.writes', (select last_value from rg.writes) + 1000)");
    store.sweep(Timestamp::ZERO).await.unwrap();
    server.sql("select setval('rg.writes', (select last_value from rg.writes) - 500)");
    store
}

#[tokio::test]
async fn c18_c19_a_store_that_was_set_back_while_no_gate_ran_is_refused_however_often_one_starts() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("store.mark");
    drop(set_back(&server, &mark).await);
    let left = writes(&server);
    for _ in 0..3 {
        let refused = connect(&server, &mark).await.unwrap_err();
        assert_eq!(refused.outcome(), WriteOutcome::Refused);
        let expected = format!("the store is only at commit {left}");
        assert!(refused.to_string().contains(&expected), "{refused}");
    }
    let asked = inspect(with(server.options().schema("rg"), |network| network.high_water = Some(mark.clone()))).await;
    assert!(asked.unwrap_err().to_string().contains("only at commit"));
    assert_eq!(writes(&server), left, "nothing was written");
    let accepting = with(server.options().schema("rg"), |network| {
        network.high_water = Some(mark.clone());
        network.accept_restored = true;
    });
    drop(PostgresStore::connect(accepting).await.unwrap());
    connect(&server, &mark).await.unwrap();
    // The database was emptied, and gets another store.
    server.sql("drop schema rg cascade");
    assert!(connect(&server, &mark).await.is_err());
    server.connect("rg").await;
    assert!(connect(&server, &mark).await.is_err());
}

#[tokio::test]
async fn c15_a_loss_that_a_gate_noticed_keeps_no_later_start_from_the_store() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("store.mark");
    let store = set_back(&server, &mark).await;
    store.adopt().await.unwrap();
    connect(&server, &mark).await.unwrap();
}

/// A start never lowers a mark, even if several gates of the machine share it.
#[tokio::test]
async fn c19_gates_on_one_machine_may_have_one_mark() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("store.mark");
    let [a, b] = [connect(&server, &mark).await.unwrap(), connect(&server, &mark).await.unwrap()];
    for store in [&a, &b] {
        let before = writes(&server);
        store.stamp_not_before().await.unwrap();
        assert!(writes(&server) > before);
        store.sweep(Timestamp::ZERO).await.unwrap();
    }
    connect(&server, &mark).await.unwrap();
}
