//! The engine's tests of durable and owed revocations, on the embedded store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]
#![allow(dead_code, reason = "the other tests of the engine use the rest of what they have in common")]

use std::sync::Arc;

use rotogate_core::{
    claim, client, clock, credential, debug_with, denial, directory, engine, fault, limit, revocation, session, store,
    token, verify_cache,
};
use rotogate_store_redb::{Options, RedbStore};

#[path = "../../core/src/engine/tests/durability.rs"]
mod durability;
#[path = "../../core/src/engine/tests/support.rs"]
mod support;

const KINDS: &[support::Kind] = &[support::Kind::Embedded];

fn embedded_in(folder: &tempfile::TempDir) -> Arc<dyn store::Store> {
    let options = Options { cache_size: 1 << 20, ..Options::new(support::ISSUER, uuid::Uuid::nil(), support::LEEWAY) };
    Arc::new(RedbStore::open(folder.path().join("store.redb"), options).unwrap())
}
