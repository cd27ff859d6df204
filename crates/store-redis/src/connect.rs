//! Sends requests, with retries until the operation's deadline.
//!
//! Retries are safe, because scripts detect repeated requests.

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

/// Further requests are refused, because they would exceed their deadline.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

pub(super) enum Request {
    Script { script: &'static Script, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>> },
    Pipeline(Pipeline),
}

/// Sends requests of one kind over one connection. If scripts wait for replicas, lanes are used.
///
/// More connections would be slower: Redis syncs its file before it replies, so requests that arrive together save
/// syncs.
pub(super) struct Link {
    servers: Arc<Servers>,
    line: Line,
    lanes: Option<Lanes>,
    in_flight: Semaphore,
    /// Whether the server may be a replica. Replicas get no data requests.
    of_any: bool,
}

impl Request {
    /// A request for the server's time, which any user may send.
    pub(super) fn time() -> Self {
        let mut pipeline = pipe();
        drop_mut(pipeline.cmd("TIME"));
        Self::Pipeline(pipeline)
    }
}

impl Link {
    /// `blocks` is the maximum time that a command blocks.
    pub(super) fn new(servers: Arc<Servers>, blocks: Duration) -> Self {
        let line = Line::new(Arc::clone(&servers), blocks);
        Self { servers, line, lanes: None, in_flight: Semaphore::new(MAX_IN_FLIGHT), of_any: false }
    }

    pub(super) fn to_any(servers: Arc<Servers>) -> Self {
        let line = Line::to_any(Arc::clone(&servers));
        Self { line, of_any: true, ..Self::new(servers, Duration::ZERO) }
    }

    pub(super) fn another(&self, blocks: Duration) -> Self {
        Self::new(Arc::clone(&self.servers), blocks)
    }

    pub(super) fn with_lanes(self, number: usize) -> Self {
        let durable = self.servers.options.durable();
        let lanes = durable.map(|durable| Lanes::new(&self.servers, durable, number));
        Self { lanes, ..self }
    }

    /// Sends a request, with retries until the operation's deadline.
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
            // After a timeout, this error is more informative.
            last = Some(failed);
            tokio::time::sleep(wait).await;
            failures += 1;
        }
    }

    pub(super) fn late(&self) -> RedisFailure {
        RedisFailure::in_doubt(self.servers.fault())
    }

    /// Sends a request once. Afterwards `sent` is true if the server may have executed the request.
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

    /// Sends a script once to the server to which its slot is being moved. The script directly follows `ASKING`.
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

    /// Sends a command once to the server to which its slot is being moved. The command does not wait for replicas.
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

    pub(super) fn error(&self, error: &RedisError) -> StoreError {
        self.line.failed(None, error).error()
    }
}

/// Reads data, and checks that the server is a primary, because a replica may lag.
async fn read(mut connection: MultiplexedConnection, pipeline: &Pipeline, of_any: bool) -> Result<Value, RedisError> {
    let mut whole = pipeline.clone();
    whole.cmd("ROLE");
    let mut replies = connection.send_packed_commands(&whole, 0, whole.len()).await?;
    if replies.pop().is_some_and(|role| of_any || is_primary(&role)) {
        // The library's error for pipelines has no error code, so the server's first error is returned.
        return Value::Array(replies).extract_error();
    }
    // A missing permission takes precedence over other errors.
    Value::Array(replies).extract_error()?;
    Err(redis::make_extension_error(REPLICA.to_owned(), None))
}
