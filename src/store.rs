//! Stores of sessions and revocations. The engine knows only [`Store`]; every implementation passes the same
//! conformance suite (`store::conformance`, with the feature `test-util`).
//!
//! An `Ok` of a method that writes means *durable*: the write survives even if the process is killed right after. The
//! memory store is the exception, which it logs at the start.
//!
//! ```
//! use std::time::Duration;
//! use rotogate::store::MemoryStore;
//!
//! // Sessions end with the process: for tests, and for gates that only validate.
//! let store = MemoryStore::new("https://api.example.com", Duration::from_secs(30));
//! let builder = rotogate::Gate::builder().store(store);
//! # let _ = builder;
//! ```

#[cfg(feature = "test-util")]
pub mod conformance {
    //! The requirements on every store, as tests that any store can run: call [`run`] with a function that makes an
    //! empty store.
    //!
    //! A failed behaviour panics with its name.
    //!
    //! ```
    //! use std::sync::Arc;
    //! use rotogate::store::MemoryStore;
    //! use rotogate::store::conformance;
    //!
    //! // Among your tests, with your store: `#[tokio::test(flavor = "multi_thread")]`.
    //! async fn my_store_does_what_a_store_must() {
    //!     conformance::run(|issuer, leeway| Arc::new(MemoryStore::for_a_trial(issuer, leeway))).await;
    //! }
    //! ```

    #[doc(inline)]
    pub use rotogate_core::store::conformance::run;
}

pub mod rules {
    //! The rules of each operation of a store, for every store that can run them inside a transaction. This module has
    //! the rules; [`State`] gives access to a store's tables.
    //!
    //! # A store of your own
    //!
    //! 1. Implement [`State`] over your tables: reads inside a transaction see the writes before them.
    //! 2. In each writing method of [`Store`](super::Store), begin a transaction, call the method of [`Rules`] of the same name,
    //!    and commit durably before you return `Ok`. A [`Failure::Refused`] has written nothing: commit or roll back as you like.
    //!    After a [`Failure::Broken`] roll back. Either becomes a [`StoreError`](super::StoreError) by `?`.
    //! 3. `load`, `list` and `revocations_since` are plain reads. [`Session`](crate::session::Session) and [`Revocation`](super::Revocation) are `Serialize` and
    //!    `Deserialize`; [`Rules::page_size`] bounds a page.
    //! 4. Run the conformance suite: `store::conformance::run` (feature `test-util`).
    //!
    //! [`MemoryStore`](super::MemoryStore) is the shortest example, `examples/store.rs` a durable one.
    //!
    //! ```
    //! use rotogate::clock::Timestamp;
    //! use rotogate::store::rules::{Failure, Rules, State};
    //! use rotogate::store::{StoreError, Swept};
    //!
    //! /// One step of [`Store::sweep`](rotogate::store::Store::sweep), in a transaction of your database.
    //! fn sweep_step(rules: &Rules, tables: &mut impl State, now: Timestamp) -> Result<Swept, StoreError> {
    //!     match rules.sweep_step(tables, now) {
    //!         Ok(swept) => Ok(swept), // commit
    //!         Err(Failure::Refused(error) | Failure::Broken(error)) => Err(error), // roll back
    //!     }
    //! }
    //! ```
    //!
    //! An operation reads all that it needs, decides, and only then writes. So a refused operation has written nothing,
    //! and other operations of its transaction stand.

    #[doc(inline)]
    pub use rotogate_core::store::rules::{Failure, Rules, State};
}

#[cfg(any(feature = "postgres", feature = "redis"))]
#[doc(inline)]
pub use rotogate_core::store::kit::network::NetworkOptions;
#[doc(inline)]
pub use rotogate_core::store::{
    Cursor, Effect, Filter, Inserted, MemoryStore, Page, Revocation, Store, StoreError, SubjectBound, Swap, Swept,
    Target, WriteOutcome,
};
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use rotogate_store_postgres::{PostgresOptions, PostgresStore};
// Further items that only the program needs, without a promise of compatibility, as in `crate::program`.
#[cfg(feature = "program")]
#[cfg(feature = "postgres")]
pub use rotogate_store_postgres::inspect as inspect_postgres;
#[cfg(feature = "program")]
#[cfg(feature = "redb")]
pub use rotogate_store_redb as redb;
#[cfg(feature = "redb")]
#[doc(inline)]
pub use rotogate_store_redb::{Options as RedbOptions, RedbStore};
#[cfg(feature = "program")]
#[cfg(feature = "redis")]
pub use rotogate_store_redis::inspect as inspect_redis;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use rotogate_store_redis::{RedisOptions, RedisStore};
