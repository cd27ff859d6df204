//! The tests that shared stores have in common, and how they reach inside of this one.

use super::*;

rotogate_core::shared_store_suite!();

type Site = Server;
type Shared = PostgresStore;
/// The longest time for an answer.
const LATEST: Duration = Duration::from_secs(3);
/// The settings of a server that loses nothing when it crashes.
const DURABLE: &[&str] = &["fsync=on"];

/// The store has one connection, so that this connection is cut.
pub(super) fn options_through(proxy: &Proxy) -> PostgresOptions {
    options(proxy.port).schema("rg").connections(1)
}

async fn through(proxy: &Proxy) -> PostgresStore {
    PostgresStore::connect(options_through(proxy)).await.unwrap()
}

pub(super) async fn connect_with(
    server: &Server,
    change: impl FnOnce(&mut NetworkOptions),
) -> Result<PostgresStore, StoreError> {
    PostgresStore::connect(with(server.options().schema("rg"), change)).await
}

/// Changes the number of writes in the store. Returns the new number.
async fn move_writes(server: &Server, _: &PostgresStore, by: i64) -> u64 {
    server.sql(&format!("select setval('rg.writes', (select last_value from rg.writes) + {by})")).parse().unwrap()
}

async fn revoke_as(store: &PostgresStore, _: Op, entry: Revocation) -> Result<Revocation, StoreError> {
    store.revoke(entry, RevokedBecause::Logout).await
}

async fn count_as(
    store: &PostgresStore,
    op: Op,
    counter: SharedCounter,
    how: CounterUse,
) -> Result<Option<Duration>, StoreError> {
    Ok(store.0.admit(op, None, vec![(counter, how)]).await?.refused.map(|(_, wait)| wait))
}
