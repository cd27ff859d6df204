//! A store of several gates in Redis or Valkey: one server, the primary that Sentinels name, or a cluster.
//!
//! **Writing.** The rules run in the gate, over a snapshot that the gate has read or presumes. A script then writes
//! their result atomically, in one order for all nodes, or answers that the store differs from the snapshot: see
//! `commit.rs`. Each write has a random name. A script that finds this name in the store repeats its former answer, so
//! a request without a reply can be sent again. Only the server's clock counts.
//!
//! **Durability** depends on the server: with `appendonly yes` and `appendfsync always`, an `Ok` survives a crash of
//! the server. With other settings, a crash loses up to a second of writes; a warning at the start says so.
//! [`RedisOptions::wait_replicas`] protects against the loss of a primary with its last writes.
//!
//! **Keys**, for the prefix `rg` and partition 0, the only one of a single server. A cluster has 16 partitions (see
//! `partitions.rs`). All keys of a partition have the same hash tag, because a script needs several of them.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{rg:0}:h` | hash | schema, store, history, issuer, keyring, number of writes, last stamp, latest end, floor of the log |
//! | `{rg:0}:s:<id>` | string | a session; expires an hour after its end |
//! | `{rg:0}:sub:<subject>` | sorted set | the subject's sessions by end |
//! | `{rg:0}:r` | hash | the live revocations, merged, by target |
//! | `{rg:0}:u` | sorted set | their ends |
//! | `{rg:0}:log` | stream | the revocations of the last 15 minutes, as they were written |
//! | `{rg:0}:n` | hash | the nodes, with their last beat and what they say of themselves |
//! | `{rg:0}:c:<name>` | string | what changed at all nodes: its state now, and the stamp of the first node; expires after a day |
//! | `{rg:0}:l:<name>` | string | a counter of attempts; expires once it is full again |
//! | `{rg:0}:k:<name>` | string | a name that is remembered until it expires |
//! | `{rg:0}:x:<id>`, `{rg:0}:xu` | string, sorted set | the relay's records, and their ends |

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
mod relay;
mod revoke;
mod script;
mod sentinel;
mod servers;
mod session;
mod shared;
mod store;
mod topology;

pub use check::inspect;
pub use options::RedisOptions;

/// A store in Redis or Valkey, for several gates.
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
    /// The id of this run of the program among the nodes.
    node: Op,
    commands: Primaries,
    /// Separate connections for revocations, so that a storm of refreshes does not delay a logout.
    revokes: Primaries,
    beats: Primaries,
    /// The name of the store, which is in each of its heads.
    store: Op,
    /// How many keys the servers had evicted when this run began.
    evicted: u64,
    inserts: InsertTurns,
    hints: Hints,
    /// Clients of recent sessions. A bounded insert reads their not-befores together with those of its own
    /// client.
    clients: parking_lot::Mutex<std::collections::BTreeSet<Box<str>>>,
    doubts: rotogate_core::store::kit::doubts::Doubts,
    mark: rotogate_core::store::kit::mark::Marker,
    listing: list::Listing,
}

impl RedisStore {
    /// Connects, checks the server, and makes the store if it is missing.
    ///
    /// # Errors
    /// The server cannot be reached, is not fit for a store, or has the store of another gate. The text names the fault
    /// and its remedy.
    pub async fn connect(options: RedisOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(check::open(options).await?)))
    }
}

rotogate_core::debug_with!(RedisStore, |it| { options: it.0.options });

/// The error if the data has another history than expected, or the same history with fewer writes. In the second
/// case, `found` is the expected history or `None`.
fn other_history(partition: &Partition, expected: History, found: Option<&[u8]>) -> StoreError {
    let is_same = found.is_none_or(|found| found == expected);
    partition.flag_lost(expected, if is_same { Sign::Certain } else { Sign::Possible });
    not_done("Redis has lost writes: the gates write back what they know before they go on")
}

impl RedisInner {
    /// Runs a script under a new name.
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
        // A read may see writes that still wait for replicas, so it must not raise the number of acknowledged
        // writes.
        if script.waits || self.options.durable().is_none() {
            partition.saw(history, answer.seq);
        }
        Ok(answer)
    }

    /// Sends a script without a check of the history in the answer.
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

    /// Reads data, which must be of the expected history.
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
        // The gate knew of `before` writes when it sent the request, so the server must have at least as
        // many.
        if seq < before {
            return Err(other_history(partition, expected, None));
        }
        // A read may see writes that are not acknowledged yet, because they wait for replicas.
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

    /// The value of a key; `None` if there is none.
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

/// The value in the reply to GET.
fn value_in(reply: Option<Value>) -> Result<Option<Vec<u8>>, StoreError> {
    match reply {
        Some(Value::Nil) => Ok(None),
        Some(Value::BulkString(record)) => Ok(Some(record)),
        _ => Err(unexpected("no record")),
    }
}

/// Discards the pipeline that its own building methods return.
fn drop_mut(_: &mut Pipeline) {}

/// Parses the reply to TIME: seconds and microseconds.
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
