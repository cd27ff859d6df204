//! The high-water mark of a store that was set back or emptied, and of gates that share a mark.

use std::path::Path;

use super::suite::set_back;
use super::*;

async fn connect(server: &Server, mark: &Path) -> Result<PostgresStore, StoreError> {
    suite::connect_with(server, |network| network.high_water = Some(mark.into())).await
}

fn writes(server: &Server) -> u64 {
    server.sql("select last_value from rg.writes").parse().unwrap()
}

#[tokio::test]
async fn c18_c19_a_start_that_refuses_a_store_writes_nothing_and_another_store_is_refused() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("store.mark");
    let (_, left) = set_back(&server, &mark).await;
    assert!(connect(&server, &mark).await.is_err());
    let asked = inspect(with(server.options().schema("rg"), |network| network.high_water = Some(mark.clone()))).await;
    assert!(asked.unwrap_err().to_string().contains("only at commit"));
    assert_eq!(writes(&server), left, "nothing was written");
    // The database was emptied, and gets another store.
    server.sql("drop schema rg cascade");
    assert!(connect(&server, &mark).await.is_err());
    server.connect("rg").await;
    assert!(connect(&server, &mark).await.is_err());
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
