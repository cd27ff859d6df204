//! Sends requests. After faults, a request is retried until the deadline of its operation, over another connection
//! if necessary.
//!
//! Every request can be repeated, because each script detects that it was executed before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value, pipe};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::drop_mut;
use super::fault::{REPLICA, RedisFailure, after_all};
use super::lanes::{Lanes, ScriptCall};
use super::line::{Line, is_primary};
use super::script::{Script, unexpected};
use super::servers::Servers;
use rotogate_core::store::kit::network::{not_done, pause_after};
use rotogate_core::store::{StoreError, WriteOutcome};

/// The maximum number of requests of one kind that wait for their replies. A further request is refused, because it
/// would wait longer than its deadline.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// One request to the server.
pub(super) enum Request {
    Script { script: &'static Script, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>> },
    Pipeline(Pipeline),
}

/// Sends requests of one kind over a single connection. Scripts whose writes wait for replicas are sent over lanes.
///
/// More connections would be slower, because Redis syncs its file before it replies. The more requests arrive
/// together, the fewer syncs are needed.
pub(super) struct Link {
    servers: Arc<Servers>,
    line: Line,
    /// The lanes for scripts, if the store waits for replicas.
    lanes: Option<Lanes>,
    in_flight: Semaphore,
    /// Whether the server may be a replica. The gate does not send requests for the store's data to a replica.
    of_any: bool,
}

impl Request {
    /// Makes a request for the server's time, which any user may send.
    pub(super) fn time() -> Self {
        let mut pipeline = pipe();
        drop_mut(pipeline.cmd("TIME"));
        Self::Pipeline(pipeline)
    }
}

impl Link {
    /// Makes a link whose commands may block for up to `blocks`.
    pub(super) fn new(servers: Arc<Servers>, blocks: Duration) -> Self {
        let line = Line::new(Arc::clone(&servers), blocks);
        Self { servers, line, lanes: None, in_flight: Semaphore::new(MAX_IN_FLIGHT), of_any: false }
    }

    /// Makes a link to a server that may be a replica.
    pub(super) fn to_any(servers: Arc<Servers>) -> Self {
        let line = Line::to_any(Arc::clone(&servers));
        Self { line, of_any: true, ..Self::new(servers, Duration::ZERO) }
    }

    /// Makes another connection to the same server, without lanes.
    pub(super) fn another(&self, blocks: Duration) -> Self {
        Self::new(Arc::clone(&self.servers), blocks)
    }

    /// Sends scripts over this number of lanes, if the store waits for replicas.
    pub(super) fn with_lanes(self, number: usize) -> Self {
        let durable = self.servers.options.durable();
        let lanes = durable.map(|durable| Lanes::new(&self.servers, durable, number));
        Self { lanes, ..self }
    }

    /// Sends a request. After faults, retries until the operation's deadline.
    pub(super) async fn ask(&self, request: &Request) -> Result<Value, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_done(format!("{MAX_IN_FLIGHT} requests to Redis are already waiting for replies")));
        };
        let deadline = Instant::now() + self.servers.options.network.operation_timeout;
        let (sent, mut failures, mut last) = (AtomicBool::new(false), 0, None);
        loop {
            let Ok(done) = timeout_at(deadline, self.attempt(request, &sent)).await else {
                return Err(after_all(last.unwrap_or_else(|| self.late()), sent.load(Ordering::Relaxed)));
            };
            let failed = match done {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let wait = pause_after(failures);
            if !failed.again || Instant::now() + wait >= deadline {
                return Err(after_all(failed, sent.load(Ordering::Relaxed)));
            }
            // The last failure is more useful to an operator than the timeout.
            last = Some(failed);
            tokio::time::sleep(wait).await;
            failures += 1;
        }
    }

    /// Returns the failure for a reply that did not arrive in time.
    pub(super) fn late(&self) -> RedisFailure {
        RedisFailure::in_doubt(self.servers.fault())
    }

    /// Sends a request once. `sent` remains true while the server may have executed the request.
    pub(super) async fn attempt(&self, request: &Request, sent: &AtomicBool) -> Result<Value, RedisFailure> {
        if let (Some(lanes), Request::Script { script, keys, args }) = (&self.lanes, request)
            && script.waits
        {
            return lanes
                .send(ScriptCall { script, keys: keys.clone(), args: args.clone(), asking: false }, sent)
                .await;
        }
        let line = &self.line;
        let open = line.connection().await?;
        let doubtful = sent.swap(true, Ordering::Relaxed);
        let connection = open.connection.clone();
        let result = match request {
            Request::Script { script, keys, args } => line.on(&open, script.send(connection, keys, args)).await,
            Request::Pipeline(pipeline) => line.on(&open, read(connection, pipeline, self.of_any)).await,
        };
        if result.as_ref().is_err_and(|failed| failed.outcome == WriteOutcome::NotDone) {
            sent.store(doubtful, Ordering::Relaxed);
        }
        result
    }

    /// Sends a script once, to the server to which the script's slot is being moved. That server accepts the script
    /// only directly after `ASKING`.
    pub(super) async fn asking(
        &self,
        script: &'static Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
        sent: &AtomicBool,
    ) -> Result<Value, RedisFailure> {
        if let Some(lanes) = self.lanes.as_ref().filter(|_| script.waits) {
            return lanes
                .send(ScriptCall { script, keys: keys.to_vec(), args: args.to_vec(), asking: true }, sent)
                .await;
        }
        self.asking_for(script.command(true, keys, args), sent).await
    }

    /// Sends a command once, to the server to which the command's slot is being moved. The command does not write, or
    /// does not need to wait for replicas.
    pub(super) async fn asking_for(&self, command: Cmd, sent: &AtomicBool) -> Result<Value, RedisFailure> {
        let mut both = pipe();
        both.cmd("ASKING").add_command(command);
        let Value::Array(replies) = self.attempt(&Request::Pipeline(both), sent).await? else {
            return Err(RedisFailure::again(&unexpected("no list")));
        };
        replies.into_iter().nth(1).ok_or_else(|| RedisFailure::again(&unexpected("a short list")))
    }

    /// Sends a command once, for checks. Returns the server's error unchanged.
    pub(super) async fn once(&self, command: &Cmd) -> Result<Result<Value, RedisError>, StoreError> {
        let line = &self.line;
        let mut open = line.connection().await.map_err(RedisFailure::error)?;
        let error = match command.query_async(&mut open.connection).await {
            Err(error) if line.failed(None, &error).closes => error,
            done => return Ok(done),
        };
        // The connection may have ended while it was idle.
        line.close(open.number);
        let Ok(mut open) = line.connection().await else { return Ok(Err(error)) };
        Ok(command.query_async(&mut open.connection).await)
    }

    /// Returns the error for a failed [`once`](Self::once).
    pub(super) fn error(&self, error: &RedisError) -> StoreError {
        self.line.failed(None, error).error()
    }
}

/// Reads data and checks that the server was a primary at that moment, because a replica may lag behind.
async fn read(mut connection: MultiplexedConnection, pipeline: &Pipeline, of_any: bool) -> Result<Value, RedisError> {
    let mut whole = pipeline.clone();
    whole.cmd("ROLE");
    let mut replies = connection.send_packed_commands(&whole, 0, whole.len()).await?;
    if replies.pop().is_some_and(|role| of_any || is_primary(&role)) {
        // Returns the first error of the server itself, because the library's error for pipelines does not contain
        // an error code.
        return Value::Array(replies).extract_error();
    }
    // A missing right is an error in one of these replies, and takes precedence over the other errors.
    Value::Array(replies).extract_error()?;
    Err(redis::make_extension_error(REPLICA.to_owned(), None))
}
