//! Sends requests by partition, to a single server or to the cluster primary with the partition's slot.
//!
//! The library's cluster client retries by its own rules, so this module keeps its own table of slots. After each
//! fault, the gate requests the table again. A `MOVED` reply also corrects the table. While a slot is moved, only the
//! command that got an `ASK` is redirected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::connect::{Link, MAX_IN_FLIGHT, Request};
use super::fault::{RedisFailure, after_all};
use super::options::{Address, RedisOptions};
use super::script::unexpected;
use super::topology::{Links, Topology, link_to};
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::network::{not_done, pause_after};

/// How long a request waits for a reply before it renews the table. Excludes the blocking time of a blocking command.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// The number of `MOVED` replies that a request follows without a pause. Two servers may redirect to each other.
const MAX_HOPS: u32 = 3;

impl Address {
    /// Parses the address of a `MOVED` or `ASK` error. An empty host means the server that sent the error.
    fn parse(text: &str, said_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { said_by.host.as_str() } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

#[derive(Clone, Debug)]
pub(super) enum Elsewhere {
    /// The redirection applies to all further requests.
    Moved(String),
    /// The redirection applies only to this command, because the slot is being moved.
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

    /// Makes more connections to the same servers, without lanes. `blocks` is the maximum time that a command blocks.
    pub(super) fn another(&self, blocks: Duration) -> Self {
        match self {
            Self::One(link) => Self::One(link.another(blocks).into()),
            Self::Cluster(cluster) => Self::Cluster(Cluster::new(&cluster.topology, blocks, 0)),
        }
    }

    pub(super) fn link_of(&self, partition: usize) -> Result<Arc<Link>, StoreError> {
        match self {
            Self::One(link) => Ok(Arc::clone(link)),
            Self::Cluster(cluster) => cluster.link_of(partition).map(|(_, link)| link),
        }
    }

    pub(super) fn each(&self, options: &RedisOptions) -> Vec<(usize, RedisOptions, Arc<Link>)> {
        match self {
            Self::One(link) => vec![(0, options.clone(), Arc::clone(link))],
            Self::Cluster(cluster) => cluster.each_primary(),
        }
    }

    pub(super) fn one_of_each(&self) -> Vec<usize> {
        match self {
            Self::One(_) => vec![0],
            Self::Cluster(cluster) => cluster.topology.table().one_of_each(),
        }
    }
}

pub(super) struct Cluster {
    pub(super) topology: Arc<Topology>,
    blocks: Duration,
    lanes: usize,
    links: Links,
    in_flight: Semaphore,
}

impl Cluster {
    pub(super) fn new(topology: &Arc<Topology>, blocks: Duration, lanes: usize) -> Self {
        let (topology, in_flight) = (Arc::clone(topology), Semaphore::new(MAX_IN_FLIGHT));
        Self { topology, blocks, lanes, links: Links::default(), in_flight }
    }

    pub(super) fn primaries(&self) -> (u64, Vec<Arc<Link>>) {
        let table = self.topology.table();
        let one_of_each = table.one_of_each().into_iter();
        let links = one_of_each.filter_map(|at| Some(self.link(table.primaries.get(at)?))).collect();
        (table.number, links)
    }

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

    /// Sends a request, with retries until the operation's deadline.
    async fn ask(&self, partition: usize, request: &Request) -> Result<Value, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_done(format!("{MAX_IN_FLIGHT} requests to Redis are already waiting for replies")));
        };
        let deadline = Instant::now() + self.topology.options.network.operation_timeout;
        let (sent, mut failures, mut last, mut hops) = (AtomicBool::new(false), 0, None, 0);
        loop {
            let (address, link) = self.link_of(partition)?;
            let attempt = async {
                tokio::select! {
                    done = self.follow(&address, &link, request, &sent) => done,
                    () = self.topology.left(partition, &address, self.blocks + ASK_AFTER) => {
                        Err(RedisFailure::in_doubt("the partition has moved to another Redis server"))
                    }
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
            let wait = pause_after(failures);
            if !failed.again || Instant::now() + wait >= deadline {
                return Err(after_all(failed, sent.load(Ordering::Relaxed)));
            }
            last = Some(failed);
            // After any failure, the partition may be on another server.
            let _ = timeout_at(deadline, self.topology.renew(Some(&address))).await;
            self.forget_others();
            tokio::time::sleep(wait).await;
            failures += 1;
        }
    }

    fn forget_others(&self) {
        let table = self.topology.table();
        let mut links = self.links.lock();
        links.retain(|address, _| table.primaries.contains(address));
    }

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
                // While a slot is moved, each key may be on either server.
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
