//! Clients of three gates while gates, servers and the ways between them fail at random. Everything that the clients
//! asked and were told goes through the checker.
//!
//! `NODES_SECONDS` sets the length. `NODES_SEED` repeats the choices of a run, though not the moments at which requests
//! meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::history::{Held, Loss, Operation, Recorder, Reply, Request, Rules, judge_with_losses};
use support::random::Random;
use support::until;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::fleet::{Entry, Fleet, GATES};
use super::servers::Servers;
use super::wires::wires;

const SECONDS: u64 = 15;
/// PostgreSQL starts and recovers slowly, and the other kind of store has had its share.
const SECONDS_OF_POSTGRES: u64 = 8;
/// No history with fewer refreshes says anything.
const REFRESHES: usize = 100;
const CLIENTS: usize = 10;
/// Of them are browsers, and have API keys. A store that loses writes loses their sessions and keys, which the checker
/// does not judge.
const BROWSERS: usize = 3;
/// The clients before this number are browsers or machines.
const MACHINES: usize = BROWSERS + 2;
/// A history with fewer requests with keys says little.
const USES_OF_KEYS: usize = 30;
/// How many pairs of sessions that have ended a client keeps, to ask with them again.
const OLD: usize = 6;

/// A client with one session at a time.
struct Client {
    recorder: Arc<Recorder>,
    entry: Entry,
    random: Random,
    /// The pairs of the session, the last one at its end.
    pairs: Vec<Held>,
    /// Of sessions that have ended.
    old: Vec<Held>,
    kind: Kind,
    /// How long a client waits that has lost a response and is opened again later.
    later: Duration,
}

/// What the client presents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tokens,
    Cookie,
    Key,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Option<Held> {
        while !stop.load(Ordering::SeqCst) {
            match self.kind {
                Kind::Tokens => self.act().await,
                Kind::Cookie => self.browse().await,
                Kind::Key => self.call().await,
            }
            sleep(Duration::from_millis(self.random.below(20))).await;
        }
        self.pairs.pop().filter(|_| self.kind != Kind::Key)
    }

    /// A machine has one key, and the one before.
    async fn call(&mut self) {
        let at = self.entry.any(&mut self.random);
        let Some(last) = self.pairs.last().cloned() else {
            self.pairs.extend(self.recorder.make_key(at).await);
            return;
        };
        match self.random.below(100) {
            0..60 => {
                if self.recorder.use_key(at, &last).await == Reply::Refused {
                    self.end();
                }
            }
            60..68 => {
                let overlap = Duration::from_secs(self.random.below(3));
                let other = self.entry.any(&mut self.random);
                let (first, second) = tokio::join!(
                    self.recorder.replace_key(at, &last, overlap),
                    self.recorder.replace_key(other, &last, overlap)
                );
                if let Some(new) = first.or(second) {
                    self.old.append(&mut self.pairs);
                    self.pairs.push(new);
                }
            }
            68..74 => {
                if self.recorder.revoke_key(at, &last).await == Reply::Accepted {
                    self.recorder.use_key(self.entry.any(&mut self.random), &last).await;
                    self.end();
                }
            }
            74..78 => {
                // Another replaces it meanwhile.
                let other = self.entry.any(&mut self.random);
                tokio::join!(
                    self.recorder.revoke_key(at, &last),
                    self.recorder.replace_key(other, &last, Duration::ZERO)
                );
            }
            _ => {
                let any = self.random.below(self.old.len().max(1) as u64);
                let Some(old) = self.old.get(usize::try_from(any).unwrap()) else { return };
                self.recorder.use_key(at, old).await;
            }
        }
        if self.old.len() > OLD {
            self.old.remove(0);
        }
    }

    /// A browser has one cookie, whatever the gates make of its session.
    async fn browse(&mut self) {
        let at = self.entry.any(&mut self.random);
        let Some(last) = self.pairs.last().cloned() else {
            self.pairs.extend(self.recorder.log_in_browser(at).await);
            return;
        };
        match self.random.below(100) {
            0..60 => {
                if self.recorder.access(at, &last).await == Reply::Refused {
                    self.end();
                }
            }
            60..90 => {
                // Two tabs.
                let other = self.entry.any(&mut self.random);
                tokio::join!(self.recorder.access(at, &last), self.recorder.access(other, &last));
            }
            90..93 => {
                if self.recorder.log_out(at, &last).await == Reply::Accepted {
                    self.end();
                }
            }
            _ => {
                let any = self.random.below(self.old.len().max(1) as u64);
                let Some(old) = self.old.get(usize::try_from(any).unwrap()) else { return };
                self.recorder.access(at, old).await;
            }
        }
    }

    async fn act(&mut self) {
        let at = self.entry.any(&mut self.random);
        let Some(last) = self.pairs.last().cloned() else {
            self.pairs.extend(self.recorder.log_in(at).await);
            return;
        };
        match self.random.below(100) {
            0..24 => {
                let (issued, reply) = self.recorder.refresh(at, &last).await;
                self.take(issued, reply);
            }
            24..30 => {
                self.recorder.refresh_and_lose(at, &last).await;
                if self.random.one_in(2) {
                    sleep(self.later).await;
                }
            }
            30..45 => {
                let other = self.entry.any(&mut self.random);
                let (first, second) =
                    tokio::join!(self.recorder.refresh(at, &last), self.recorder.refresh(other, &last));
                self.take(first.0, first.1);
                self.take(second.0, second.1);
            }
            45..76 => {
                let any = self.random.below(self.pairs.len() as u64);
                self.recorder.access(at, &self.pairs[usize::try_from(any).unwrap()]).await;
            }
            76..80 => {
                self.recorder.is_confirmed(at, &last).await;
            }
            80..88 => {
                // What an application sends again.
                let Some(before) = self.pairs.iter().rev().nth(1) else { return };
                let (_, reply) = self.recorder.refresh(at, before).await;
                self.take(None, reply);
            }
            88 => {
                // A copy of an ancestor.
                let (_, reply) = self.recorder.refresh(at, &self.pairs[0]).await;
                if self.pairs.len() > 1 {
                    self.take(None, reply);
                }
            }
            89..92 => {
                if self.recorder.log_out(at, &last).await == Reply::Accepted {
                    self.end();
                }
            }
            _ => {
                let any = self.random.below(self.old.len().max(1) as u64);
                let Some(old) = self.old.get(usize::try_from(any).unwrap()) else { return };
                if self.random.one_in(3) {
                    self.recorder.refresh(at, old).await;
                } else {
                    self.recorder.access(at, old).await;
                }
            }
        }
    }

    fn take(&mut self, issued: Option<Held>, reply: Reply) {
        match issued {
            Some(issued) if self.pairs.contains(&issued) => {}
            Some(issued) => self.pairs.push(issued),
            None if reply == Reply::Refused => self.end(),
            None => {}
        }
    }

    fn end(&mut self) {
        self.old.extend(self.pairs.pop());
        self.pairs.clear();
        if self.old.len() > OLD {
            self.old.remove(0);
        }
    }
}

/// One fault at one gate, or of the servers.
fn fail(fleet: &mut Fleet, number: usize, random: &mut Random) -> &'static str {
    let has_way = fleet.nodes[number].way.is_some();
    match random.below(if has_way { 8 } else { 3 }) {
        0 => {
            fleet.kill(number);
            "killed"
        }
        1 | 2 => {
            fleet.signal(number, "STOP");
            "stopped"
        }
        3 => {
            fleet.way(number).cut_after(usize::try_from(random.below(400)).unwrap());
            "cut within a reply"
        }
        4 => {
            fleet.way(number).delay(Duration::from_millis(10 + random.below(500)));
            "delayed"
        }
        5 => {
            fleet.way(number).silence();
            "half-open"
        }
        6 => {
            fleet.way(number).hold(true);
            "held"
        }
        _ => {
            fleet.way(number).go_away(true);
            "refused"
        }
    }
}

/// What a server does that is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Keeps,
    /// It comes back without what it acknowledged last.
    Loses,
}

/// What failed.
#[derive(Default)]
struct Failed {
    faults: usize,
    losses: Vec<Loss>,
    /// When the last fault of the server was over. It may have lost uses of tokens, which nobody waits for.
    server: Duration,
}

/// Breaks and repairs until the time is over.
async fn break_and_repair(
    fleet: &mut Fleet,
    random: &mut Random,
    recorder: &Recorder,
    server: Server,
    until: Instant,
) -> Failed {
    let mut failed = Failed::default();
    while Instant::now() < until {
        sleep(Duration::from_millis(200 + random.below(800))).await;
        // The server in any case, and first.
        if failed.faults == 0 || random.one_in(6) {
            failed.faults += 1;
            if server == Server::Loses {
                failed.losses.push(lose_writes(fleet, random, recorder).await);
            } else {
                println!("the server is lost");
                tokio::task::block_in_place(|| fleet.servers.lose_the_server(random));
            }
            failed.server = recorder.now();
        } else {
            for _ in 0..=random.below(2) {
                let number = usize::try_from(random.below(GATES as u64)).unwrap();
                println!("gate {number}: {}", fail(fleet, number, random));
                failed.faults += 1;
            }
            // Mostly short, and sometimes longer than the staleness and than any request waits.
            let longest = if random.one_in(4) { 7_000 } else { 1_500 };
            sleep(Duration::from_millis(random.below(longest))).await;
        }
        fleet.heal();
    }
    failed
}

/// What the server acknowledges for a while is lost, under gates that all go on: they write back what they know.
async fn lose_writes(fleet: &mut Fleet, random: &mut Random, recorder: &Recorder) -> Loss {
    fleet.until_all_serve().await;
    let copy = fleet.servers.copy_of_disk();
    sleep(Duration::from_millis(random.below(1_000))).await;
    let at = recorder.now();
    println!("the server loses writes");
    tokio::task::block_in_place(|| fleet.servers.go_back_to(&copy));
    fleet.until_all_serve().await;
    Loss { at, restored: recorder.now() }
}

/// `grace` and `lost_response_window`, in seconds.
const WINDOWS: [(u64, u64); 4] = [(0, 0), (1, 4), (2, 86_400), (10, 86_400)];

/// What the clients of one protocol saw.
struct Protocol {
    recorder: Arc<Recorder>,
    rules: Rules,
}

impl Protocol {
    /// How many responses were lost, and the token was presented again after grace.
    fn answered_late(&self) -> usize {
        let history = self.recorder.history();
        let open = self.rules.grace + self.rules.slack;
        let is_lost = |lost: &Operation, one: &Operation| {
            lost.request == one.request && lost.reply == Reply::InDoubt && one.begin > lost.end + open
        };
        history.iter().filter(|one| one.is_refreshed() && history.iter().any(|lost| is_lost(lost, one))).count()
    }
}

fn all_operations(protocols: &[Protocol]) -> Vec<Operation> {
    protocols.iter().flat_map(|protocol| protocol.recorder.history()).collect()
}

fn start_clients(
    fleet: &Fleet,
    protocols: &[Protocol],
    server: Server,
    later: Duration,
    random: &mut Random,
    stop: &Arc<AtomicBool>,
) -> JoinSet<(usize, Option<Held>)> {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let kind = match number {
            _ if server == Server::Loses => Kind::Tokens,
            0..BROWSERS => Kind::Cookie,
            BROWSERS..MACHINES => Kind::Key,
            _ => Kind::Tokens,
        };
        let protocol = if kind == Kind::Tokens { number % protocols.len() } else { 0 };
        let client = Client {
            kind,
            later,
            recorder: Arc::clone(&protocols[protocol].recorder),
            entry: fleet.entry(),
            random: random.fork(),
            pairs: Vec::new(),
            old: Vec::new(),
        };
        let stop = Arc::clone(stop);
        clients.spawn(async move { (protocol, client.run(stop).await) });
    }
    clients
}

/// What the last answers promise. A pair whose use the store knows is not replaced.
async fn present_the_last(fleet: &Fleet, protocols: &[Protocol], last: Vec<(usize, Held)>, random: &mut Random) {
    let mut used = Vec::new();
    for (protocol, held) in last {
        let Protocol { recorder, rules } = &protocols[protocol];
        let at = fleet.entry().any(random);
        if held.is_of_browser() {
            recorder.access(at, &held).await;
            continue;
        }
        let (Some(next), _) = recorder.refresh(at, &held).await else { continue };
        if rules.lost_response_window > rules.grace && recorder.access(at, &next).await == Reply::Accepted {
            until("the use is in the store", async || recorder.is_confirmed(at, &next).await).await;
            used.push((recorder, held));
        }
    }
    if let Some((_, rules)) = used.first().map(|(recorder, _)| (recorder, protocols[0].rules)) {
        sleep(rules.grace + rules.slack).await;
    }
    for (recorder, held) in used {
        recorder.refresh(fleet.entry().any(random), &held).await;
    }
}

async fn chaos(test: &str, servers: Servers, server: Server) {
    let short = if servers.is_postgres() { SECONDS_OF_POSTGRES } else { SECONDS };
    let seconds = std::env::var("NODES_SECONDS").map_or(short, |seconds| seconds.parse().unwrap());
    let mut random = Random::new(test, "NODES_SEED");
    let (grace, window) = WINDOWS[usize::try_from(random.below(4)).unwrap()];
    // Windows on a store that loses writes are for the long run.
    let is_short = server == Server::Loses && std::env::var_os("NODES_SECONDS").is_none();
    let window = if is_short { 0 } else { window };
    println!("grace {grace} s, window {window} s");
    let sessions = format!("grace = \"{grace}s\"\nlost_response_window = \"{window}s\"\naccess_ttl = \"12h\"");
    let mut fleet = Fleet::start_with_browsers(servers, &sessions, "staleness = \"1s\"\n").await;
    let [grace, lost_response_window] = [grace, window].map(Duration::from_secs);
    let rules = Rules { grace, lost_response_window, ..Rules::STRICT };
    let recorder = Recorder::new(&fleet.password).with_operator(&fleet.operator());
    let of_wire = |(wire, rules)| Protocol { recorder: Arc::new(recorder.beside(wire)), rules };
    let protocols: Vec<_> = wires(rules).into_iter().map(of_wire).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let later = grace.min(Duration::from_secs(2)) + Duration::from_millis(1_200);
    let clients = start_clients(&fleet, &protocols, server, later, &mut random, &stop);
    let until_then = Instant::now() + Duration::from_secs(seconds);
    let Failed { faults, losses, server: known_from } =
        break_and_repair(&mut fleet, &mut random, &recorder, server, until_then).await;
    fleet.until_all_serve().await;
    let refreshes = || all_operations(&protocols).iter().filter(|one| one.is_refreshed()).count();
    let answered_late = || protocols.iter().map(Protocol::answered_late).sum::<usize>();
    let is_lasting = window > 0 && grace < later;
    until("clients refreshed often enough", async || refreshes() > REFRESHES && (!is_lasting || answered_late() > 0))
        .await;
    stop.store(true, Ordering::SeqCst);
    let last = clients.join_all().await.into_iter().filter_map(|(protocol, held)| Some((protocol, held?))).collect();
    present_the_last(&fleet, &protocols, last, &mut random).await;
    let history = all_operations(&protocols);
    let number = |is: fn(Request, Reply) -> bool| history.iter().filter(|one| is(one.request, one.reply)).count();
    let ended = number(|asked, told| matches!((asked, told), (Request::LogOut(_), Reply::Accepted)));
    let in_doubt = number(|_, told| told == Reply::InDoubt);
    let sessions = number(|asked, _| asked == Request::LogIn);
    println!(
        "{} operations in {sessions} sessions: {} refreshes, {} of them long after a lost response, {ended} logouts, {in_doubt} \
         in doubt; {faults} faults, {} losses",
        history.len(),
        refreshes(),
        answered_late(),
        losses.len()
    );
    let uses = number(|asked, told| matches!(asked, Request::UseKey(_)) && told != Reply::InDoubt);
    let of_keys = number(|asked, _| matches!(asked, Request::RevokeKey(_) | Request::ReplaceKey(..)));
    println!("{uses} requests with API keys, of which {of_keys} were replaced or revoked");
    assert!(server == Server::Loses || uses > USES_OF_KEYS && of_keys > 0, "machines called");
    assert!(in_doubt > 0, "clients and faults met");
    for (number, Protocol { recorder, rules }) in protocols.iter().enumerate() {
        let mut history = recorder.history();
        history.retain(|one| !matches!(one.request, Request::Confirmed(_)) || one.begin > known_from);
        if let Err(verdict) = judge_with_losses(&history, rules, &losses) {
            panic!("protocol {number}, session {}: {:?}\n{}", verdict.session, verdict.rule, verdict.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_what_clients_saw_while_gates_and_their_ways_to_the_store_failed_has_one_order() {
    chaos("c6_alone", Servers::redis(), Server::Keeps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_what_clients_saw_while_gates_and_their_ways_to_postgresql_failed_has_one_order() {
    chaos("c6_postgres", Servers::postgres(), Server::Keeps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_c14_what_clients_saw_while_primaries_were_killed_has_one_order() {
    chaos("c6_sentinels", Servers::sentinels(), Server::Keeps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_c14_what_clients_saw_while_standbys_of_postgresql_were_promoted_has_one_order() {
    chaos("c6_standby", Servers::postgres_with_standby(), Server::Keeps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_r29_what_clients_saw_while_the_store_lost_writes_has_one_order() {
    chaos("c6_losses", Servers::redis(), Server::Loses).await;
}
