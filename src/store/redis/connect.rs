//! Connections: one carries all commands of its kind, and is made again after a fault.
//!
//! Every request may be sent again: each script finds out that it was done. So a request whose reply did not come goes
//! out again, over a new connection, until the deadline of its operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{StoreError, WriteOutcome};
use super::cluster::Elsewhere;
use super::options::RedisOptions;
use super::script::Script;
use crate::random::jittered;

/// How many requests one connection carries at once. One more is refused: it would wait longer than its deadline.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// The first pause before a request is sent again, or a connection is tried again. Each later one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is sent at once.
pub(super) enum Request {
    Script { script: &'static Script, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>> },
    Pipeline(Pipeline),
}

/// A connection that is made again after a fault.
pub(super) struct Link {
    options: Arc<RedisOptions>,
    /// Longer than the time that a command of this connection may block.
    reply: Duration,
    live: Mutex<Live>,
    in_flight: Semaphore,
}

#[derive(Default)]
struct Live {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late fault of an old one does not end the next.
    number: u64,
    failures: u32,
    next_try: Option<Instant>,
}

/// Why one attempt failed.
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// Sending the same again may help.
    pub(super) again: bool,
    /// The connection is of no more use.
    closes: bool,
    /// Another server of the cluster has what was asked for.
    pub(super) elsewhere: Option<Elsewhere>,
}

impl Failed {
    /// The connection stays.
    pub(super) fn again(error: StoreError) -> Self {
        Self { error, again: true, closes: false, elsewhere: None }
    }
}

impl Link {
    /// Another connection to the same server.
    pub(super) fn another(&self, blocks: Duration) -> Self {
        Self::new(Arc::clone(&self.options), blocks)
    }

    pub(super) fn new(options: Arc<RedisOptions>, blocks: Duration) -> Self {
        let reply = options.timeouts.reply.saturating_add(blocks);
        Self { options, reply, live: Mutex::default(), in_flight: Semaphore::new(MAX_IN_FLIGHT) }
    }

    /// Sends a request, again and again if it must, until the operation's deadline.
    pub(super) async fn ask(&self, request: &Request) -> Result<Value, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_done(format!("{MAX_IN_FLIGHT} requests to Redis wait for their replies")));
        };
        let deadline = Instant::now() + self.options.timeouts.operation;
        let (sent, mut pause, mut last) = (AtomicBool::new(false), FIRST_PAUSE, None);
        loop {
            let Ok(done) = timeout_at(deadline, self.attempt(request, &sent)).await else {
                let late = || StoreError::new(format!("Redis at {} does not answer", self.options.address()));
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
    pub(super) async fn attempt(&self, request: &Request, sent: &AtomicBool) -> Result<Value, Failed> {
        let (number, connection) = self.connection().await?;
        let doubtful = sent.swap(true, Ordering::Relaxed);
        let result = match request {
            Request::Script { script, keys, args } => script.send(connection, keys, args).await,
            Request::Pipeline(pipeline) => {
                let replies = { connection }.send_packed_commands(pipeline, 0, pipeline.len()).await;
                // The first error as the server gave it: the library's own for pipelines has no code.
                replies.and_then(|replies| Value::Array(replies).extract_error())
            }
        };
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let failed = self.failed(&error);
                if failed.closes {
                    self.close(number).await;
                }
                if failed.error.outcome() == WriteOutcome::NotDone {
                    sent.store(doubtful, Ordering::Relaxed);
                }
                Err(failed)
            }
        }
    }

    /// Sends a command, for checks. The error is the server's own.
    pub(super) async fn once(&self, command: &Cmd) -> Result<Result<Value, RedisError>, StoreError> {
        let (number, mut connection) = self.connection().await.map_err(|failed| failed.error)?;
        let error = match command.query_async(&mut connection).await {
            Err(error) if self.failed(&error).closes => error,
            done => return Ok(done),
        };
        // The connection may have ended while it was idle.
        self.close(number).await;
        let Ok((_, mut connection)) = self.connection().await else { return Ok(Err(error)) };
        Ok(command.query_async(&mut connection).await)
    }

    /// What a failed [`once`](Self::once) means.
    pub(super) fn error(&self, error: &RedisError) -> StoreError {
        self.failed(error).error
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failed> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &live.connection {
            return Ok((live.number, connection.clone()));
        }
        if let Some(at) = live.next_try {
            tokio::time::sleep_until(at).await;
        }
        match self.connect().await {
            Ok(connection) => {
                *live = Live { number: live.number + 1, connection: Some(connection.clone()), ..Live::default() };
                Ok((live.number, connection))
            }
            Err(failed) => {
                let longest = FIRST_PAUSE.saturating_mul(1 << live.failures.min(8)).min(LONGEST_PAUSE);
                live.failures = live.failures.saturating_add(1);
                live.next_try = Some(Instant::now() + jittered(longest));
                Err(failed)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failed> {
        let client =
            self.options.client().map_err(|error| Failed { error, again: false, closes: false, elsewhere: None })?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.timeouts.connect))
            .set_response_timeout(Some(self.reply))
            .set_pipeline_buffer_size(MAX_IN_FLIGHT);
        // Around all of it: the library's own timeout leaves out the greeting.
        let connecting =
            timeout(self.options.timeouts.connect, client.get_multiplexed_async_connection_with_config(&config));
        match connecting.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                let failed = self.failed(&error);
                Err(Failed { error: failed.error.with_outcome(WriteOutcome::NotDone), ..failed })
            }
            Err(_) => {
                let error =
                    not_done(format!("Redis at {} cannot be reached: no connection in time", self.options.address()));
                Err(Failed { error, again: true, closes: false, elsewhere: None })
            }
        }
    }

    /// Requests that wait on it for their replies fail by their own timeouts.
    async fn close(&self, number: u64) {
        let mut live = self.live.lock().await;
        if live.number == number {
            live.connection = None;
        }
    }

    fn failed(&self, error: &RedisError) -> Failed {
        let elsewhere = Elsewhere::of(error);
        let (what, again, closes) = match error.kind() {
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (WriteOutcome::InDoubt, true, true),
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => (WriteOutcome::NotDone, false, true),
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask => (WriteOutcome::NotDone, true, false),
                // A primary that became a replica: its address may lead to the new one.
                ServerErrorKind::ReadOnly => (WriteOutcome::NotDone, true, true),
                ServerErrorKind::NoPerm => (WriteOutcome::NotDone, false, false),
                _ if is_out_of_memory(error) => (WriteOutcome::NotDone, false, false),
                _ if is_not_local(error) => (WriteOutcome::NotDone, true, false),
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
        let error = StoreError::new(self.describe(error)).with_outcome(what).with_retry_after(RETRY_AFTER);
        Failed { error, again, closes, elsewhere }
    }

    /// What went wrong, and what to do. Without names of users, which the server's own text may have.
    fn describe(&self, error: &RedisError) -> String {
        let address = self.options.address();
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
}

/// Before 7.0 a script hides the code in its own error.
fn is_out_of_memory(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("OOM command not allowed"))
}

/// A script met a key that moved away, before it wrote anything.
fn is_not_local(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("non local key"))
}

pub(super) fn not_done(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::NotDone).with_retry_after(RETRY_AFTER)
}

pub(super) fn outcome(error: StoreError, sent: &AtomicBool) -> StoreError {
    let error = error.with_retry_after(RETRY_AFTER);
    match (sent.load(Ordering::Relaxed), error.outcome()) {
        // An earlier attempt may have been carried out.
        (true, WriteOutcome::NotDone | WriteOutcome::InDoubt) => error.with_outcome(WriteOutcome::InDoubt),
        (false, WriteOutcome::InDoubt) => error.with_outcome(WriteOutcome::NotDone),
        (_, _) => error,
    }
}
