//! A store of several gates in PostgreSQL: one primary. The gates do not know its standbys.
//!
//! **Writing.** The rules run in the gate, over a snapshot that the gate has read or presumes. One function compares
//! the store with the snapshot. It writes the result atomically, or answers with the present state (`commit.rs`). Each
//! write has a random name. A function that finds this name in the store repeats its former answer, so a call without a
//! reply can be repeated. Only the server's clock counts.
//!
//! **Durability** depends on the server: every transaction has `synchronous_commit` at `on` at least. With
//! `synchronous_standby_names`, an `Ok` means that a standby has the write, too. If the wait for the standby was
//! cancelled, the commit is in doubt.
//!
//! **Order.** Revocations get ids from a sequence, and ids become visible out of order. A reader continues after
//! missing ids, and looks for each of them until no transaction is left that may have taken it (`log.rs`).
//!
//! **A loss** of acknowledged writes shows as another server or timeline, as a disk or log position that went back, or
//! as another history, which the first node that noticed has set. See `loss.rs`.
//!
//! **Tables** in the schema `rotogate`, and the functions beside them, are made by `migrations/`, a version at a time, under a lock:
//!
//! | table | holds |
//! |---|---|
//! | `head` | store, history, when it was adopted, issuer, keyring, floor of the log |
//! | `stamp` | the last moment that something began at |
//! | `session` | the sessions, each with the history it was written in; swept an hour after their end |
//! | `revocation` | the live revocations, merged, by target |
//! | `revocation_log` | the revocations of the last 15 minutes, as they were written |
//! | `node` | the nodes, with their last beat, what they say of themselves, and for which history they wrote back what they knew |
//! | `change` | what changed at all nodes: its state now, and the stamp of the first node; kept for a day |
//! | `counter` | the counters of attempts, until they are full again |
//! | `remembered` | names that are remembered |
//! | `relay` | the relay's records |
//! | `migration` | what was applied |

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

/// The pause after a notification. Writes during the pause share the next notification.
const NOTIFY_PAUSE: Duration = Duration::from_millis(5);

/// A store in PostgreSQL, for several gates.
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
    /// The name of the store, which is in its head.
    store: Op,
    /// The id of this run of the program among the nodes.
    node: Op,
    commands: Arc<ConnectionPool>,
    doubts: rotogate_core::store::kit::doubts::Doubts,
    inserts: InsertTurns,
    hints: Hints,
    /// Separate connections for revocations, so that a storm of refreshes does not delay a logout.
    revocations: ConnectionPool,
    /// Notified when something was written to the log.
    written: Arc<Notify>,
    _notifier: TaskGuard,
    mark: Marker,
}

impl PostgresStore {
    /// Connects, checks the server, and makes the store if it is missing.
    ///
    /// # Errors
    /// The server cannot be reached, is not fit for a store, or has the store of another gate. The text names the fault
    /// and its remedy.
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(check::open(options).await?)))
    }
}

rotogate_core::debug_with!(PostgresStore, |it| { options: it.0.options });

/// Notifies readers of new entries. This never happens within the transaction that wrote them, because a notification
/// takes a lock of the whole server at its commit.
async fn notify(pool: Arc<ConnectionPool>, written: Arc<Notify>) {
    loop {
        written.notified().await;
        if let Ok(connection) = pool.connection().await {
            // A notification may be lost, so its commit need not wait for the disk.
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
    /// Calls a function that returns one row. Its first argument is the state of the data that the gate knows. If the
    /// server has lost this state, the function does nothing.
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

    /// The key of the not-before of a client.
    fn client_key(&self, client: &str) -> Result<Vec<u8>, StoreError> {
        record::target_key(&Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() })
    }
}

#[cfg(test)]
mod tests;
