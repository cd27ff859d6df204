//! One connection, made again after a fault, and to another server when that is the primary.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::fault::RedisFailure;
use super::script::bytes;
use super::sentinel::Primary;
use super::servers::Servers;
use rotogate_core::store::{StoreError, WriteOutcome};

/// How many requests wait for the connection to take them.
const BUFFER: usize = 1024;

pub(super) struct Line {
    dial: Dial,
    live: Mutex<ConnectionState>,
}

/// How a connection is made.
#[derive(Clone)]
struct Dial {
    servers: Arc<Servers>,
    /// Longer than the time that a command of this connection may block.
    reply: Duration,
    /// The server may be a replica.
    of_any: bool,
}

#[derive(Default)]
struct ConnectionState {
    open: Option<Open>,
    /// Counts connections, so that a late fault of an old one does not end the next.
    number: u64,
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
        Self { dial: Dial { servers, reply, of_any: false }, live: Mutex::default() }
    }

    /// To a server that may be a replica.
    pub(super) fn to_any(servers: Arc<Servers>) -> Self {
        let Self { dial, live } = Self::new(servers, Duration::ZERO);
        Self { dial: Dial { of_any: true, ..dial }, live }
    }

    /// Sends on a connection and waits for the reply, for as long as its server is the primary. After a fault that ends
    /// the connection, the next request has another.
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
            self.close(open.number).await;
        }
        Err(failed)
    }

    /// Sends a command, for checks. The error is the server's own.
    pub(super) async fn once(&self, command: &Cmd) -> Result<Result<Value, RedisError>, StoreError> {
        let mut open = self.connection().await.map_err(RedisFailure::error)?;
        let error = match command.query_async(&mut open.connection).await {
            Err(error) if self.failed(None, &error).closes => error,
            done => return Ok(done),
        };
        // The connection may have ended while it was idle.
        self.close(open.number).await;
        let Ok(mut open) = self.connection().await else { return Ok(Err(error)) };
        Ok(command.query_async(&mut open.connection).await)
    }

    /// The error of a failed [`once`](Self::once).
    pub(super) fn error(&self, error: &RedisError) -> StoreError {
        self.failed(None, error).error()
    }

    pub(super) async fn connection(&self) -> Result<Open, RedisFailure> {
        let mut live = self.live.lock().await;
        let servers = &self.dial.servers;
        let primary = servers.primary().await;
        if let Some(open) = &live.open
            && open.primary == primary
            && open.generation == servers.generation()
        {
            return Ok(open.clone());
        }
        live.open = None;
        // In a task of its own: a caller that does something else meanwhile, such as a reader beside its other questions, is
        // not polled, and would keep the turn from all connections of the store, also from what it waits for itself.
        let made = tokio::spawn(self.dial.clone().made()).await;
        let made = made.unwrap_or_else(|_| Err(RedisFailure::before("a connection to Redis was given up")));
        let (connection, primary, generation) = made?;
        live.number += 1;
        let open = Open { connection, primary, number: live.number, generation };
        live.open = Some(open.clone());
        Ok(open)
    }

    /// Requests that wait on it for their replies fail by their own timeouts.
    pub(super) async fn close(&self, number: u64) {
        let mut live = self.live.lock().await;
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

impl Dial {
    /// A connection when it is its turn, the primary that it leads to, and its generation.
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

    /// A connection to a server that is a primary.
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
        // Around all of it: the library's own timeout leaves out the greeting.
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

/// The reply to ROLE.
pub(super) fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    parts.first().cloned().and_then(bytes).as_deref() == Some(b"master")
}
