//! Each connection carries one statement at a time, and is replaced after a fault.
//!
//! The server detects a repeated call. A call without a reply is therefore repeated over another connection, until the
//! operation's deadline. To give up a commit, the gate closes the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Error, Row, Statement};

use super::call::Call;
use super::fault;
use super::options::{PostgresOptions, Purpose};
use rotogate_core::store::kit::network::{RETRY_AFTER, not_done, outcome_of_all, pause_after};
use rotogate_core::store::{StoreError, WriteOutcome};

/// Further calls are refused, because they would exceed their deadline.
const MAX_IN_FLIGHT: usize = 1024;

pub(super) struct ConnectionPool {
    pub(super) options: Arc<PostgresOptions>,
    idle: Mutex<Vec<Connection>>,
    /// One permit for each allowed connection.
    places: Semaphore,
    in_flight: Semaphore,
    connecting: tokio::sync::Mutex<Connecting>,
}

#[derive(Default)]
struct Connecting {
    failures: u32,
    next_try: Option<Instant>,
}

pub(super) struct Connection {
    pub(super) client: Client,
    prepared: HashMap<&'static str, Statement>,
    /// Whether the server warned that a commit did not wait for a standby.
    doubtful: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The driver may wait for the server forever.
        self.driver.abort();
    }
}

pub(super) struct PostgresFailure {
    pub(super) error: StoreError,
    pub(super) again: bool,
    pub(super) all: bool,
    pub(super) is_other_history: bool,
}

impl PostgresFailure {
    fn for_good(error: StoreError) -> Self {
        Self { error, again: false, all: false, is_other_history: false }
    }
}

impl ConnectionPool {
    pub(super) fn new(options: Arc<PostgresOptions>, connections: usize) -> Self {
        Self {
            options,
            idle: Mutex::default(),
            places: Semaphore::new(connections),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Calls a function, with retries until the operation's deadline.
    pub(super) async fn ask(&self, call: &Call) -> Result<Vec<Row>, PostgresFailure> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            let error = not_done(format!("{MAX_IN_FLIGHT} requests to PostgreSQL are already waiting for replies"));
            return Err(PostgresFailure::for_good(error));
        };
        let deadline = Instant::now() + self.options.network.operation_timeout;
        let (sent, mut failures, mut last) = (AtomicBool::new(false), 0, None);
        loop {
            let Ok(done) = timeout_at(deadline, self.attempt(call, &sent)).await else {
                let late = || StoreError::new(format!("PostgreSQL at {} does not respond", self.options.address()));
                return Err(PostgresFailure::for_good(outcome(last.unwrap_or_else(late), &sent)));
            };
            let failed = match done {
                Ok(rows) => return Ok(rows),
                Err(failed) => failed,
            };
            let wait = pause_after(failures);
            if !failed.again || Instant::now() + wait >= deadline {
                return Err(PostgresFailure { error: outcome(failed.error, &sent), ..failed });
            }
            // A timeout reports this error.
            last = Some(failed.error);
            tokio::time::sleep(wait).await;
            failures += 1;
        }
    }

    /// Sends a call once. Afterwards `sent` is true if the server may have executed the call.
    async fn attempt(&self, call: &Call, sent: &AtomicBool) -> Result<Vec<Row>, PostgresFailure> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(PostgresFailure::for_good(not_done("the store is closed")));
        };
        let mut connection = self.connection().await?;
        let was_sent = sent.swap(true, Ordering::Relaxed);
        let failed = match timeout(self.options.statement_timeout(), connection.run(call, &self.options)).await {
            Ok(Ok(rows)) if connection.doubtful.load(Ordering::Acquire) => {
                drop(rows);
                let error = StoreError::new(format!(
                    "PostgreSQL at {} did not wait for its synchronous standby: the write may be lost",
                    self.options.address()
                ));
                // A retry would find the transaction committed, and wrongly report success.
                PostgresFailure::for_good(error.with_outcome(WriteOutcome::InDoubt))
            }
            Ok(Ok(rows)) => {
                self.idle.lock().push(connection);
                return Ok(rows);
            }
            Ok(Err(error)) => {
                let failed = fault::judge(&self.options, &error);
                if failed.error.outcome() != WriteOutcome::InDoubt && !failed.all && !connection.client.is_closed() {
                    self.idle.lock().push(connection);
                }
                failed
            }
            Err(_) => {
                let what = format!("PostgreSQL at {} does not respond", self.options.address());
                PostgresFailure { again: true, all: true, ..PostgresFailure::for_good(StoreError::new(what)) }
            }
        };
        if failed.all {
            self.idle.lock().clear();
        }
        if failed.error.outcome() == WriteOutcome::NotDone {
            sent.store(was_sent, Ordering::Relaxed);
        }
        Err(failed)
    }

    /// Returns an idle or a new connection. The caller must have acquired a permit from `places`.
    pub(super) async fn connection(&self) -> Result<Connection, PostgresFailure> {
        let idle = || {
            let mut idle = self.idle.lock();
            while let Some(connection) = idle.pop() {
                if !connection.client.is_closed() {
                    return Some(connection);
                }
            }
            None
        };
        if let Some(connection) = idle() {
            return Ok(connection);
        }
        // Connections are opened one at a time, to spare a server that has just recovered.
        let mut connecting = self.connecting.lock().await;
        if let Some(connection) = idle() {
            return Ok(connection);
        }
        if let Some(at) = connecting.next_try {
            tokio::time::sleep_until(at).await;
        }
        match connect(&self.options, Purpose::Statements, None).await {
            Ok(connection) => {
                *connecting = Connecting::default();
                Ok(connection)
            }
            Err(failed) => {
                connecting.next_try = Some(Instant::now() + pause_after(connecting.failures));
                connecting.failures = connecting.failures.saturating_add(1);
                Err(failed)
            }
        }
    }

    pub(super) fn give_back(&self, connection: Connection) {
        self.idle.lock().push(connection);
    }
}

/// Opens a connection. Each notification wakes `heard`.
pub(super) async fn connect(
    options: &PostgresOptions,
    purpose: Purpose,
    heard: Option<Arc<Notify>>,
) -> Result<Connection, PostgresFailure> {
    let config = options.config(purpose).map_err(PostgresFailure::for_good)?;
    let tls = options.tls().map_err(PostgresFailure::for_good)?;
    // The driver's own timeout does not cover the startup messages.
    let (client, mut connection) = match timeout(options.network.connect_timeout, config.connect(tls)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            let failed = fault::judge(options, &error);
            return Err(PostgresFailure { error: failed.error.with_outcome(WriteOutcome::NotDone), ..failed });
        }
        Err(_) => {
            let what = format!("PostgreSQL at {} cannot be reached: no connection in time", options.address());
            return Err(PostgresFailure { again: true, ..PostgresFailure::for_good(not_done(what)) });
        }
    };
    let doubtful = Arc::new(AtomicBool::new(false));
    let doubt = Arc::clone(&doubtful);
    let driver = tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            match message {
                // The notice arrives before the end of the reply, so the flag is set before the caller checks it.
                AsyncMessage::Notice(notice) if is_doubt(&notice) => doubt.store(true, Ordering::Release),
                AsyncMessage::Notification(_) => heard.iter().for_each(|heard| heard.notify_one()),
                _ => {}
            }
        }
    });
    Ok(Connection { client, prepared: HashMap::new(), doubtful, driver })
}

/// Returns whether an operator may have cancelled the wait for a standby. The warning's text is localized, so any
/// warning counts. The store's own functions emit no warnings.
fn is_doubt(notice: &DbError) -> bool {
    [SqlState::WARNING, SqlState::ADMIN_SHUTDOWN].contains(notice.code())
}

impl Connection {
    async fn run(&mut self, call: &Call, options: &PostgresOptions) -> Result<Vec<Row>, Error> {
        let mut args: Vec<_> = call.args.iter().map(|arg| arg as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        if !options.named {
            let typed: Vec<(_, Type)> = args.drain(..).zip(call.args.iter().map(super::call::Arg::kind)).collect();
            return self.client.query_typed(&call.text(&options.schema), &typed).await;
        }
        let statement = match self.prepared.get(call.function) {
            Some(statement) => statement.clone(),
            None => {
                let types: Vec<_> = call.args.iter().map(super::call::Arg::kind).collect();
                let statement = self.client.prepare_typed(&call.text(&options.schema), &types).await?;
                self.prepared.insert(call.function, statement.clone());
                statement
            }
        };
        self.client.query(&statement, &args).await
    }

    pub(super) async fn ended(&mut self) {
        drop((&mut self.driver).await);
    }
}

fn outcome(error: StoreError, sent: &AtomicBool) -> StoreError {
    let outcome = outcome_of_all(error.outcome(), sent.load(Ordering::Relaxed));
    error.with_outcome(outcome).with_retry_after(RETRY_AFTER)
}
