//! Gates on one store, each behind a way of its own, and what a test does to all of them. The store is a parameter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use support::history::At;
use support::proxy::Proxy;
use support::random::Random;
use support::redis::{PRIMARY, Redis, Replicated};
use support::{CONFIG, Gate, Place, until, with};

/// The servers of a store.
pub(super) enum Servers {
    /// One, which loses nothing when it is killed.
    Alone(Redis),
    /// A primary, and the replica that it waits for before it acknowledges.
    WithReplica { primary: Redis, _replica: Redis },
    /// The same, with two of them, and Sentinels that make one the primary.
    Sentinels(Replicated),
}

const DURABLE: [&str; 2] = ["--appendonly yes", "--appendfsync always"];

impl Servers {
    pub(super) fn alone() -> Self {
        Self::Alone(Redis::start(&DURABLE))
    }

    pub(super) async fn with_replica() -> Self {
        let primary = Redis::start(&[]);
        let replica = Redis::start(&[&format!("--replicaof 127.0.0.1 {}", primary.port)]);
        until("the replica follows", async || primary.cli(&["INFO", "replication"]).contains("state=online")).await;
        Self::WithReplica { primary, _replica: replica }
    }

    pub(super) fn sentinels() -> Self {
        Self::Sentinels(Replicated::start(&DURABLE))
    }

    /// The keys of `[store]`.
    fn keys(&self) -> String {
        match self {
            Self::Alone(server) => format!("urls = [\"redis://127.0.0.1:{}\"]\n", server.port),
            Self::WithReplica { primary, .. } => {
                format!("urls = [\"redis://127.0.0.1:{}\"]\nwait_replicas = 1\n", primary.port)
            }
            Self::Sentinels(all) => {
                let urls: Vec<_> = all.urls().iter().map(|url| format!("{url:?}")).collect();
                format!("urls = [{}]\nsentinel = \"{PRIMARY}\"\nwait_replicas = 1\n", urls.join(", "))
            }
        }
    }

    /// A way to the store for one gate alone. Sentinels name the servers themselves, so no such way leads around them.
    async fn way(&self) -> Option<Proxy> {
        match self {
            Self::Alone(server) | Self::WithReplica { primary: server, .. } => Some(Proxy::to(server.port).await),
            Self::Sentinels(_) => None,
        }
    }

    /// Kills the server that has the data, and sees that there is one again. What it had acknowledged is not lost.
    pub(super) fn lose_the_server(&mut self) {
        match self {
            Self::Alone(server) | Self::WithReplica { primary: server, .. } => {
                server.kill();
                server.start_again();
            }
            Self::Sentinels(all) => {
                // The one that was lost before may be on its way back.
                all.until("both replicas follow", || {
                    let primary = all.primary();
                    let server = all.servers.iter().find(|server| server.port == primary);
                    server
                        .is_some_and(|server| server.cli(&["INFO", "replication"]).matches("state=online").count() == 2)
                });
                let port = all.primary();
                let Some(old) = all.servers.iter().position(|server| server.port == port) else { return };
                all.servers[old].kill();
                all.until("a replica becomes the primary", || all.primary() != port);
                all.servers[old].start_again();
            }
        }
    }
}

/// A gate, or the place of one that was killed.
pub(super) struct Node {
    gate: Option<Gate>,
    pub(super) way: Option<Proxy>,
}

/// Three gates of one keyring with the same users.
pub(super) struct Fleet {
    pub(super) servers: Servers,
    place: Place,
    pub(super) nodes: Vec<Node>,
    /// Where the gates listen, for clients.
    ways_in: Arc<Mutex<Vec<At>>>,
    pub(super) password: String,
}

pub(super) const GATES: usize = 3;

/// Picks a gate for a client.
#[derive(Clone)]
pub(super) struct Entry(Arc<Mutex<Vec<At>>>);

impl Entry {
    pub(super) fn any(&self, random: &mut Random) -> At {
        self.at(usize::try_from(random.below(GATES as u64)).unwrap())
    }

    pub(super) fn at(&self, gate: usize) -> At {
        self.0.lock().unwrap()[gate]
    }
}

impl Fleet {
    /// With these keys of `[sessions]` and of `[store]`.
    pub(super) async fn start(servers: Servers, sessions: &str, store: &str) -> Self {
        let config = format!("{CONFIG}[store]\nkind = \"redis\"\n{}{store}", servers.keys());
        let place = Place::new(&with(&config, "sessions", sessions));
        let ways_in = Arc::new(Mutex::new(Vec::new()));
        let mut fleet = Self { servers, place, nodes: Vec::new(), ways_in, password: String::new() };
        for gate in 0..GATES {
            let way = fleet.servers.way().await;
            fleet.nodes.push(Node { gate: None, way });
            fleet.start_gate(gate);
        }
        fleet
    }

    fn start_gate(&mut self, number: usize) {
        let way = self.nodes[number].way.as_ref().map(|way| format!("redis://127.0.0.1:{}", way.port));
        let gate = tokio::task::block_in_place(|| {
            self.place.start_with(|command| {
                if let Some(way) = way {
                    command.env("ROTOGATE_STORE__URLS", way);
                }
            })
        });
        self.password.clone_from(&gate.password);
        let at = At { gate: number, address: gate.address };
        let mut ways_in = self.ways_in.lock().unwrap();
        match ways_in.get_mut(number) {
            Some(known) => *known = at,
            None => ways_in.push(at),
        }
        self.nodes[number].gate = Some(gate);
    }

    pub(super) fn entry(&self) -> Entry {
        Entry(Arc::clone(&self.ways_in))
    }

    pub(super) fn gate(&self, number: usize) -> &Gate {
        self.nodes[number].gate.as_ref().expect("it was not killed")
    }

    pub(super) fn way(&self, number: usize) -> &Proxy {
        self.nodes[number].way.as_ref().expect("it has a way of its own")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        self.nodes[number].gate = None;
    }

    /// SIGSTOP, or SIGCONT.
    pub(super) fn signal(&self, number: usize, name: &str) {
        if let Some(gate) = &self.nodes[number].gate {
            gate.signal(name);
        }
    }

    /// Everything is as at the beginning.
    pub(super) fn heal(&mut self) {
        for number in 0..GATES {
            if let Some(way) = &self.nodes[number].way {
                way.delay(Duration::ZERO);
                way.hold(false);
                way.go_away(false);
            }
            self.signal(number, "CONT");
            if self.nodes[number].gate.is_none() {
                self.start_gate(number);
            }
        }
    }

    /// Waits until every gate issues tokens.
    pub(super) async fn until_all_serve(&self) {
        for number in 0..GATES {
            let gate = self.gate(number);
            until("the gate serves", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK).await;
        }
    }
}
