//! A connection that is replaced after a fault, and when another server becomes the primary.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use parking_lot::Mutex as Lock;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, ServerErrorKind, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fault::RedisFailure;
use super::script::bytes;
use super::sentinel::Primary;
use super::servers::Servers;
use rotogate_core::store::WriteOutcome;

/// The number of requests that may wait until the connection takes them.
const BUFFER: usize = 1024;

pub(super) struct Line {
    dial: Dial,
    live: Arc<Lock<ConnectionState>>,
}

/// The settings for making a connection.
#[derive(Clone)]
struct Dial {
    servers: Arc<Servers>,
    /// The maximum wait for a reply. It is longer than any command on this connection may block.
    reply: Duration,
    /// Whether the server may be a replica.
    of_any: bool,
}

#[derive(Default)]
struct ConnectionState {
    open: Option<Open>,
    /// The number of the connection, so that a late fault of an old connection does not close the next one.
    number: u64,
    /// The attempt to connect that is in progress. It ends when its last caller gives up.
    attempt: Option<WeakShared<BoxFuture<'static, Result<Open, RedisFailure>>>>,
}

/// A connection to a primary.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) connection: MultiplexedConnection,
    pub(super) primary: Option<Primary>,
    pub(super) number: u64,
    generation: u64,
}

impl Line {
    pub(super) fn new(servers: Arc<Servers>, blocks: Duration) -> Self {
        let reply = servers.options.reply_timeout().saturating_add(blocks);
        Self { dial: Dial { servers, reply, of_any: false }, live: Arc::default() }
    }

    /// Makes a line to a server that may be a replica.
    pub(super) fn to_any(servers: Arc<Servers>) -> Self {
        let Self { dial, live } = Self::new(servers, Duration::ZERO);
        Self { dial: Dial { of_any: true, ..dial }, live }
    }

    /// Sends a request over a connection and waits for the reply, but only as long as the connection's server is the
    /// primary. After a fault that closes the connection, the next request gets a new one.
    pub(super) async fn on<T>(
        &self,
        open: &Open,
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisFailure> {
        let failed = tokio::select! {
            reply = reply => match reply {
                Ok(reply) => return Ok(reply),
                Err(error) => self.failed(open.primary.as_ref(), &error),
            },
            () = self.dial.servers.left(open.primary.as_ref()) => {
                let why = "the Sentinels named another primary of Redis before the reply came";
                RedisFailure { closes: true, ..RedisFailure::in_doubt(why) }
            }
        };
        if failed.closes {
            self.close(open.number);
        }
        Err(failed)
    }

    /// Returns the open connection, or makes a new one. All callers that wait in the meantime get the same new
    /// connection. Some callers are not polled for a while, such as a reader of the feed that waits for another of
    /// its futures. They do not block other callers, because no lock is held while a caller waits, and any caller
    /// can drive the attempt.
    pub(super) async fn connection(&self) -> Result<Open, RedisFailure> {
        let primary = self.dial.servers.primary().await;
        let made = {
            let mut live = self.live.lock();
            if let Some(open) = &live.open
                && open.primary == primary
                && open.generation == self.dial.servers.generation()
            {
                return Ok(open.clone());
            }
            live.open = None;
            let runs = live.attempt.as_ref().and_then(WeakShared::upgrade).filter(|made| made.peek().is_none());
            runs.unwrap_or_else(|| {
                let made = attempt(self.dial.clone(), Arc::clone(&self.live)).boxed().shared();
                live.attempt = made.downgrade();
                made
            })
        };
        made.await
    }

    /// Closes a connection. Requests that still wait for a reply on this connection end by their own timeouts.
    pub(super) fn close(&self, number: u64) {
        let mut live = self.live.lock();
        if live.number == number
            && let Some(open) = live.open.take()
        {
            self.dial.servers.distrust(open.generation);
        }
    }

    pub(super) fn failed(&self, primary: Option<&Primary>, error: &RedisError) -> RedisFailure {
        self.dial.failed(primary, error)
    }
}

/// Makes a connection, and stores it as the open one.
async fn attempt(dial: Dial, live: Arc<Lock<ConnectionState>>) -> Result<Open, RedisFailure> {
    // The attempt runs in a separate task. While it runs, no other connection of the store can be opened, so it must
    // make progress even if its callers are not polled. The task ends when its callers give up. Otherwise tasks would
    // queue up for a server that does not respond, and later callers would wait behind them until their deadlines.
    let mut making = JoinSet::new();
    making.spawn(dial.made());
    let made = making.join_next().await.and_then(Result::ok);
    let made = made.unwrap_or_else(|| Err(RedisFailure::before("an attempt to connect to Redis was abandoned")));
    let (connection, primary, generation) = made?;
    let mut live = live.lock();
    live.number += 1;
    let open = Open { connection, primary, number: live.number, generation };
    live.open = Some(open.clone());
    Ok(open)
}

impl Dial {
    /// Waits for its turn, and makes a connection. Also returns the primary to which the connection leads, and the
    /// generation of the connection.
    async fn made(self) -> Result<(MultiplexedConnection, Option<Primary>, u64), RedisFailure> {
        let turn = self.servers.turn().await;
        let (primary, generation) = (self.servers.primary().await, self.servers.generation());
        match self.connect(primary.as_ref()).await {
            Ok(connection) => {
                self.servers.tried(turn, None);
                Ok((connection, primary, generation))
            }
            Err(failed) => {
                self.servers.tried(turn, Some(failed.text.clone()));
                self.servers.ask_again();
                Err(failed)
            }
        }
    }

    /// Makes a connection to a server that is a primary.
    async fn connect(&self, primary: Option<&Primary>) -> Result<MultiplexedConnection, RedisFailure> {
        let options = &self.servers.options;
        let client = options.client(primary.map(|primary| &primary.address));
        let client = client.map_err(|error| RedisFailure::for_good(error.to_string(), error.outcome()))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.network.connect_timeout))
            .set_response_timeout(Some(self.reply))
            .set_pipeline_buffer_size(BUFFER);
        let connecting = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let role = cmd("ROLE").query_async::<Value>(&mut connection).await;
            Ok((connection, role))
        };
        // This timeout includes the greeting, unlike the library's own timeout.
        match timeout(options.network.connect_timeout, connecting).await {
            Ok(Ok((connection, Ok(role)))) if self.of_any || is_primary(&role) => Ok(connection),
            Ok(Ok((_, Ok(_)))) => Err(RedisFailure::replica(&self.address(primary), primary.is_some())),
            Ok(Ok((_, Err(error)))) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                let address = self.address(primary);
                let text = format!("Redis at {address} does not allow the gate's user the command ROLE: allow +role");
                Err(RedisFailure::for_good(text, WriteOutcome::Refused))
            }
            Ok(Ok((_, Err(error))) | Err(error)) => {
                Err(RedisFailure { outcome: WriteOutcome::NotDone, ..self.failed(primary, &error) })
            }
            Err(_) => {
                let address = self.address(primary);
                Err(RedisFailure::before(format!("Redis at {address} cannot be reached: no connection in time")))
            }
        }
    }

    fn address(&self, primary: Option<&Primary>) -> String {
        primary.map_or_else(|| self.servers.options.address(), |primary| primary.address.to_string())
    }

    fn failed(&self, primary: Option<&Primary>, error: &RedisError) -> RedisFailure {
        RedisFailure::from_error(&self.address(primary), primary.is_some(), error)
    }
}

/// Returns whether the reply to ROLE is that of a primary.
pub(super) fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    parts.first().cloned().and_then(bytes).as_deref() == Some(b"master")
}
