//! The cluster's table: the primary of each partition.

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

const BETWEEN: Duration = Duration::from_millis(100);

impl Address {
    /// Reads an address from `CLUSTER SLOTS`, in which the host may be unknown.
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

pub(super) struct Topology {
    pub(super) options: Arc<RedisOptions>,
    seeds: Vec<Address>,
    slots: Vec<i64>,
    table: watch::Sender<Arc<ClusterTable>>,
    links: Links,
    /// The shared state of the connections to each server. Connections with blocking commands have separate entries.
    servers: Lock<HashMap<(Address, bool), Arc<Servers>>>,
    renewal: Lock<Renewal>,
    /// Wakes the waiting callers after each query of the cluster's table.
    renewed: watch::Sender<()>,
}

#[derive(Default)]
struct Renewal {
    runs: bool,
    /// When the last request ended.
    ended: Option<Instant>,
}

/// One task at a time may request the table. Dropping this value wakes the callers, even after a panic.
struct RenewalTurn(Arc<Topology>);

impl Drop for RenewalTurn {
    fn drop(&mut self) {
        let mut renewal = self.0.renewal.lock();
        *renewal = Renewal { runs: false, ended: Some(Instant::now()) };
        self.0.renewed.send_replace(());
    }
}

impl Topology {
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

    /// Requests the table. One task does the work for all waiting callers, so that no caller blocks the others. The
    /// failed server `not` is queried only if no other server is known.
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
        // Waiting cannot fail, because `self` owns the sender.
        let _ = renewed.changed().await;
    }

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

    /// Reads `CLUSTER SLOTS`. `None` if a partition has no primary, or the reply is malformed.
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

    /// Waits until another server has the partition. Requests the table repeatedly, because a failed server does not
    /// report the move.
    pub(super) async fn left(self: &Arc<Self>, partition: usize, address: &Address, every: Duration) {
        let mut table = self.table.subscribe();
        while timeout(every, table.wait_for(|table| table.primaries.get(partition) != Some(address))).await.is_err() {
            self.renew(Some(address)).await;
        }
    }
}

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
