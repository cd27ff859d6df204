//! The tests that shared stores have in common, and how they reach inside of this one.

use super::site::Site;
use super::*;

rotogate_core::shared_store_suite!();

type Shared = RedisStore;
/// The settings of a server that loses nothing when it crashes.
const DURABLE: &[&str] = &["--appendonly yes", "--appendfsync always"];

pub(super) async fn through(proxy: &Proxy) -> RedisStore {
    RedisStore::connect(options(proxy.port)).await.unwrap()
}

async fn connect_with(site: &Site, change: impl FnOnce(&mut NetworkOptions)) -> Result<RedisStore, StoreError> {
    RedisStore::connect(with(site.options().prefix("rg"), change)).await
}

/// Changes the number of writes in the store. Returns the new number.
async fn move_writes(_: &Site, store: &RedisStore, by: i64) -> u64 {
    let first = store.0.partitions.first();
    let head = first.keys.named("h");
    let moved = store.0.read(&store.0.commands, first, |pipeline| {
        drop_mut(pipeline.cmd("HINCRBY").arg(head).arg("seq").arg(by));
    });
    moved.await.unwrap();
    store.0.partitions.writes().saturating_add_signed(by)
}

async fn revoke_as(store: &RedisStore, op: Op, entry: Revocation) -> Result<Revocation, StoreError> {
    store.0.revoke(op, entry, RevokedBecause::Logout).await
}

async fn count_as(
    store: &RedisStore,
    op: Op,
    counter: SharedCounter,
    how: CounterUse,
) -> Result<Option<Duration>, StoreError> {
    store.0.count(op, counter, how).await
}
