//! A store in PostgreSQL that several gates share. The gates use one primary server and do not connect to its
//! standbys.
//!
//! **Writing.** A gate applies the rules to a snapshot that it has read or assumes. One SQL function then compares
//! the store with the snapshot. If they are equal, the function writes the result atomically; otherwise it returns
//! the present state (`commit.rs`). Each write has a random name. A function that finds this name in the store
//! returns its former result, so a call that got no reply can be repeated. All times come from the server's clock.
//!
//! **Durability** depends on the server. Every transaction has at least `synchronous_commit = on`. With
//! `synchronous_standby_names`, an `Ok` means that a standby has the write as well. If somebody cancels the wait
//! for the standby, the outcome of the commit is in doubt.
//!
//! **Order.** Revocations get their ids from a sequence, and the ids become visible out of order. A reader
//! continues past missing ids. It looks for each missing id until every transaction that may have taken the id has
//! ended (`log.rs`).
//!
//! **A loss** of acknowledged writes is detected in three ways: another server or timeline responds, the server's disk
//! or log position has gone back, or the data has another history because another node noticed the loss first. See
//! `loss.rs`.
//!
//! The **tables** in the schema `rotogate` and their functions are created by `migrations/`, one version at a time,
//! under a lock:
//!
//! | table | content |
//! |---|---|
//! | `head` | name of the store, history, time of the last adoption, issuer, keyring, first id of the log |
//! | `stamp` | the latest stamp, which orders sessions and not-befores |
//! | `session` | the sessions, each with the history in which it was written; removed an hour after their end |
//! | `revocation` | the live revocations, merged by target |
//! | `revocation_log` | the revocations of the last 15 minutes, as they were written |
//! | `node` | the nodes: last beat, report about themselves, history for which they have written back records |
//! | `change` | changes that every node detects: present state, and the first node's stamp; kept for a day |
//! | `counter` | the counters of attempts, until they are full again |
//! | `remembered` | the remembered names |
//! | `relay` | the records of the relay |
//! | `migration` | the migrations that were applied |

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use call::{Arg, Call, ResultRow, unexpected};
use connect::ConnectionPool;
use loss::KnownHistory;
use rotogate_core::revocation::Target;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::commit::{Hints, InsertTurns};
use rotogate_core::store::kit::fields::{History, Op};
use rotogate_core::store::kit::mark::Marker;
use rotogate_core::store::rules::Rules;
use rotogate_core::task::TaskGuard;

mod call;
mod check;
mod commit;
mod connect;
mod copy;
mod fault;
mod feed;
mod log;
mod loss;
mod migrate;
mod options;
mod record;
mod relay;
mod shared;
mod store;

pub use check::inspect;
pub use options::PostgresOptions;

/// The pause after a notification. All writes during the pause share the next notification.
const NOTIFY_PAUSE: Duration = Duration::from_millis(5);

/// A store in PostgreSQL that several gates share.
///
/// ```
/// # async fn example(keyring: &rotogate::token::Keyring) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use rotogate::store::{NetworkOptions, PostgresOptions, PostgresStore};
///
/// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let network = network.password_file("/run/secrets/postgres");
/// let store = PostgresStore::connect(PostgresOptions::new("postgres://gate@localhost/rotogate", network)).await?;
/// let builder = rotogate::Gate::builder().store(store);
/// # let _ = builder;
/// # Ok(()) }
/// ```
pub struct PostgresStore(Arc<PostgresInner>);

struct PostgresInner {
    options: Arc<PostgresOptions>,
    issuer: Arc<str>,
    known: KnownHistory,
    /// The name of the store, as written in its head.
    store: Op,
    /// The id of this process among the nodes.
    node: Op,
    commands: Arc<ConnectionPool>,
    doubts: rotogate_core::store::kit::doubts::Doubts,
    inserts: InsertTurns,
    hints: Hints,
    /// Separate connections for revocations, so that a burst of refreshes does not delay a logout.
    revocations: ConnectionPool,
    /// Notified whenever something was written to the log.
    written: Arc<Notify>,
    _notifier: TaskGuard,
    mark: Marker,
}

impl PostgresStore {
    /// Connects to the server, checks it, and creates the store if there is none.
    ///
    /// # Errors
    /// Fails if the server cannot be reached, is not suitable for a store, or contains the store of another gate.
    /// The error text names the fault and its remedy.
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(check::open(options).await?)))
    }
}

rotogate_core::debug_with!(PostgresStore, |it| { options: it.0.options });

/// Notifies readers of new entries. The notification is not part of the transaction that wrote the entries, because
/// a notification takes a server-wide lock at its commit.
async fn notify(pool: Arc<ConnectionPool>, written: Arc<Notify>) {
    loop {
        written.notified().await;
        if let Ok(connection) = pool.connection().await {
            // A notification may be lost, so its commit does not wait for the disk.
            let statement = format!(
                "select set_config('synchronous_commit', 'off', true), pg_notify('{}', '')",
                pool.options.schema
            );
            let told =
                tokio::time::timeout(pool.options.statement_timeout(), connection.client.simple_query(&statement));
            if matches!(told.await, Ok(Ok(_))) {
                pool.give_back(connection);
            }
        }
        tokio::time::sleep(NOTIFY_PAUSE).await;
    }
}

impl PostgresInner {
    /// Calls a function that returns one row. The call's first argument is the state of the data that the gate knows.
    /// If the server has lost that state, the function does not change anything.
    async fn one(&self, function: &'static str, args: Vec<Arg>) -> Result<ResultRow, StoreError> {
        self.one_by(&self.commands, function, args).await
    }

    async fn one_by(
        &self,
        pool: &ConnectionPool,
        function: &'static str,
        args: Vec<Arg>,
    ) -> Result<ResultRow, StoreError> {
        self.one_of(pool, function, self.known.history(), args).await
    }

    async fn one_of(
        &self,
        pool: &ConnectionPool,
        function: &'static str,
        history: History,
        args: Vec<Arg>,
    ) -> Result<ResultRow, StoreError> {
        let mut rows = self.all_by(pool, function, history, args).await?;
        match (rows.pop(), rows.pop()) {
            (Some(only), None) => Ok(only),
            _ => Err(unexpected("no single row")),
        }
    }

    /// Calls a function that returns any number of rows.
    async fn all(&self, function: &'static str, args: Vec<Arg>) -> Result<Vec<ResultRow>, StoreError> {
        self.all_by(&self.commands, function, self.known.history(), args).await
    }

    async fn all_by(
        &self,
        pool: &ConnectionPool,
        function: &'static str,
        history: History,
        args: Vec<Arg>,
    ) -> Result<Vec<ResultRow>, StoreError> {
        let mut call = Call { function, args: vec![Arg::bytes(&self.known.to_send(history))] };
        call.args.extend(args);
        match pool.ask(&call).await {
            Ok(rows) => Ok(rows.into_iter().map(ResultRow).collect()),
            Err(failed) => {
                if failed.is_other_history {
                    self.known.flag_lost(history);
                }
                Err(failed.error)
            }
        }
    }

    fn leeway(&self) -> Arg {
        Arg::millis(self.options.network.leeway)
    }

    fn rules(&self) -> Rules {
        Rules::new(Arc::clone(&self.issuer), self.options.network.leeway)
    }

    /// Returns the row key of a client's not-before.
    fn client_key(&self, client: &str) -> Result<Vec<u8>, StoreError> {
        record::target_key(&Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() })
    }
}

#[cfg(test)]
mod tests;
