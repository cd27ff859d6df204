//! Lanes for writes that wait for replicas.
//!
//! `WAIT` blocks its connection, and counts the replicas that have the writes of this connection. A lane therefore
//! sends all queued requests with one `WAIT`. A repeated script writes nothing, so `WAIT` would not wait for the
//! earlier write. Each pipeline therefore also rewrites the write counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ServerErrorKind, Value, cmd, pipe};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;

use super::drop_mut;
use super::fault::RedisFailure;
use super::line::{Line, Open};
use super::script::{CHECK, Script};
use super::servers::Servers;
use rotogate_core::store::WriteOutcome;

const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// The maximum wait for append-only files, which may be synced only once per second.
const LONGEST_FSYNC: Duration = Duration::from_millis(1200);
/// The number is limited, because other clients of the server have to wait.
const MAX_BATCH: usize = 256;

/// The durability that a write needs before its acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) replicas: u32,
    /// Whether the write must be in the append-only files.
    pub(super) fsync: bool,
}

/// Every script's key list begins with this number of fixed keys. See
/// [`PartitionKeys::fixed`](super::partitions::PartitionKeys::fixed).
const FIXED_KEYS: usize = 4;

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

/// A script with Redis keys and arguments. Common keys come first. The first arguments are the history and the
/// operation's name.
pub(super) struct ScriptCall {
    pub(super) script: &'static Script,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
    /// Whether `ASKING` must precede the script, because the slot is being moved.
    pub(super) asking: bool,
}

struct Queued {
    job: ScriptCall,
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Value, RedisFailure>>,
}

/// Lanes that share a queue. A free lane takes all queued requests.
pub(super) struct Lanes {
    queue: UnboundedSender<Queued>,
    _tasks: JoinSet<()>,
}

/// On drop, sets `sent` to true if the job may have been sent.
struct SentGuard<'a> {
    state: Arc<AtomicU8>,
    sent: &'a AtomicBool,
}

impl Drop for SentGuard<'_> {
    fn drop(&mut self) {
        let given_up = self.state.compare_exchange(QUEUED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        if given_up == Err(SENT) {
            self.sent.store(true, Ordering::Relaxed);
        }
    }
}

impl Lanes {
    pub(super) fn new(servers: &Arc<Servers>, durable: Durable, number: usize) -> Self {
        let (queue, jobs) = unbounded_channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut tasks = JoinSet::new();
        for _ in 0..number {
            let line = Line::new(Arc::clone(servers), durable.longest());
            tasks.spawn(serve(Lane { line, durable }, Arc::clone(&jobs)));
        }
        Self { queue, _tasks: tasks }
    }

    /// Queues a job and waits for its reply. A sent job runs even if the caller stops waiting.
    pub(super) async fn send(&self, job: ScriptCall, sent: &AtomicBool) -> Result<Value, RedisFailure> {
        let (reply, replied) = oneshot::channel();
        let asked = SentGuard { state: Arc::new(AtomicU8::new(QUEUED)), sent };
        let before = sent.load(Ordering::Relaxed);
        let _ = self.queue.send(Queued { job, state: Arc::clone(&asked.state), reply });
        let result = replied.await.unwrap_or_else(|_| Err(RedisFailure::in_doubt("the store in Redis was closed")));
        drop(asked);
        if result.as_ref().is_err_and(|failed| failed.outcome == WriteOutcome::NotDone) {
            sent.store(before, Ordering::Relaxed);
        }
        result
    }
}

struct Lane {
    line: Line,
    durable: Durable,
}

async fn serve(lane: Lane, jobs: Arc<Mutex<UnboundedReceiver<Queued>>>) {
    loop {
        let mut batch = Vec::new();
        if jobs.lock().await.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        lane.carry(batch).await;
    }
}

impl Lane {
    async fn carry(&self, batch: Vec<Queued>) {
        let open = match self.line.connection().await {
            Ok(open) => open,
            Err(failed) => {
                for queued in batch {
                    let _ = queued.reply.send(Err(failed.clone()));
                }
                return;
            }
        };
        let begin =
            |queued: &Queued| queued.state.compare_exchange(QUEUED, SENT, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let batch: Vec<_> = batch.into_iter().filter(begin).collect();
        if batch.is_empty() {
            return;
        }
        let touches = touches(&batch);
        let mut replies = self.line.on(&open, self.send(&open.connection, &batch, &touches, false)).await;
        // Scripts can be repeated, so the whole batch is sent again with the script texts.
        if replies.as_ref().is_ok_and(|replies| replies.iter().any(is_unknown_script)) {
            replies = self.line.on(&open, self.send(&open.connection, &batch, &touches, true)).await;
        }
        let mut closes = false;
        let results: Vec<_> = match replies {
            Err(failed) => batch.iter().map(|_| Err(failed.clone())).collect(),
            Ok(replies) => self.read(&open, &batch, &touches, replies),
        };
        for (queued, result) in batch.into_iter().zip(results) {
            closes |= result.as_ref().is_err_and(|failed| failed.closes);
            let _ = queued.reply.send(result);
        }
        if closes {
            self.line.close(open.number);
        }
    }

    fn read(
        &self,
        open: &Open,
        batch: &[Queued],
        touches: &[Touch],
        mut replies: Vec<Value>,
    ) -> Vec<Result<Value, RedisFailure>> {
        let failed = |error: RedisError| self.line.failed(open.primary.as_ref(), &error);
        let waited = replies.pop().unwrap_or(Value::Nil).extract_error();
        // If WAIT fails, the outcome of the jobs is in doubt.
        let enough = waited.map_err(|error| failed(error).after()).and_then(|waited| self.durable.check(&waited));
        let mut replies = replies.into_iter();
        let mut next = |asking: bool| {
            let replies = &mut replies;
            replies.nth(usize::from(asking)).map(|reply| reply.extract_error().map_err(failed))
        };
        let own: Vec<_> = batch.iter().map(|queued| next(queued.job.asking)).collect();
        let touched: Vec<_> = touches.iter().map(|touch| next(touch.asking)).collect();
        let result = |(queued, own): (&Queued, Option<Result<Value, RedisFailure>>)| {
            let missing = || RedisFailure::in_doubt("a reply of Redis is missing");
            let own = own.unwrap_or_else(|| Err(missing()))?;
            enough.clone()?;
            let touch = touches.iter().position(|touch| touch.is_for(&queued.job)).and_then(|at| touched.get(at));
            match touch {
                Some(Some(Ok(_))) => Ok(own),
                Some(Some(Err(failed))) => Err(failed.clone().after()),
                Some(None) | None => Err(missing()),
            }
        };
        batch.iter().zip(own).map(result).collect()
    }

    async fn send(
        &self,
        connection: &MultiplexedConnection,
        batch: &[Queued],
        touches: &[Touch],
        in_full: bool,
    ) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = pipe();
        let mut add = |asking: bool, command: Cmd| {
            if asking {
                drop_mut(pipeline.cmd("ASKING"));
            }
            drop_mut(pipeline.add_command(command));
        };
        for Queued { job, .. } in batch {
            add(job.asking, job.script.command(in_full || job.asking, &job.keys, &job.args));
        }
        for touch in touches {
            add(touch.asking, CHECK.command(in_full || touch.asking, &touch.keys, &touch.args));
        }
        add(false, self.durable.command());
        connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await
    }
}

/// The arguments of a [`CHECK`] script. If the script finds another history, the jobs had no effect.
#[derive(PartialEq, Eq)]
struct Touch {
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
    asking: bool,
}

impl Touch {
    fn new(job: &ScriptCall) -> Self {
        let keys = job.keys.iter().take(FIXED_KEYS).cloned().collect();
        Self { keys, args: job.args.iter().take(2).cloned().collect(), asking: job.asking }
    }

    fn is_for(&self, job: &ScriptCall) -> bool {
        self.asking == job.asking && self.keys.first() == job.keys.first() && self.args.first() == job.args.first()
    }
}

/// Returns one check for each partition. While slots move, the partitions may be on different servers.
fn touches(batch: &[Queued]) -> Vec<Touch> {
    let mut touches: Vec<Touch> = Vec::new();
    for Queued { job, .. } in batch {
        if !touches.iter().any(|touch| touch.is_for(job)) {
            touches.push(Touch::new(job));
        }
    }
    touches
}

fn is_unknown_script(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else { return false };
    error.kind() == Some(ServerErrorKind::NoScript)
}

impl Durable {
    fn longest(self) -> Duration {
        if self.fsync { LONGEST_FSYNC } else { LONGEST_WAIT }
    }

    fn command(self) -> Cmd {
        let mut command = cmd(if self.fsync { "WAITAOF" } else { "WAIT" });
        if self.fsync {
            command.arg(1);
        }
        command.arg(self.replicas).arg(u64::try_from(self.longest().as_millis()).unwrap_or(u64::MAX));
        command
    }

    fn check(self, waited: &Value) -> Result<(), RedisFailure> {
        let wanted = i64::from(self.replicas);
        match waited {
            Value::Int(replicas) if !self.fsync && *replicas >= wanted => Ok(()),
            Value::Int(replicas) if !self.fsync => Err(short(*replicas, wanted)),
            Value::Array(parts) => match parts.as_slice() {
                [Value::Int(0), Value::Int(_)] => {
                    Err(RedisFailure::in_doubt("Redis has not written its append-only file to the disk in time"))
                }
                [Value::Int(_), Value::Int(replicas)] if *replicas >= wanted => Ok(()),
                [Value::Int(_), Value::Int(replicas)] => Err(short(*replicas, wanted)),
                _ => Err(RedisFailure::in_doubt("a reply of Redis to WAITAOF cannot be understood")),
            },
            _ => Err(RedisFailure::in_doubt("a reply of Redis to WAIT cannot be understood")),
        }
    }
}

fn short(replicas: i64, wanted: i64) -> RedisFailure {
    RedisFailure::in_doubt(format!(
        "{replicas} replicas of Redis have confirmed the write, but `wait_replicas` is {wanted}"
    ))
}
