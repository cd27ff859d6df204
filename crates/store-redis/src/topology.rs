//! The table of the cluster, which contains the primary of each partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex as Lock;
use redis::{Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::check::{is_forbidden, not_allowed};
use super::connect::{Link, Request};
use super::opening::not_a_node;
use super::options::{Address, RedisOptions};
use super::partitions::{OF_A_CLUSTER, PartitionKeys};
use super::script::{bytes, unexpected};
use super::servers::Servers;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::network::not_done;

/// The minimum pause between two requests for the table.
const BETWEEN: Duration = Duration::from_millis(100);

impl Address {
    /// Reads an address in the reply to `CLUSTER SLOTS`, in which the host may be unknown.
    fn read(node: Value, said_by: &Self) -> Option<Self> {
        let Value::Array(node) = node else { return None };
        let mut parts = node.into_iter();
        let (host, Some(Value::Int(port))) = (parts.next()?, parts.next()) else { return None };
        let host = bytes(host).and_then(|host| String::from_utf8(host).ok());
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| said_by.host.clone());
        Some(Self { host, port: port.try_into().ok()? })
    }
}

/// The primary of each partition. Each new table has a new number.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterTable {
    pub(super) number: u64,
    pub(super) primaries: Vec<Address>,
    /// All servers including replicas, because any of them can report the table.
    nodes: Vec<Address>,
}

impl ClusterTable {
    pub(super) fn one_of_each(&self) -> Vec<usize> {
        let first = |of: &Address| self.primaries.iter().position(|other| other == of);
        (0..).zip(&self.primaries).filter(|(at, address)| first(address) == Some(*at)).map(|(at, _)| at).collect()
    }
}

/// The topology of the cluster, as its servers report it.
pub(super) struct Topology {
    pub(super) options: Arc<RedisOptions>,
    /// The servers of the URLs.
    seeds: Vec<Address>,
    /// The slot of each partition.
    slots: Vec<i64>,
    table: watch::Sender<Arc<ClusterTable>>,
    /// Connections that only request the table.
    links: Links,
    /// The shared state of the connections to a server. Connections that block have separate state.
    servers: Lock<HashMap<(Address, bool), Arc<Servers>>>,
    renewal: Lock<Renewal>,
    /// Notifies waiting callers whenever the servers have been asked for the table.
    renewed: watch::Sender<()>,
}

/// The requests for the table. One of them runs at a time.
#[derive(Default)]
struct Renewal {
    runs: bool,
    /// The time at which the last request ended.
    ended: Option<Instant>,
}

/// The turn of the task that requests the table. Dropping it wakes the callers, even after a panic.
struct RenewalTurn(Arc<Topology>);

impl Drop for RenewalTurn {
    fn drop(&mut self) {
        let mut renewal = self.0.renewal.lock();
        *renewal = Renewal { runs: false, ended: Some(Instant::now()) };
        self.0.renewed.send_replace(());
    }
}

impl Topology {
    /// Requests the table from the servers in the URLs.
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
        let topology = Arc::new(Self {
            options: Arc::clone(options),
            seeds,
            slots,
            table: watch::Sender::default(),
            links: Lock::default(),
            servers: Lock::default(),
            renewal: Lock::default(),
            renewed: watch::Sender::default(),
        });
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
        Ok(topology)
    }

    pub(super) fn servers(&self, address: &Address, blocks: bool) -> Arc<Servers> {
        let new = || Servers::new(&Arc::new(self.options.at(address)));
        Arc::clone(self.servers.lock().entry((address.clone(), blocks)).or_insert_with(new))
    }

    pub(super) fn table(&self) -> Arc<ClusterTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Requests the table, and waits until the servers were asked. A single task does this for all callers that wait in
    /// the meantime. A caller that gives up, or that is not polled, therefore does not block other callers. `not` is
    /// the server that has failed. It is queried only if no other server is known.
    pub(super) async fn renew(self: &Arc<Self>, not: Option<&Address>) {
        let mut renewed = {
            let mut renewal = self.renewal.lock();
            if !renewal.runs {
                renewal.runs = true;
                let (turn, ended, not) = (RenewalTurn(Arc::clone(self)), renewal.ended, not.cloned());
                drop(tokio::spawn(async move {
                    if let Some(ended) = ended {
                        sleep_until(ended + BETWEEN).await;
                    }
                    let limit = turn.0.options.network.connect_timeout;
                    let _ = timeout(limit, turn.0.request(not.as_ref())).await;
                }));
            }
            self.renewed.subscribe()
        };
        // This never fails, because `self` owns the sender.
        let _ = renewed.changed().await;
    }

    /// Requests the table from all servers at once, and uses the first valid reply.
    async fn request(&self, not: Option<&Address>) {
        let table = self.table();
        let mut nodes: Vec<_> = table.nodes.iter().filter(|node| Some(*node) != not).cloned().collect();
        // If no other server is known, the failed server is queried again.
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
    }

    async fn ask_node(&self, node: Address) -> Option<(Vec<Address>, Vec<Address>)> {
        let there = || Link::to_any(Servers::new(&Arc::new(self.options.at(&node))));
        let link = link_to(&self.links, &node, there);
        let mut command = cmd("CLUSTER");
        command.arg("SLOTS");
        let Ok(Ok(Value::Array(ranges))) = link.once(&command).await else { return None };
        self.read_slots(ranges, &node)
    }

    /// Reads the reply to `CLUSTER SLOTS`. Returns `None` if a slot of a partition has no primary, or if the reply
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
    pub(super) fn moved(&self, partition: usize, to: Address) {
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

    /// Waits until another server has the partition. Requests the table in the meantime, because a failed server
    /// does not report the move.
    pub(super) async fn left(self: &Arc<Self>, partition: usize, address: &Address, every: Duration) {
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

/// Makes a connection to the first server that responds.
async fn first_that_answers(options: &RedisOptions, seeds: &[Address]) -> Result<Link, StoreError> {
    let mut greetings: FuturesUnordered<_> = seeds
        .iter()
        .map(async |seed| {
            let link = Link::to_any(Servers::new(&Arc::new(options.at(seed))));
            link.ask(&Request::time()).await.map(|_| link)
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

pub(super) type Links = Lock<HashMap<Address, Arc<Link>>>;

pub(super) fn link_to(links: &Links, address: &Address, there: impl FnOnce() -> Link) -> Arc<Link> {
    let mut links = links.lock();
    Arc::clone(links.entry(address.clone()).or_insert_with(|| there().into()))
}
