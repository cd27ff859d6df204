//! Connections: one carries all commands of its kind, and is made again after a fault.
//!
//! Every request may be sent again: each script finds out that it was done. So a request whose reply did not come goes
//! out again, over a new connection, until the deadline of its operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, cmd};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{StoreError, WriteOutcome};
use super::script::{Script, bytes};
use super::sentinel::Primary;
use super::servers::Servers;
use crate::random::random;

/// How many requests one connection carries at once. One more is refused: it would wait longer than its deadline.
const MAX_IN_FLIGHT: usize = 1024;
/// The first pause before a request is sent again. Each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is sent at once.
pub(super) enum Request {
    Script { script: &'static Script, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>> },
    Pipeline(Pipeline),
}

/// A connection that is made again after a fault, and to another server when that is the primary.
pub(super) struct Link {
    servers: Arc<Servers>,
    /// Longer than the time that a command of this connection may block.
    reply: Duration,
    live: Mutex<Live>,
    in_flight: Semaphore,
}

#[derive(Default)]
struct Live {
    open: Option<Open>,
    /// Counts connections, so that a late fault of an old one does not end the next.
    number: u64,
}

/// A connection to a primary.
#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    primary: Option<Primary>,
    number: u64,
}

/// Why one attempt failed.
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// Sending the same again may help.
    again: bool,
    /// The connection is of no more use.
    closes: bool,
}

impl Link {
    pub(super) fn new(servers: Arc<Servers>, blocks: Duration) -> Self {
        let reply = servers.options.timeouts.reply.saturating_add(blocks);
        Self { servers, reply, live: Mutex::default(), in_flight: Semaphore::new(MAX_IN_FLIGHT) }
    }

    /// Sends a request, again and again if it must, until the operation's deadline.
    pub(super) async fn ask(&self, request: &Request) -> Result<Value, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_done(format!("{MAX_IN_FLIGHT} requests to Redis wait for their replies")));
        };
        let deadline = Instant::now() + self.servers.options.timeouts.operation;
        let (sent, mut pause, mut last) = (AtomicBool::new(false), FIRST_PAUSE, None);
        loop {
            let Ok(done) = timeout_at(deadline, self.attempt(request, &sent)).await else {
                let late = || StoreError::new(self.servers.fault());
                return Err(outcome(last.unwrap_or_else(late), &sent));
            };
            let failed = match done {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let wait = jittered(pause);
            if !failed.again || Instant::now() + wait >= deadline {
                return Err(outcome(failed.error, &sent));
            }
            // Says more than that time ran out.
            last = Some(failed.error);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends a request once. `sent` remains true while it may have been carried out.
    async fn attempt(&self, request: &Request, sent: &AtomicBool) -> Result<Value, Failed> {
        let open = self.connection().await?;
        let doubtful = sent.swap(true, Ordering::Relaxed);
        let result = match request {
            Request::Script { script, keys, args } => {
                self.on(&open, script.send(open.connection.clone(), keys, args)).await
            }
            Request::Pipeline(pipeline) => self.on(&open, read(open.connection.clone(), pipeline)).await,
        };
        match result {
            Ok(value) => Ok(value),
            Err(failed) => {
                if failed.closes {
                    self.close(open.number).await;
                }
                if failed.error.outcome() == WriteOutcome::NotDone {
                    sent.store(doubtful, Ordering::Relaxed);
                }
                Err(failed)
            }
        }
    }

    /// Waits for a reply, for as long as its server is the primary.
    async fn on(&self, open: &Open, reply: impl Future<Output = Result<Value, RedisError>>) -> Result<Value, Failed> {
        tokio::select! {
            reply = reply => reply.map_err(|error| self.failed(open.primary.as_ref(), &error)),
            () = self.servers.left(open.primary.as_ref()) => {
                let error = StoreError::new("the Sentinels named another primary of Redis before the reply came");
                Err(Failed { error: error.with_outcome(WriteOutcome::InDoubt), again: true, closes: true })
            }
        }
    }

    /// Sends a command, for checks. The error is the server's own.
    pub(super) async fn once(&self, command: &Cmd) -> Result<Result<Value, RedisError>, StoreError> {
        let mut open = self.connection().await.map_err(|failed| failed.error)?;
        let error = match command.query_async(&mut open.connection).await {
            Err(error) if self.failed(None, &error).closes => error,
            done => return Ok(done),
        };
        // The connection may have ended while it was idle.
        self.close(open.number).await;
        let Ok(mut open) = self.connection().await else { return Ok(Err(error)) };
        Ok(command.query_async(&mut open.connection).await)
    }

    /// What a failed [`once`](Self::once) means.
    pub(super) fn error(&self, error: &RedisError) -> StoreError {
        self.failed(None, error).error
    }

    async fn connection(&self) -> Result<Open, Failed> {
        let mut live = self.live.lock().await;
        let primary = self.servers.primary().await;
        if let Some(open) = &live.open
            && open.primary == primary
        {
            return Ok(open.clone());
        }
        live.open = None;
        let turn = self.servers.turn().await;
        let primary = self.servers.primary().await;
        match self.connect(primary.as_ref()).await {
            Ok(connection) => {
                self.servers.tried(turn, None);
                live.number += 1;
                let open = Open { connection, primary, number: live.number };
                live.open = Some(open.clone());
                Ok(open)
            }
            Err(failed) => {
                self.servers.tried(turn, Some(failed.error.to_string()));
                self.servers.ask_again();
                Err(failed)
            }
        }
    }

    /// A connection to a server that is a primary.
    async fn connect(&self, primary: Option<&Primary>) -> Result<MultiplexedConnection, Failed> {
        let options = &self.servers.options;
        let client = options.client(primary.map(|primary| &primary.address));
        let client = client.map_err(|error| Failed { error, again: false, closes: false })?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.timeouts.connect))
            .set_response_timeout(Some(self.reply))
            .set_pipeline_buffer_size(MAX_IN_FLIGHT);
        let connecting = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let role = cmd("ROLE").query_async::<Value>(&mut connection).await;
            Ok((connection, role))
        };
        // Around all of it: the library's own timeout leaves out the greeting.
        match timeout(options.timeouts.connect, connecting).await {
            Ok(Ok((connection, Ok(role)))) if is_primary(&role) => Ok(connection),
            Ok(Ok((_, Ok(_)))) => Err(self.is_replica(primary)),
            Ok(Ok((_, Err(error)))) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                let address = self.address(primary);
                let text = format!("Redis at {address} does not allow the gate's user the command ROLE: allow +role");
                let error = StoreError::new(text).with_outcome(WriteOutcome::Refused);
                Err(Failed { error, again: false, closes: true })
            }
            Ok(Ok((_, Err(error))) | Err(error)) => {
                let failed = self.failed(primary, &error);
                Err(Failed { error: failed.error.with_outcome(WriteOutcome::NotDone), ..failed })
            }
            Err(_) => {
                let address = self.address(primary);
                let error = not_done(format!("Redis at {address} cannot be reached: no connection in time"));
                Err(Failed { error, again: true, closes: false })
            }
        }
    }

    fn address(&self, primary: Option<&Primary>) -> String {
        primary.map_or_else(|| self.servers.options.address(), |primary| primary.address.to_string())
    }

    fn is_replica(&self, primary: Option<&Primary>) -> Failed {
        let remedy =
            if primary.is_some() { "the Sentinels are asked again" } else { "give the address of the primary" };
        let error = not_done(format!("Redis at {} is a replica: {remedy}", self.address(primary)));
        Failed { error, again: true, closes: true }
    }

    /// Requests that wait on it for their replies fail by their own timeouts.
    async fn close(&self, number: u64) {
        let mut live = self.live.lock().await;
        if live.number == number && live.open.take().is_some() {
            self.servers.ask_again();
        }
    }

    fn failed(&self, primary: Option<&Primary>, error: &RedisError) -> Failed {
        if error.code() == Some(REPLICA) {
            return self.is_replica(primary);
        }
        let (what, again, closes) = match error.kind() {
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (WriteOutcome::InDoubt, true, true),
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => (WriteOutcome::NotDone, false, true),
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain => (WriteOutcome::NotDone, true, false),
                // A primary that became a replica: its address may lead to the new one.
                ServerErrorKind::ReadOnly => (WriteOutcome::NotDone, true, true),
                ServerErrorKind::NoPerm => (WriteOutcome::NotDone, false, false),
                _ if is_out_of_memory(error) => (WriteOutcome::NotDone, false, false),
                _ => (WriteOutcome::InDoubt, false, false),
            },
            ErrorKind::Extension => match error.code() {
                Some("BUSY" | "NOREPLICAS") => (WriteOutcome::NotDone, true, false),
                Some("NOAUTH" | "WRONGPASS") => (WriteOutcome::NotDone, false, true),
                Some("OOM" | "MISCONF") => (WriteOutcome::NotDone, false, false),
                _ => (WriteOutcome::InDoubt, false, false),
            },
            _ => (WriteOutcome::InDoubt, false, true),
        };
        let error =
            StoreError::new(describe(&self.address(primary), error)).with_outcome(what).with_retry_after(RETRY_AFTER);
        Failed { error, again, closes }
    }
}

/// The code of an error that we make ourselves.
const REPLICA: &str = "REPLICA";

/// Reads, and makes sure that the server was a primary by then: a replica may be any time behind.
async fn read(mut connection: MultiplexedConnection, pipeline: &Pipeline) -> Result<Value, RedisError> {
    let mut whole = pipeline.clone();
    whole.cmd("ROLE");
    let mut replies = connection.send_packed_commands(&whole, 0, whole.len()).await?;
    if replies.pop().is_some_and(|role| is_primary(&role)) {
        // The first error as the server gave it: the library's own for pipelines has no code.
        return Value::Array(replies).extract_error();
    }
    // What is forbidden is an error among the others.
    Value::Array(replies).extract_error()?;
    Err(redis::make_extension_error(REPLICA.to_owned(), None))
}

/// The reply to ROLE.
fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    parts.first().cloned().and_then(bytes).as_deref() == Some(b"master")
}

/// What went wrong, and what to do. Without names of users, which the server's own text may have.
pub(super) fn describe(address: &str, error: &RedisError) -> String {
    let code = error.code().unwrap_or_default();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            format!("Redis at {address} refuses the username or the password: correct them")
        }
        ErrorKind::Io => format!("Redis at {address} cannot be reached: {error}"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            format!("Redis at {address} does not allow a command or a key: docs/redis.md has its ACL")
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            format!("Redis at {address} is a replica and takes no writes: give the address of the primary")
        }
        _ if code == "OOM" || is_out_of_memory(error) => {
            format!("Redis at {address} is out of memory: raise its maxmemory")
        }
        _ if code == "NOREPLICAS" => format!("Redis at {address} has fewer replicas than min-replicas-to-write"),
        _ if code == "NOAUTH" || code == "WRONGPASS" => {
            format!("Redis at {address} refuses the username or the password: correct them")
        }
        _ if code == "MISCONF" => {
            format!("Redis at {address} cannot write to its disk and takes no writes: see its log")
        }
        _ => format!("Redis at {address} failed: {error}"),
    }
}

/// Before 7.0 a script hides the code in its own error.
fn is_out_of_memory(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("OOM command not allowed"))
}

pub(super) fn not_done(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::NotDone).with_retry_after(RETRY_AFTER)
}

fn outcome(error: StoreError, sent: &AtomicBool) -> StoreError {
    let error = error.with_retry_after(RETRY_AFTER);
    match (sent.load(Ordering::Relaxed), error.outcome()) {
        // An earlier attempt may have been carried out.
        (true, WriteOutcome::NotDone | WriteOutcome::InDoubt) => error.with_outcome(WriteOutcome::InDoubt),
        (false, WriteOutcome::InDoubt) => error.with_outcome(WriteOutcome::NotDone),
        (_, _) => error,
    }
}

/// Between nothing and all of it, so that nodes that lost the store together do not come back together.
pub(super) fn jittered(most: Duration) -> Duration {
    let part = random::<2>().map_or(u16::MAX, |bytes| u16::from_be_bytes(*bytes));
    most.mul_f64(f64::from(part) / f64::from(u16::MAX))
}
