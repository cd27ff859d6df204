//! The high-water mark of a store that was set back, and of a store whose gates noticed a loss.

use std::path::Path;

use super::site::Site;
use super::*;

async fn connect(site: &Site, mark: &Path) -> Result<RedisStore, StoreError> {
    RedisStore::connect(with(site.options().prefix("rg"), |network| network.high_water = Some(mark.into()))).await
}

/// Changes the number of writes in the store.
async fn move_writes(store: &RedisStore, by: i64) {
    let first = store.0.partitions.first();
    let head = first.keys.named("h");
    let moved = store.0.read(&store.0.commands, first, |pipeline| {
        drop_mut(pipeline.cmd("HINCRBY").arg(head).arg("seq").arg(by));
    });
    moved.await.unwrap();
}

/// A store whose mark is 500 writes ahead of it.
async fn set_back(site: &Site, mark: &Path) -> RedisStore {
    let store = connect(site, mark).await.unwrap();
    move_writes(&store, 1000).await;
    store.sweep(Timestamp::ZERO).await.unwrap();
    move_writes(&store, -500).await;
    store
}

#[tokio::test]
async fn c18_a_store_that_was_set_back_while_no_gate_ran_is_refused_however_often_one_starts() {
    for site in Site::both() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("store.mark");
        let store = set_back(&site, &mark).await;
        let writes = store.0.partitions.writes();
        drop(store);
        for _ in 0..3 {
            let refused = connect(&site, &mark).await.unwrap_err();
            assert_eq!(refused.outcome(), WriteOutcome::Refused);
            let expected = format!("the store is only at commit {}", writes - 500);
            assert!(refused.to_string().contains(&expected), "{refused}");
        }
        let accepting = with(site.options().prefix("rg"), |network| {
            network.high_water = Some(mark.clone());
            network.accept_restored = true;
        });
        drop(RedisStore::connect(accepting).await.unwrap());
        connect(&site, &mark).await.unwrap();
    }
}

#[tokio::test]
async fn c15_a_loss_that_a_gate_noticed_keeps_no_later_start_from_the_store() {
    for site in Site::both() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("store.mark");
        let store = set_back(&site, &mark).await;
        store.adopt().await.unwrap();
        connect(&site, &mark).await.unwrap();
    }
}
