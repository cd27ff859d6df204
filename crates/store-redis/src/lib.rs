//! A store in Redis or Valkey that several gates share. The store is on a single server, on the primary that Sentinels
//! name, or in a cluster.
//!
//! **Writing.** A gate computes a change from a snapshot. A script then writes it atomically, or reports that the store
//! differs (see `commit.rs`). Each write has a random name, so a repeated request returns the former result. All times
//! come from the server's clock.
//!
//! **Durability** depends on the server. With `appendonly yes` and `appendfsync always`, an `Ok` survives a crash of
//! the server. With other settings, a crash may lose a second of writes, and a warning says so.
//! [`RedisOptions::wait_replicas`] protects against the loss of a primary.
//!
//! The table lists the **Redis keys** for the prefix `rg` and partition 0, the only partition of a single server. A
//! cluster has 16 partitions (see `partitions.rs`). All keys of a partition have the same hash tag, because scripts use
//! several keys.
//!
//! | key | type | content |
//! |---|---|---|
//! | `{rg:0}:h` | hash | schema, store, history, issuer, keyring, writes, last stamp, latest end, start of the log |
//! | `{rg:0}:s:<id>` | string | a session; expires an hour after its end |
//! | `{rg:0}:sub:<subject>` | sorted set | the subject's sessions, sorted by end time |
//! | `{rg:0}:r` | hash | the live revocations, merged by target |
//! | `{rg:0}:u` | sorted set | the targets of the live revocations, sorted by expiry |
//! | `{rg:0}:log` | stream | the revocations of the last 15 minutes, as they were written |
//! | `{rg:0}:n` | hash | each node's last heartbeat and report |
//! | `{rg:0}:c:<name>` | string | a change that every node detects: state and first stamp; expires after a day |
//! | `{rg:0}:l:<name>` | string | an attempt counter; expires when the full burst is available again |
//! | `{rg:0}:k:<name>` | string | a remembered name; expires |
//! | `{rg:0}:x<space>:<key>`, `{rg:0}:xu<space>` | string, sorted set | the rows of a part, and their expiry |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Pipeline, Value, pipe};

use cluster::Primaries;
use connect::Request;
use partitions::{Partition, Partitions, Sign};
use record::{Op, new_op};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::commit::{Hints, InsertTurns};
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::kit::network::not_done;
use rotogate_core::store::rules::Rules;
use script::{Script, ScriptReply, bytes, unexpected};

mod check;
mod cluster;
mod commit;
mod connect;
mod copy;
mod fault;
mod feed;
mod lanes;
mod line;
mod list;
mod log;
mod opening;
mod options;
mod partitions;
mod record;
mod revoke;
mod rows;
mod script;
mod sentinel;
mod servers;
mod session;
mod shared;
mod store;
mod topology;

pub use check::inspect;
pub use options::RedisOptions;

/// A store in Redis or Valkey that several gates share.
///
/// ```
/// # async fn example(keyring: &rotogate::token::Keyring) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use rotogate::store::{NetworkOptions, RedisOptions, RedisStore};
///
/// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let store = RedisStore::connect(RedisOptions::new("redis://127.0.0.1:6379", network)).await?;
/// let builder = rotogate::Gate::builder().store(store);
/// # let _ = builder;
/// # Ok(()) }
/// ```
pub struct RedisStore(Arc<RedisInner>);

struct RedisInner {
    options: Arc<RedisOptions>,
    partitions: Partitions,
    issuer: Arc<str>,
    node: Op,
    commands: Primaries,
    /// These connections are separate, so that a burst of refreshes does not delay a logout.
    revokes: Primaries,
    beats: Primaries,
    store: Op,
    /// The number of evicted Redis keys when this process started.
    evicted: u64,
    inserts: InsertTurns,
    hints: Hints,
    /// The clients of recent sessions. An insert with a session limit reads the not-befores of these clients.
    clients: parking_lot::Mutex<std::collections::BTreeSet<Box<str>>>,
    doubts: rotogate_core::store::kit::doubts::Doubts,
    mark: rotogate_core::store::kit::mark::Marker,
    listing: list::Listing,
}

impl RedisStore {
    /// Connects to the server, checks it, and creates a missing store.
    ///
    /// # Errors
    /// Fails if the server is unreachable, unsuitable, or has another gate's store. The error names the remedy.
    pub async fn connect(options: RedisOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(check::open(options).await?)))
    }
}

rotogate_core::debug_with!(RedisStore, |it| { options: it.0.options });

/// Returns the error for a server with another history, or with fewer writes of the same history. In the second case,
/// `found` is `None` or equals `expected`.
fn other_history(partition: &Partition, expected: History, found: Option<&[u8]>) -> StoreError {
    let is_same = found.is_none_or(|found| found == expected);
    partition.flag_lost(expected, if is_same { Sign::Certain } else { Sign::Possible });
    not_done("Redis has lost writes: the gates write back the revocations that they know before they continue")
}

impl RedisInner {
    /// Runs a script as a new operation.
    async fn run(
        &self,
        partition: &Partition,
        script: &'static Script,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
    ) -> Result<ScriptReply, StoreError> {
        self.run_as(&self.commands, partition, (new_op()?, partition.history()), script, keys, args).await
    }

    async fn run_as(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        (op, history): (Op, History),
        script: &'static Script,
        more_keys: Vec<Vec<u8>>,
        more_args: Vec<Vec<u8>>,
    ) -> Result<ScriptReply, StoreError> {
        let mut answer = self.send(primaries, partition, (op, history), script, more_keys, more_args).await?;
        if answer.status == "history" {
            return Err(other_history(partition, history, answer.bytes().ok().as_deref()));
        }
        // A read may see writes that still wait for replicas, so it must not raise the number of acknowledged writes.
        if script.waits || self.options.durable().is_none() {
            partition.saw(history, answer.seq);
        }
        Ok(answer)
    }

    async fn send(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        (op, history): (Op, History),
        script: &'static Script,
        more_keys: Vec<Vec<u8>>,
        more_args: Vec<Vec<u8>>,
    ) -> Result<ScriptReply, StoreError> {
        let mut keys = partition.keys.fixed();
        keys.extend(more_keys);
        let known = partition.seq.load(Ordering::Acquire);
        let mut args = vec![[history, known.to_be_bytes()].concat(), op.to_vec()];
        args.extend(more_args);
        ScriptReply::read(primaries.ask(partition.number, &Request::Script { script, keys, args }).await?)
    }

    async fn read(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        what: impl FnOnce(&mut Pipeline),
    ) -> Result<std::vec::IntoIter<Value>, StoreError> {
        self.read_of(primaries, partition, partition.history(), what).await
    }

    async fn read_of(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        expected: History,
        what: impl FnOnce(&mut Pipeline),
    ) -> Result<std::vec::IntoIter<Value>, StoreError> {
        let mut pipeline = pipe();
        pipeline.cmd("HMGET").arg(partition.keys.named("h")).arg("history").arg("seq");
        what(&mut pipeline);
        let before = partition.seq.load(Ordering::Acquire);
        let Value::Array(replies) = primaries.ask(partition.number, &Request::Pipeline(pipeline)).await? else {
            return Err(unexpected("no list"));
        };
        let mut replies = replies.into_iter();
        let Some(Value::Array(head)) = replies.next() else { return Err(unexpected("no head")) };
        let [history, seq] = <[Value; 2]>::try_from(head).map_err(|_| unexpected("a short head"))?.map(bytes);
        if history.as_deref() != Some(&expected) {
            return Err(other_history(partition, expected, history.as_deref()));
        }
        let seq = seq.and_then(|seq| String::from_utf8(seq).ok()?.parse().ok()).ok_or_else(|| unexpected("no seq"))?;
        // The server had already reported `before` writes, so it has lost writes.
        if seq < before {
            return Err(other_history(partition, expected, None));
        }
        // A read may see writes that are not acknowledged yet.
        if self.options.durable().is_none() {
            partition.saw(expected, seq);
        }
        Ok(replies)
    }

    fn rules(&self) -> Rules {
        Rules::new(Arc::clone(&self.issuer), self.options.network.leeway)
    }

    fn leeway(&self) -> Vec<u8> {
        self.options.network.leeway.as_millis().to_string().into_bytes()
    }

    async fn value_of(&self, partition: &Partition, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        let get = |pipeline: &mut Pipeline| drop_mut(pipeline.cmd("GET").arg(key));
        value_in(self.read(&self.commands, partition, get).await?.next())
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        let first = self.partitions.first();
        let mut replies = self.read(&self.commands, first, |pipeline| drop_mut(pipeline.cmd("TIME"))).await?;
        time_of(replies.next())
    }
}

fn value_in(reply: Option<Value>) -> Result<Option<Vec<u8>>, StoreError> {
    match reply {
        Some(Value::Nil) => Ok(None),
        Some(Value::BulkString(record)) => Ok(Some(record)),
        _ => Err(unexpected("no record")),
    }
}

fn drop_mut(_: &mut Pipeline) {}

fn time_of(reply: Option<Value>) -> Result<Timestamp, StoreError> {
    let Some(Value::Array(parts)) = reply else { return Err(unexpected("no time")) };
    let mut numbers = parts.into_iter().map(|part| String::from_utf8(bytes(part)?).ok()?.parse::<u64>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(seconds), Some(micros)) => Ok(Timestamp::from_secs(seconds).plus(Duration::from_micros(micros))),
        _ => Err(unexpected("no time")),
    }
}

#[cfg(test)]
mod tests;
