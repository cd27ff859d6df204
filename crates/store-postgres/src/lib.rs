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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_postgres::types::Type;

use call::{Arg, Call, ResultRow, unexpected};
use connect::ConnectionPool;
use loss::KnownHistory;
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{RevocationList, Target};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::kit::commit::{Hints, InsertTurns};
use rotogate_core::store::kit::fields::{History, Op, new_op};
use rotogate_core::store::kit::mark::Marker;
use rotogate_core::store::rules::Rules;
use rotogate_core::store::{
    Admitted, CounterUse, Cursor, Feed, Filter, Follow, Inserted, NodeSeen, Page, Restoration, Revocation,
    SharedCounter, SharedStore, Store, StoreError, SubjectBound, Swap, Swept,
};
use rotogate_core::task::TaskGuard;

mod call;
mod check;
mod commit;
mod connect;
mod copy;
mod count;
mod fault;
mod feed;
mod log;
mod loss;
mod migrate;
mod nodes;
mod options;
mod record;
#[cfg(feature = "relay")]
mod relay;
mod revoke;
mod session;

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

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("options", &self.0.options).finish_non_exhaustive()
    }
}

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

    async fn all_by(
        &self,
        pool: &ConnectionPool,
        function: &'static str,
        history: History,
        args: Vec<Arg>,
    ) -> Result<Vec<ResultRow>, StoreError> {
        let mut all = vec![Arg::bytes(&self.known.to_send(history))];
        all.extend(args);
        match pool.ask(&Call::new(function, all)).await {
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
        Arg::Big(i64::try_from(self.options.network.leeway.as_millis()).unwrap_or(i64::MAX))
    }

    fn rules(&self) -> Rules {
        Rules::new(Arc::clone(&self.issuer), self.options.network.leeway)
    }

    /// The key of the not-before of a client.
    fn client_key(&self, client: &str) -> Result<Vec<u8>, StoreError> {
        let client = Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        Ok(record::key(&record::target(&client)?).into_owned())
    }

    /// Issues a stamp. `None` if `after` is further ahead than the leeway.
    async fn stamp(&self, creation: bool, after: Option<Timestamp>) -> Result<Option<Timestamp>, StoreError> {
        let after = after.map_or(Arg::Null(Type::INT8), |after| Arg::Big(record::millis(after)));
        let pool = if creation { &*self.commands } else { &self.revocations };
        let answer = self.one_by(pool, "rg_stamp", vec![Arg::Bool(creation), after, self.leeway()]).await?;
        match answer.status()? {
            "ahead" => Ok(None),
            "stamp" => Ok(Some(record::time(answer.get("o_stamp")?))),
            _ => Err(answer.unknown()),
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.load(id).await
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.0.insert(new_op()?, &session, bound).await
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let op = new_op()?;
        let swapped = self.0.swap(op, expected, &record, revocation.as_ref()).await;
        self.0.doubts.take(record.id, op, &swapped);
        swapped
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.0.revoke(entry, because).await
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.0.revocations_since(&cursor).await
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        self.0.revocations().await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.0.confirm(&seen).await
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(&filter, after, limit).await
    }

    async fn sweep(&self, _now: Timestamp) -> Result<Swept, StoreError> {
        self.0.sweep().await
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        Ok(record::time(self.0.one("rg_time", Vec::new()).await?.get("o_now")?))
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        Some(self)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.0.check().await
    }
}

#[async_trait]
impl SharedStore for PostgresStore {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.0.stamp(true, (after != Timestamp::ZERO).then_some(after)).await
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.0.stamp(false, None).await?.ok_or_else(|| unexpected("no stamp"))
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        self.0.stamp_change(name, state).await
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        let admitted = self.0.admit(new_op()?, None, vec![(counter, how)]).await?;
        Ok(admitted.refused.map(|(_, wait)| wait))
    }

    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        self.0.admit(new_op()?, caller, counters).await
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        self.0.remember(name, lifetime).await
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.0.remembers(name).await
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        self.0.nodes_within(within).await
    }

    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.load_to_revoke(id).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.0.settle().await
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        Ok(Box::new(feed::PostgresFeed::new(Arc::clone(&self.0), &from, follow)?))
    }

    async fn adopt(&self) -> Result<(), StoreError> {
        self.0.adopt().await
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        self.0.restore(&records).await
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        self.0.restoration(patience).await
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        self.0.predates_loss(id).await
    }

    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.written_in_doubt(id).await
    }

    fn resolved(&self, id: SessionId) {
        self.0.doubts.forget(id);
    }
}

#[cfg(test)]
mod tests;
