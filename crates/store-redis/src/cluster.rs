//! Requests by partition: to one server, or to the primary of a cluster that has the partition's slot.
//!
//! The library's cluster client has its own rules for repetitions. Ours depend on the deadline of an operation and on
//! the state of a write. So this module keeps its own table of the few slots of the partitions. The table is read again
//! after every fault. A redirection (`MOVED`) corrects it. While a slot moves, each command follows its own redirection
//! (`ASK`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex as Lock;
use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, cmd, pipe};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::check::{is_forbidden, not_allowed};
use super::connect::{FIRST_PAUSE, LONGEST_PAUSE, Link, MAX_IN_FLIGHT, Request};
use super::fault::{RedisFailure, after_all, not_done};
use super::opening::not_a_node;
use super::options::{Address, RedisOptions};
use super::partitions::{OF_A_CLUSTER, PartitionKeys};
use super::script::{bytes, unexpected};
use super::servers::Servers;
use rotogate_core::random::jittered;
use rotogate_core::store::StoreError;

/// The shortest pause between two requests for the table.
const BETWEEN: Duration = Duration::from_millis(100);
/// How long a request waits for its server, besides the time of a command that blocks, before it requests the table.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// How often a request follows `MOVED` at once. After that, it pauses first, because two servers may redirect
/// to each other.
const MAX_HOPS: u32 = 3;

impl Address {
    /// Parses an address in a `MOVED` or `ASK` error. An empty host means the host of the server that
    /// replied.
    fn parse(text: &str, said_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { said_by.host.as_str() } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// Reads an address in the reply to `CLUSTER SLOTS`, where the host may be unknown.
    fn read(node: Value, said_by: &Self) -> Option<Self> {
        let Value::Array(node) = node else { return None };
        let mut parts = node.into_iter();
        let (host, Some(Value::Int(port))) = (parts.next()?, parts.next()) else { return None };
        let host = bytes(host).and_then(|host| String::from_utf8(host).ok());
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| said_by.host.clone());
        Some(Self { host, port: port.try_into().ok()? })
    }
}

/// A redirection to the server that has the requested slot.
#[derive(Clone, Debug)]
pub(super) enum Elsewhere {
    /// For all further requests.
    Moved(String),
    /// For this command only, while its slot moves.
    Ask(String),
}

impl Elsewhere {
    pub(super) fn from_error(error: &RedisError) -> Option<Self> {
        let (address, _) = error.redirect_node()?;
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => Some(Self::Moved(address.to_owned())),
            ErrorKind::Server(ServerErrorKind::Ask) => Some(Self::Ask(address.to_owned())),
            _ => None,
        }
    }
}

/// The servers that take requests.
pub(super) enum Primaries {
    One(Arc<Link>),
    Cluster(Cluster),
}

impl Primaries {
    pub(super) async fn ask(&self, partition: usize, request: &Request) -> Result<Value, StoreError> {
        match self {
            Self::One(link) => link.ask(request).await,
            Self::Cluster(cluster) => cluster.ask(partition, request).await,
        }
    }

    /// Separate connections to the same servers, without lanes, for commands that block for up to `blocks`.
    pub(super) fn another(&self, blocks: Duration) -> Self {
        match self {
            Self::One(link) => Self::One(link.another(blocks).into()),
            Self::Cluster(cluster) => Self::Cluster(Cluster::new(&cluster.topology, blocks, 0)),
        }
    }

    /// The connection to the server of a partition, for checks.
    pub(super) fn link_of(&self, partition: usize) -> Result<Arc<Link>, StoreError> {
        match self {
            Self::One(link) => Ok(Arc::clone(link)),
            Self::Cluster(cluster) => cluster.link_of(partition).map(|(_, link)| link),
        }
    }

    /// For each primary, one of its partitions, its options and the connection.
    pub(super) fn each(&self, options: &RedisOptions) -> Vec<(usize, RedisOptions, Arc<Link>)> {
        match self {
            Self::One(link) => vec![(0, options.clone(), Arc::clone(link))],
            Self::Cluster(cluster) => cluster.each_primary(),
        }
    }

    /// One partition for each server.
    pub(super) fn one_of_each(&self) -> Vec<usize> {
        match self {
            Self::One(_) => vec![0],
            Self::Cluster(cluster) => cluster.topology.table().one_of_each(),
        }
    }
}

/// The primary of each partition. Each new table has another number.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterTable {
    number: u64,
    primaries: Vec<Address>,
    /// All servers including replicas, because any of them can report the table.
    nodes: Vec<Address>,
}

impl ClusterTable {
    fn one_of_each(&self) -> Vec<usize> {
        let first = |of: &Address| self.primaries.iter().position(|other| other == of);
        (0..).zip(&self.primaries).filter(|(at, address)| first(address) == Some(*at)).map(|(at, _)| at).collect()
    }
}

/// The topology of the cluster, as its servers report it.
pub(super) struct Topology {
    options: Arc<RedisOptions>,
    /// The servers of the URLs.
    seeds: Vec<Address>,
    /// The slot of each partition.
    slots: Vec<i64>,
    table: watch::Sender<Arc<ClusterTable>>,
    /// Connections that only request the table.
    links: Links,
    /// The shared state of the connections to a server. Connections that block have a state of their own.
    servers: Lock<HashMap<(Address, bool), Arc<Servers>>>,
    asking: Mutex<Option<Instant>>,
    /// How often the table was asked for.
    asked: AtomicU64,
}

impl Topology {
    /// Requests the table from the servers of the URLs.
    pub(super) async fn find(options: &Arc<RedisOptions>) -> Result<Arc<Self>, StoreError> {
        let seeds = options.places()?;
        let link = first_that_answers(options, &seeds).await?;
        let mut slots = Vec::new();
        for partition in 0..OF_A_CLUSTER {
            let keys = PartitionKeys::new(&options.prefix, partition);
            match ask_seed(options, &link, &keys, &["KEYSLOT", &keys.tag]).await? {
                Value::Int(slot) => slots.push(slot),
                _ => return Err(unexpected("no slot")),
            }
        }
        ask_seed(options, &link, &PartitionKeys::new(&options.prefix, 0), &["SLOTS"]).await?;
        let topology = Self {
            options: Arc::clone(options),
            seeds,
            slots,
            table: watch::Sender::default(),
            links: Lock::default(),
            servers: Lock::default(),
            asking: Mutex::default(),
            asked: AtomicU64::new(0),
        };
        let deadline = Instant::now() + options.network.operation_timeout;
        while topology.table().primaries.is_empty() {
            topology.renew(None).await;
            if topology.table().primaries.is_empty() && Instant::now() > deadline {
                return Err(not_done(format!(
                    "the cluster of Redis at {} has slots without a primary: see CLUSTER INFO",
                    options.address()
                )));
            }
        }
        Ok(Arc::new(topology))
    }

    fn servers(&self, address: &Address, blocks: bool) -> Arc<Servers> {
        let new = || Servers::new(&Arc::new(self.options.at(address)));
        Arc::clone(self.servers.lock().entry((address.clone(), blocks)).or_insert_with(new))
    }

    fn table(&self) -> Arc<ClusterTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Requests the table from all servers at once, and takes the first valid answer. The server `not` has failed, and
    /// is asked only if no other server is known.
    async fn renew(&self, not: Option<&Address>) {
        let before = self.asked.load(Ordering::Acquire);
        let mut last = self.asking.lock().await;
        if self.asked.load(Ordering::Acquire) != before {
            // Another request asked meanwhile.
            return;
        }
        if let Some(last) = *last {
            sleep_until(last + BETWEEN).await;
        }
        let table = self.table();
        let mut nodes: Vec<_> = table.nodes.iter().filter(|node| Some(*node) != not).cloned().collect();
        // Asks the failed server, too, if no other server is known.
        let none = nodes.is_empty();
        let is_more = |seed: &&Address| !nodes.contains(seed) && (none || Some(*seed) != not);
        let more: Vec<_> = self.seeds.iter().filter(is_more).cloned().collect();
        nodes.extend(more);
        if nodes.is_empty() {
            nodes.extend(not.cloned());
        }
        let mut answers: FuturesUnordered<_> = nodes.into_iter().map(|node| self.ask_node(node)).collect();
        while let Some(answer) = answers.next().await {
            let Some((primaries, nodes)) = answer else { continue };
            self.take(primaries, nodes);
            break;
        }
        *last = Some(Instant::now());
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    async fn ask_node(&self, node: Address) -> Option<(Vec<Address>, Vec<Address>)> {
        let there = || Link::to_any(Servers::new(&Arc::new(self.options.at(&node))));
        let link = link_to(&self.links, &node, there);
        let mut command = cmd("CLUSTER");
        command.arg("SLOTS");
        let asked = timeout(self.options.network.connect_timeout, link.once(&command)).await;
        let Ok(Ok(Ok(Value::Array(ranges)))) = asked else { return None };
        self.read_slots(ranges, &node)
    }

    /// Reads the reply to `CLUSTER SLOTS`. `None` if a slot of a partition has no primary, or the reply
    /// cannot be parsed.
    fn read_slots(&self, ranges: Vec<Value>, said_by: &Address) -> Option<(Vec<Address>, Vec<Address>)> {
        let mut primaries = vec![None; self.slots.len()];
        let mut nodes = Vec::new();
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let mut parts = parts.into_iter();
            let (Some(Value::Int(first)), Some(Value::Int(last))) = (parts.next(), parts.next()) else { return None };
            let servers: Vec<_> = parts.filter_map(|node| Address::read(node, said_by)).collect();
            for (slot, primary) in self.slots.iter().zip(&mut primaries) {
                if (first..=last).contains(slot) {
                    *primary = servers.first().cloned();
                }
            }
            nodes.extend(servers);
        }
        nodes.sort_unstable();
        nodes.dedup();
        Some((primaries.into_iter().collect::<Option<_>>()?, nodes))
    }

    fn take(&self, primaries: Vec<Address>, nodes: Vec<Address>) {
        self.links.lock().retain(|node, _| nodes.contains(node));
        self.servers.lock().retain(|(node, _), _| nodes.contains(node));
        self.table.send_if_modified(|table| {
            let changed = table.primaries != primaries;
            let number = table.number + u64::from(changed);
            *table = Arc::new(ClusterTable { number, primaries, nodes });
            changed
        });
    }

    /// Corrects the table after a `MOVED` reply.
    fn moved(&self, partition: usize, to: Address) {
        self.table.send_if_modified(|table| {
            let mut next = ClusterTable::clone(table);
            match next.primaries.get_mut(partition) {
                Some(primary) if *primary != to => *primary = to.clone(),
                Some(_) | None => return false,
            }
            if !next.nodes.contains(&to) {
                next.nodes.push(to);
            }
            next.number += 1;
            *table = Arc::new(next);
            true
        });
    }

    /// Ends when another server has the partition. Requests the table meanwhile, because a lost server does not answer.
    async fn left(&self, partition: usize, address: &Address, every: Duration) {
        let mut table = self.table.subscribe();
        while timeout(every, table.wait_for(|table| table.primaries.get(partition) != Some(address))).await.is_err() {
            self.renew(Some(address)).await;
        }
    }
}

/// Calls a `CLUSTER` subcommand at the start. The error describes a fault of the server or a missing right.
async fn ask_seed(
    options: &RedisOptions,
    link: &Link,
    keys: &PartitionKeys,
    args: &[&str],
) -> Result<Value, StoreError> {
    let mut command = cmd("CLUSTER");
    command.arg(args);
    match link.once(&command).await? {
        Ok(reply) => Ok(reply),
        Err(error) if is_forbidden(&error) => {
            let name = format!("CLUSTER|{}", args.first().copied().unwrap_or_default());
            Err(not_allowed(options, keys, &name, &error))
        }
        Err(error) if error.to_string().contains("cluster support disabled") => Err(not_a_node(options)),
        Err(error) => Err(link.error(&error)),
    }
}

/// A connection to the first of the servers that answers.
async fn first_that_answers(options: &RedisOptions, seeds: &[Address]) -> Result<Link, StoreError> {
    let mut greetings: FuturesUnordered<_> = seeds
        .iter()
        .map(async |seed| {
            let link = Link::to_any(Servers::new(&Arc::new(options.at(seed))));
            let mut greeting = pipe();
            greeting.cmd("TIME");
            link.ask(&Request::Pipeline(greeting)).await.map(|_| link)
        })
        .collect();
    let mut fault = None;
    while let Some(greeted) = greetings.next().await {
        match greeted {
            Ok(link) => return Ok(link),
            Err(error) => drop(fault.get_or_insert(error)),
        }
    }
    Err(fault.unwrap_or_else(|| not_done("there is no URL of Redis")))
}

type Links = Lock<HashMap<Address, Arc<Link>>>;

fn link_to(links: &Links, address: &Address, there: impl FnOnce() -> Link) -> Arc<Link> {
    let mut links = links.lock();
    Arc::clone(links.entry(address.clone()).or_insert_with(|| there().into()))
}

/// Connections to the primaries of a cluster, one to each.
pub(super) struct Cluster {
    topology: Arc<Topology>,
    blocks: Duration,
    /// How many lanes each primary has, if the store waits for replicas.
    lanes: usize,
    links: Links,
    in_flight: Semaphore,
}

impl Cluster {
    pub(super) fn new(topology: &Arc<Topology>, blocks: Duration, lanes: usize) -> Self {
        let (topology, in_flight) = (Arc::clone(topology), Semaphore::new(MAX_IN_FLIGHT));
        Self { topology, blocks, lanes, links: Links::default(), in_flight }
    }

    /// The number of the table, and the connections to all primaries.
    pub(super) fn primaries(&self) -> (u64, Vec<Arc<Link>>) {
        let table = self.topology.table();
        let one_of_each = table.one_of_each().into_iter();
        let links = one_of_each.filter_map(|at| Some(self.link(table.primaries.get(at)?))).collect();
        (table.number, links)
    }

    /// For each primary, one of its partitions, its options and the connection.
    fn each_primary(&self) -> Vec<(usize, RedisOptions, Arc<Link>)> {
        let table = self.topology.table();
        let of = |at: usize| {
            let address = table.primaries.get(at)?;
            Some((at, self.topology.options.at(address), self.link(address)))
        };
        table.one_of_each().into_iter().filter_map(of).collect()
    }

    fn link(&self, address: &Address) -> Arc<Link> {
        let servers = || self.topology.servers(address, self.blocks > Duration::ZERO);
        link_to(&self.links, address, || match self.lanes {
            0 => Link::new(servers(), self.blocks),
            lanes => Link::new(servers(), self.blocks).with_lanes(lanes),
        })
    }

    fn link_of(&self, partition: usize) -> Result<(Address, Arc<Link>), StoreError> {
        let table = self.topology.table();
        let address = table.primaries.get(partition).ok_or_else(|| not_done("a partition has no slot"))?;
        Ok((address.clone(), self.link(address)))
    }

    /// Sends a request, and repeats it after faults until the operation's deadline.
    async fn ask(&self, partition: usize, request: &Request) -> Result<Value, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_done(format!("{MAX_IN_FLIGHT} requests to Redis wait for their replies")));
        };
        let deadline = Instant::now() + self.topology.options.network.operation_timeout;
        let (sent, mut pause, mut last, mut hops) = (AtomicBool::new(false), FIRST_PAUSE, None, 0);
        loop {
            let (address, link) = self.link_of(partition)?;
            let attempt = async {
                tokio::select! {
                    done = self.follow(&address, &link, request, &sent) => done,
                    () = self.topology.left(partition, &address, self.blocks + ASK_AFTER) => Err(moved_away()),
                }
            };
            let Ok(done) = timeout_at(deadline, attempt).await else {
                return Err(after_all(last.unwrap_or_else(|| link.late()), sent.load(Ordering::Relaxed)));
            };
            let failed = match done {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if let Some(Elsewhere::Moved(to)) = &failed.elsewhere
                && let Some(to) = Address::parse(to, &address)
            {
                self.topology.moved(partition, to);
                self.forget_others();
                hops += 1;
                if hops <= MAX_HOPS {
                    continue;
                }
            }
            let wait = jittered(pause);
            if !failed.again || Instant::now() + wait >= deadline {
                return Err(after_all(failed, sent.load(Ordering::Relaxed)));
            }
            last = Some(failed);
            // After any failure, the partition may be on another server.
            let _ = timeout_at(deadline, self.topology.renew(Some(&address))).await;
            self.forget_others();
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Closes connections to servers that are not primaries any more.
    fn forget_others(&self) {
        let table = self.topology.table();
        let mut links = self.links.lock();
        links.retain(|address, _| table.primaries.contains(address));
    }

    /// Sends a request once. If the server replies `ASK`, sends it to the other server.
    async fn follow(
        &self,
        address: &Address,
        link: &Link,
        request: &Request,
        sent: &AtomicBool,
    ) -> Result<Value, RedisFailure> {
        let to = match link.attempt(request, sent).await {
            Err(failed) => match &failed.elsewhere {
                Some(Elsewhere::Ask(to)) => self.link(&Address::parse(to, address).ok_or(failed)?),
                Some(Elsewhere::Moved(_)) | None => return Err(failed),
            },
            done => return done,
        };
        match request {
            Request::Script { script, keys, args } => to.asking(script, keys, args, sent).await,
            Request::Pipeline(pipeline) => {
                // While a slot moves, each key of the pipeline is at one of the two servers, so each command
                // is sent by itself.
                let mut replies = Vec::new();
                for command in pipeline.cmd_iter() {
                    let alone = Request::Pipeline(Pipeline::with_capacity(1).add_command(command.clone()).clone());
                    let reply = match link.attempt(&alone, sent).await {
                        Err(RedisFailure { elsewhere: Some(Elsewhere::Ask(_)), .. }) => {
                            to.asking_for(command.clone(), sent).await?
                        }
                        done => only(done?).ok_or_else(|| RedisFailure::again(&unexpected("no reply")))?,
                    };
                    replies.push(reply);
                }
                Ok(Value::Array(replies))
            }
        }
    }
}

fn only(replies: Value) -> Option<Value> {
    match replies {
        Value::Array(replies) => replies.into_iter().next(),
        _ => None,
    }
}

fn moved_away() -> RedisFailure {
    RedisFailure::in_doubt("the partition is at another server of Redis since")
}
