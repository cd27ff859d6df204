//! A store in PostgreSQL that several gates share. The gates use one primary server and do not connect to its
//! standbys.
//!
//! **Writing.** A gate applies the rules to a snapshot. One SQL function compares the store with the snapshot, and
//! writes the result atomically if they are equal (`commit.rs`). Each write has a random name, so a repeated call
//! returns the former result. All times come from the server's clock.
//!
//! **Durability** depends on the server. Every transaction has at least `synchronous_commit = on`. With
//! `synchronous_standby_names`, an `Ok` means that a standby has the write. If the wait for the standby is cancelled,
//! the outcome is in doubt.
//!
//! **Order.** Revocations get ids from a sequence, and become visible out of order. A reader looks for missing ids
//! until every transaction that may have taken an id has ended (`log.rs`).
//!
//! **A loss** of acknowledged writes is detected if the server or its timeline changes, if its log position goes back,
//! or if another node has changed the history (`loss.rs`).
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
//! | `node` | the nodes, each with its last beat, its report, and the history for which it has written back records |
//! | `change` | changes that every node detects: present state, and the first node's stamp; kept for a day |
//! | `counter` | the attempt counters, until the full burst is available again |
//! | `remembered` | the remembered names |
//! | `part_row`, `part_row_count` | the rows of the parts, and their number |
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
mod rows;
mod shared;
mod store;

pub use check::inspect;
pub use options::PostgresOptions;

/// Writes during this pause share the next notification.
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
    store: Op,
    node: Op,
    commands: Arc<ConnectionPool>,
    doubts: rotogate_core::store::kit::doubts::Doubts,
    inserts: InsertTurns,
    hints: Hints,
    /// These connections are separate, so that a burst of refreshes does not delay a logout.
    revocations: ConnectionPool,
    written: Arc<Notify>,
    _notifier: TaskGuard,
    mark: Marker,
}

impl PostgresStore {
    /// Connects to the server, checks it, and creates a missing store.
    ///
    /// # Errors
    /// Fails if the server is unreachable, unsuitable, or has another gate's store. The error names the remedy.
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(check::open(options).await?)))
    }
}

rotogate_core::debug_with!(PostgresStore, |it| { options: it.0.options });

/// Notifies readers after the commit, because a notification takes a server-wide lock.
async fn notify(pool: Arc<ConnectionPool>, written: Arc<Notify>) {
    loop {
        written.notified().await;
        if let Ok(connection) = pool.connection().await {
            // Notifications may be lost, so this commit does not wait for the disk.
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
    /// Calls a function that returns one row. The first argument is the known state of the data. If the server has lost
    /// this state, the function changes nothing.
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

    fn client_key(&self, client: &str) -> Result<Vec<u8>, StoreError> {
        record::target_key(&Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() })
    }
}

#[cfg(test)]
mod tests;
