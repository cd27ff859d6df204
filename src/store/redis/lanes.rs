//! Writes that are acknowledged once replicas have them.
//!
//! WAIT counts the replicas that have what its own connection wrote, and blocks that connection. So a lane sends whatever
//! waits for it as one pipeline with one WAIT at its end, and answers then. A script that finds its work done writes
//! nothing, and WAIT would count replicas that lack that work: so each pipeline writes the number of writes once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ServerErrorKind, Value, cmd, pipe};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;

use super::super::WriteOutcome;
use super::drop_mut;
use super::fault::Failed;
use super::line::{Line, Open};
use super::script::{CHECK, Script};
use super::servers::Servers;

/// How long a lane waits for replicas.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// And for append-only files, which may be written every second.
const LONGEST_FSYNC: Duration = Duration::from_millis(1200);
/// How many requests one pipeline has: other clients of the server wait meanwhile.
const MAX_BATCH: usize = 256;

/// Where an acknowledged write must be, besides in the primary's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) replicas: u32,
    /// In the append-only files, of the primary as well.
    pub(super) fsync: bool,
}

/// What [`CHECK`] is given: it writes, and changes nothing else.
#[derive(Clone)]
pub(super) struct Touch {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
}

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

struct Job {
    script: &'static Script,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Value, Failed>>,
}

/// Lanes that share a queue: each takes what waits as soon as it is free.
pub(super) struct Lanes {
    queue: UnboundedSender<Job>,
    _tasks: JoinSet<()>,
}

/// Tells at its end whether the job may have been sent.
struct Asked<'a> {
    state: Arc<AtomicU8>,
    sent: &'a AtomicBool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let given_up = self.state.compare_exchange(QUEUED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        if given_up == Err(SENT) {
            self.sent.store(true, Ordering::Relaxed);
        }
    }
}

impl Lanes {
    pub(super) fn new(servers: &Arc<Servers>, durable: Durable, number: usize, touch: &Touch) -> Self {
        let (queue, jobs) = unbounded_channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut tasks = JoinSet::new();
        for _ in 0..number {
            let line = Line::new(Arc::clone(servers), durable.longest());
            tasks.spawn(serve(Lane { line, durable, touch: touch.clone() }, Arc::clone(&jobs)));
        }
        Self { queue, _tasks: tasks }
    }

    /// The lane goes on with what it has sent, whether the caller waits or not.
    pub(super) async fn send(
        &self,
        script: &'static Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
        sent: &AtomicBool,
    ) -> Result<Value, Failed> {
        let (reply, replied) = oneshot::channel();
        let asked = Asked { state: Arc::new(AtomicU8::new(QUEUED)), sent };
        let before = sent.load(Ordering::Relaxed);
        let job = Job { script, keys: keys.to_vec(), args: args.to_vec(), state: Arc::clone(&asked.state), reply };
        let _ = self.queue.send(job);
        let result = replied.await.unwrap_or_else(|_| Err(Failed::in_doubt("the store in Redis was closed")));
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
    touch: Touch,
}

async fn serve(lane: Lane, jobs: Arc<Mutex<UnboundedReceiver<Job>>>) {
    loop {
        let mut batch = Vec::new();
        if jobs.lock().await.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        lane.carry(batch).await;
    }
}

impl Lane {
    async fn carry(&self, batch: Vec<Job>) {
        let open = match self.line.connection().await {
            Ok(open) => open,
            Err(failed) => {
                for job in batch {
                    let _ = job.reply.send(Err(failed.clone()));
                }
                return;
            }
        };
        let begin = |job: &Job| job.state.compare_exchange(QUEUED, SENT, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let batch: Vec<_> = batch.into_iter().filter(begin).collect();
        if batch.is_empty() {
            return;
        }
        let mut replies = self.line.on(&open, self.send(&open.connection, &batch, false)).await;
        // Every script may be sent again.
        if replies.as_ref().is_ok_and(|replies| replies.iter().any(is_unknown_script)) {
            replies = self.line.on(&open, self.send(&open.connection, &batch, true)).await;
        }
        let enough = replies.as_mut().map_err(|failed| failed.clone()).and_then(|replies| {
            // The last but one is the touch.
            let (waited, touched) = (replies.pop().unwrap_or(Value::Nil), replies.pop().unwrap_or(Value::Nil));
            touched.extract_error().and_then(|_| waited.extract_error()).map_err(|error| self.failed(&open, &error))
        });
        let enough = enough.and_then(|waited| self.durable.check(&waited));
        let mut replies = replies.unwrap_or_default().into_iter();
        let mut closes = false;
        for job in batch {
            let own = replies.next().map(|reply| reply.extract_error().map_err(|error| self.failed(&open, &error)));
            let result = match (own, &enough) {
                (Some(Err(failed)), _) => Err(failed),
                (Some(Ok(reply)), Ok(())) => Ok(reply),
                (None, Ok(())) => Err(Failed::in_doubt("a reply of Redis is missing")),
                (_, Err(short)) => Err(short.clone()),
            };
            closes |= result.as_ref().is_err_and(|failed| failed.closes);
            let _ = job.reply.send(result);
        }
        if closes {
            self.line.close(open.number).await;
        }
    }

    fn failed(&self, open: &Open, error: &RedisError) -> Failed {
        self.line.failed(open.primary.as_ref(), error)
    }

    async fn send(
        &self,
        connection: &MultiplexedConnection,
        batch: &[Job],
        in_full: bool,
    ) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = pipe();
        for job in batch {
            drop_mut(pipeline.add_command(job.script.command(in_full, &job.keys, &job.args)));
        }
        drop_mut(pipeline.add_command(CHECK.command(in_full, &self.touch.keys, &self.touch.args)));
        drop_mut(pipeline.add_command(self.durable.command()));
        connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await
    }
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

    fn check(self, waited: &Value) -> Result<(), Failed> {
        let wanted = i64::from(self.replicas);
        match waited {
            Value::Int(replicas) if !self.fsync && *replicas >= wanted => Ok(()),
            Value::Int(replicas) if !self.fsync => Err(short(*replicas, wanted)),
            Value::Array(parts) => match parts.as_slice() {
                [Value::Int(0), Value::Int(_)] => {
                    Err(Failed::in_doubt("Redis has not written its append-only file to the disk in time"))
                }
                [Value::Int(_), Value::Int(replicas)] if *replicas >= wanted => Ok(()),
                [Value::Int(_), Value::Int(replicas)] => Err(short(*replicas, wanted)),
                _ => Err(Failed::in_doubt("a reply of Redis to WAITAOF cannot be understood")),
            },
            _ => Err(Failed::in_doubt("a reply of Redis to WAIT cannot be understood")),
        }
    }
}

fn short(replicas: i64, wanted: i64) -> Failed {
    Failed::in_doubt(format!("{replicas} replicas of Redis have the write, and wait_replicas is {wanted}"))
}
