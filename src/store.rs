//! Stores of sessions and revocations. Every implementation of [`Store`] passes the same conformance suite
//! (`store::conformance`, feature `test-util`).
//!
//! When a method that writes returns `Ok`, the write is *durable*: it survives even if the process is killed. The
//! memory store is the exception, and the log says so at the start.
//!
//! ```
//! use std::time::Duration;
//! use rotogate::store::MemoryStore;
//!
//! // Sessions end with the process. Use it for tests, and for gates that only validate tokens.
//! let store = MemoryStore::new("https://api.example.com", Duration::from_secs(30));
//! let builder = rotogate::Gate::builder().store(store);
//! # let _ = builder;
//! ```

#[cfg(feature = "test-util")]
pub mod conformance {
    //! Tests that every store must pass: call [`run`] with a function that makes an empty store.
    //!
    //! A failed test panics with the name of the behaviour.
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
    //! The rules for each store operation, for any store that can run them inside a transaction. [`State`] gives the
    //! rules access to the store's tables.
    //!
    //! # Your own store
    //!
    //! 1. Implement [`State`] over your tables: reads inside a transaction see the writes before them.
    //! 2. In each writing method of [`Store`](super::Store), call the method of [`Rules`] with the same name inside a
    //!    transaction. Commit durably before you return `Ok`. After a [`Failure::Refused`] nothing has been written, so
    //!    you may either commit or roll back. After a [`Failure::Broken`], roll back. `?` converts both into a
    //!    [`StoreError`](super::StoreError).
    //! 3. `load`, `list` and `revocations_since` are plain reads. [`Session`](crate::session::Session) and
    //!    [`Revocation`](super::Revocation) are `Serialize` and `Deserialize`. [`Rules::page_size`] bounds a page.
    //! 4. Run the conformance suite: `store::conformance::run` (feature `test-util`).
    //!
    //! [`MemoryStore`](super::MemoryStore) is the shortest example, and `examples/store.rs` is a durable store.
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
    //! An operation reads and decides before it writes. After a refusal, the other operations in its transaction can
    //! therefore still be committed.

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
// Only the program needs these items. They may change in any release.
#[doc(hidden)]
#[cfg(feature = "postgres")]
pub use rotogate_store_postgres::inspect as inspect_postgres;
#[doc(hidden)]
#[cfg(feature = "redb")]
pub use rotogate_store_redb as redb;
#[cfg(feature = "redb")]
#[doc(inline)]
pub use rotogate_store_redb::{Options as RedbOptions, RedbStore};
#[doc(hidden)]
#[cfg(feature = "redis")]
pub use rotogate_store_redis::inspect as inspect_redis;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use rotogate_store_redis::{RedisOptions, RedisStore};
