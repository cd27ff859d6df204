//! Gates on one store, each behind a way of its own, and what a test does to all of them. The store is a parameter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use support::history::At;
use support::proxy::Proxy;
use support::random::Random;
use support::{CONFIG, Gate, Place, with};
use tokio::time::Instant;

use super::servers::Servers;
use super::wires::ENDPOINTS;

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
/// How long a gate may take to serve again.
const PATIENCE: Duration = Duration::from_secs(60);

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
        Self::start_with(servers, sessions, store, |_| {}).await
    }

    /// The same, after `files` has put files beside the configuration.
    pub(super) async fn start_with(servers: Servers, sessions: &str, store: &str, files: impl FnOnce(&Place)) -> Self {
        Self::start_on(CONFIG, servers, sessions, store, files).await
    }

    /// The same, for every protocol, API keys and browsers, too: sessions of browsers are renewed after two seconds.
    pub(super) async fn start_with_browsers(servers: Servers, sessions: &str, store: &str) -> Self {
        let route = "[[routes]]\npath = \"/{*rest}\"\n";
        let config = CONFIG.replace("http://gate.test", "https://gate.test");
        let config = config.replace(route, &format!("{route}credentials = [\"token\", \"session\", \"key\"]\n"));
        let config = with(&config, "api_keys", "prefix = \"acme\"");
        let endpoint = "[[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\n\
                        profile = { access_ttl = \"2s\", grace = \"1s\", lost_response_window = \"1s\" }\n";
        let endpoints = format!("{endpoint}{ENDPOINTS}");
        Self::start_on(&config, servers, sessions, &format!("{store}{endpoints}"), |_| {}).await
    }

    async fn start_on(config: &str, servers: Servers, sessions: &str, store: &str, files: impl FnOnce(&Place)) -> Self {
        let config = format!("{config}{}{store}", servers.section());
        let place = servers.place(&with(&config, "sessions", sessions));
        files(&place);
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
        let way = self.nodes[number].way.as_ref();
        let gate = tokio::task::block_in_place(|| {
            self.place.start_with(|command| {
                if let Some(way) = way {
                    self.servers.lead_over(way, command);
                }
            })
        });
        self.password.clone_from(&gate.password);
        let at = At { gate: number, address: gate.address, admin: gate.admin };
        let mut ways_in = self.ways_in.lock().unwrap();
        match ways_in.get_mut(number) {
            Some(known) => *known = at,
            None => ways_in.push(at),
        }
        self.nodes[number].gate = Some(gate);
    }

    /// The token for the admin listeners.
    pub(super) fn operator(&self) -> String {
        std::fs::read_to_string(self.place.path("data/admin.token")).unwrap().trim().to_owned()
    }

    pub(super) fn entry(&self) -> Entry {
        Entry(Arc::clone(&self.ways_in))
    }

    /// Runs commands that go to this gate. A gate that starts later has an admin listener of its own.
    pub(super) fn commands<T>(&self, number: usize, run: impl FnOnce(&Place) -> T) -> T {
        let config = std::fs::read_to_string(self.place.path("gateway.toml")).unwrap();
        self.place.point_commands_at(self.gate(number));
        let result = run(&self.place);
        self.place.write_config(&config);
        result
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
            let mut answer = gate.log_in("demo", &gate.password).await;
            let end = Instant::now() + PATIENCE;
            while answer.status != StatusCode::OK && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = gate.log_in("demo", &gate.password).await;
            }
            if answer.status != StatusCode::OK {
                let log = gate.log();
                let said = log.lines().filter(|line| !line.contains("event.dataset=rotogate.access"));
                let last: Vec<_> = said.rev().take(60).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                panic!("gate {number} does not serve: {answer:?}\n{}", last.join("\n"));
            }
        }
    }
}
