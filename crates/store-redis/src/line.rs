//! A connection that is replaced after a fault, or if the primary changes.

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

const BUFFER: usize = 1024;

pub(super) struct Line {
    dial: Dial,
    live: Arc<Lock<ConnectionState>>,
}

#[derive(Clone)]
struct Dial {
    servers: Arc<Servers>,
    /// The maximum wait for a reply, longer than any command may block.
    reply: Duration,
    of_any: bool,
}

#[derive(Default)]
struct ConnectionState {
    open: Option<Open>,
    /// Connections are numbered, so that a late fault of an old connection does not close the next connection.
    number: u64,
    /// The current attempt to connect. The attempt ends when its last caller gives up.
    attempt: Option<WeakShared<BoxFuture<'static, Result<Open, RedisFailure>>>>,
}

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

    pub(super) fn to_any(servers: Arc<Servers>) -> Self {
        let Self { dial, live } = Self::new(servers, Duration::ZERO);
        Self { dial: Dial { of_any: true, ..dial }, live }
    }

    /// Waits for a reply, but only while the server is the primary. After a fault, the next request gets a new
    /// connection.
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

    /// Returns the open connection, or a new connection that all waiting callers share. Any waiting caller can poll the
    /// attempt, and no lock is held. A caller that is not polled therefore does not block other callers.
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

    /// Closes a connection. Requests in flight end with their own timeouts.
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

async fn attempt(dial: Dial, live: Arc<Lock<ConnectionState>>) -> Result<Open, RedisFailure> {
    // A separate task makes progress even if no caller is polled. The task is aborted with its callers, so that tasks
    // do not queue up for an unresponsive server.
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
    /// Waits for its turn to connect. Returns a new connection, its primary and its generation.
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
        // The library's own timeout does not cover the commands at the beginning of a connection.
        match timeout(options.network.connect_timeout, connecting).await {
            Ok(Ok((connection, Ok(role)))) if self.of_any || is_primary(&role) => Ok(connection),
            Ok(Ok((_, Ok(_)))) => Err(RedisFailure::replica(&self.address(primary), primary.is_some())),
            Ok(Ok((_, Err(error)))) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                let address = self.address(primary);
                let text = format!("Redis at {address} does not allow the gate's user to use ROLE: allow +role");
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

pub(super) fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    parts.first().cloned().and_then(bytes).as_deref() == Some(b"master")
}
