//! Gates move from store to store while clients use them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use support::pki::write_private;
use support::postgres::Postgres;
use support::redis::Redis;
use support::server::free_port;
use support::{Answer, CONFIG, Gate, Place, Tokens, keep_secret, try_send, until, with};
use tokio::time::Instant;

const PASSWORD: &str = "gate-moving-password";
/// How long a request may go unanswered: a gate is killed, and started again, meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The settings of a store, under a heading.
fn section(heading: &str, keys: &str) -> String {
    format!("[{heading}]\n{keys}\n")
}

fn config(address: SocketAddr, admin: SocketAddr, store: &str, next: Option<&str>) -> String {
    let config = with(CONFIG, "server", &format!("listen = \"{address}\""));
    let config = with(&config, "admin", &format!("listen = \"{admin}\""));
    let next = next.map(|next| section("store.next", next)).unwrap_or_default();
    format!("{config}{}{next}", section("store", store))
}

/// Where clients find gates, and what they have seen.
struct Site {
    gates: Mutex<Vec<SocketAddr>>,
    password: String,
    stop: AtomicBool,
    asked: AtomicUsize,
    /// The longest time without an answer that decides, of any request, since it was last taken.
    waited: Mutex<Duration>,
    ended: Mutex<Vec<Tokens>>,
}

impl Site {
    /// Asks any gate until one decides.
    async fn ask(&self, turn: usize, path: &str, fields: &[(&str, &str)], access: Option<&str>) -> Answer {
        let begun = Instant::now();
        for attempt in turn.. {
            let gates = self.gates.lock().unwrap().clone();
            let url = format!("http://{}{path}", gates[attempt % gates.len()]);
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let request = match access {
                Some(token) => Request::get(url).header("authorization", format!("Bearer {token}")),
                None => Request::post(url).header("content-type", "application/x-www-form-urlencoded"),
            };
            let sent = tokio::time::timeout(Duration::from_secs(5), try_send(request.body(Full::from(body)).unwrap()));
            if let Ok(Ok(answer)) = sent.await
                && !answer.is_fault()
            {
                let mut waited = self.waited.lock().unwrap();
                *waited = waited.max(begun.elapsed());
                self.asked.fetch_add(1, Ordering::SeqCst);
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} was not decided");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!()
    }

    async fn login(&self, turn: usize) -> Tokens {
        let fields =
            [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", &*self.password)];
        let answer = self.ask(turn, "/connect/token", &fields, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.tokens()
    }

    async fn refresh(&self, turn: usize, token: &str) -> Answer {
        let fields = [("client_id", "web"), ("grant_type", "refresh_token"), ("refresh_token", token)];
        self.ask(turn, "/connect/token", &fields, None).await
    }

    /// A client that logs in, calls, refreshes, and revokes each tenth session. Returns the tokens of its last one.
    async fn client(self: Arc<Self>, number: usize) -> Tokens {
        let mut tokens = self.login(number).await;
        for turn in number.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let answer = self.refresh(turn, &tokens.refresh).await;
            assert_eq!(answer.status, StatusCode::OK, "a login is lost: {answer:?}");
            tokens = answer.tokens();
            let answer = self.ask(turn, "/hello", &[], Some(&tokens.access)).await;
            assert_eq!(answer.status, StatusCode::OK, "a new token is refused: {answer:?}");
            if turn % 10 == 9 {
                let fields = [("client_id", "web"), ("token", &*tokens.refresh)];
                assert_eq!(self.ask(turn, "/connect/revocation", &fields, None).await.status, StatusCode::OK);
                self.has_ended(turn, &tokens).await;
                self.ended.lock().unwrap().push(tokens);
                tokens = self.login(turn).await;
            }
        }
        tokens
    }

    /// A session that was revoked has no second life, at any gate.
    async fn has_ended(&self, turn: usize, tokens: &Tokens) {
        let answer = self.refresh(turn, &tokens.refresh).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "a revocation is lost: {answer:?}");
    }

    async fn goes_on(&self) {
        let then = self.asked.load(Ordering::SeqCst) + 150;
        until("requests go on", async || self.asked.load(Ordering::SeqCst) > then).await;
    }

    /// All that was ever revoked is revoked still.
    async fn nothing_came_back(&self) {
        let ended = self.ended.lock().unwrap().clone();
        for (turn, tokens) in ended.iter().enumerate() {
            self.has_ended(turn, tokens).await;
        }
        let gates = self.gates.lock().unwrap().len();
        for (tokens, gate) in ended.iter().rev().take(20).flat_map(|tokens| (0..gates).map(move |gate| (tokens, gate)))
        {
            until("the access token is refused", async || {
                self.ask(gate, "/hello", &[], Some(&tokens.access)).await.status == StatusCode::UNAUTHORIZED
            })
            .await;
        }
    }
}

async fn is_in_charge(gate: &Gate, times: usize) {
    let serves = |line: &&str| line.contains("listening=");
    until("the gate has started on the next store", async || {
        gate.log().lines().filter(serves).count() > times && gate.admin_get("/readyz").await.status == StatusCode::OK
    })
    .await;
}

/// How often the process has begun to serve.
fn starts(gate: &Gate) -> usize {
    gate.log().lines().filter(|line| line.contains("listening=")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c31_gates_move_from_redb_to_redis_to_postgresql_to_redb_under_load() {
    let (redis, postgres) = (Redis::start(&[]), Postgres::start(&[]));
    keep_secret(PASSWORD);
    postgres.sql(&format!("create role gate login password '{PASSWORD}'; grant create on database postgres to gate"));
    let first = "path = \"data/first.redb\"".to_owned();
    let second = format!("kind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]", redis.port);
    let third = format!(
        "kind = \"postgres\"\nurl = \"postgres://gate@127.0.0.1:{}/postgres\"\npassword_file = \"store.pw\"",
        postgres.port
    );
    let last = "path = \"data/last.redb\"".to_owned();
    let [address, admin] = [free_address(), free_address()];
    let place = Place::new(&config(address, admin, &first, Some(&second)));
    write_private(&place.path("store.pw"), PASSWORD);
    let mut gate = place.start();
    let site = Arc::new(Site {
        gates: Mutex::new(vec![gate.address]),
        password: gate.password.clone(),
        stop: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        waited: Mutex::default(),
        ended: Mutex::default(),
    });
    let clients: Vec<_> = (0..6).map(|number| tokio::spawn(Arc::clone(&site).client(number))).collect();
    site.goes_on().await;

    // redb to Redis. The first copy hangs, because Redis stands still, and is cut short with the gate.
    redis.signal("STOP");
    let mut hangs = place.command();
    let mut hangs =
        hangs.args(["store", "copy", "--live"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    site.goes_on().await;
    gate.kill();
    assert!(!hangs.wait().unwrap().success());
    redis.signal("CONT");
    gate = place.start();
    site.goes_on().await;
    let copied = place.json(&["store", "copy", "--live"], "");
    assert!(copied["sessions"].as_u64() >= Some(6), "{copied}");
    site.goes_on().await;
    switch(&place, &site, &[&gate], "redb to Redis").await;
    assert!(place.fails(&["store", "switch"], "").contains("no [store.next]"));
    let alone = Place::new("");
    alone.copy_data_from(&place);
    alone.write_config(&config(free_address(), free_address(), &first, None));
    let refused = alone.refused();
    assert!(refused.contains("was moved to redis"), "{refused}");

    // Redis to PostgreSQL, with two gates.
    let other_place = Place::new("");
    other_place.copy_data_from(&place);
    write_private(&other_place.path("store.pw"), PASSWORD);
    let [other_address, other_admin] = [free_address(), free_address()];
    other_place.write_config(&config(other_address, other_admin, &second, None));
    let other = other_place.start();
    site.gates.lock().unwrap().push(other.address);
    site.goes_on().await;
    place.write_config(&config(address, admin, &second, Some(&third)));
    start_again_in_place(&gate).await;
    let refused = place.fails(&["store", "copy", "--live"], "");
    assert!(refused.contains("do not write to"), "{refused}");
    other_place.write_config(&config(other_address, other_admin, &second, Some(&third)));
    start_again_in_place(&other).await;
    until("both gates write to it", async || place.run(&["store", "copy", "--live"], "").code == Some(0)).await;
    site.goes_on().await;
    switch(&place, &site, &[&gate, &other], "Redis to PostgreSQL").await;

    // PostgreSQL to redb, for one gate.
    site.gates.lock().unwrap().truncate(1);
    assert_eq!(other.stop(), Some(0));
    place.write_config(&config(address, admin, &third, Some(&last)));
    start_again_in_place(&gate).await;
    until("the other gate is forgotten", async || place.run(&["store", "copy", "--live"], "").code == Some(0)).await;
    switch(&place, &site, &[&gate], "PostgreSQL to redb").await;
    place.write_config(&config(address, admin, &last, None));
    start_again_in_place(&gate).await;
    site.goes_on().await;
    site.nothing_came_back().await;
    site.stop.store(true, Ordering::SeqCst);
    for client in clients {
        let tokens = client.await.unwrap();
        assert_eq!(site.refresh(0, &tokens.refresh).await.status, StatusCode::OK);
    }
    assert!(site.ended.lock().unwrap().len() > 5);
    assert!(place.path("data/last.redb").exists() && !place.path("data/last.redb.copying").exists());
}

async fn start_again_in_place(gate: &Gate) {
    let before = starts(gate);
    gate.signal("USR2");
    is_in_charge(gate, before).await;
}

async fn switch(place: &Place, site: &Site, gates: &[&Gate], what: &str) {
    let before: Vec<_> = gates.iter().map(|gate| starts(gate)).collect();
    *site.waited.lock().unwrap() = Duration::ZERO;
    let switched = place.json(&["store", "switch"], "");
    assert_eq!(switched["ahead"], 0, "{switched}");
    for (gate, before) in gates.iter().zip(before) {
        is_in_charge(gate, before).await;
    }
    site.goes_on().await;
    println!(
        "figure: {what}: {} sessions, {} ms from the fence to the next store; the longest request took {} ms",
        switched["sessions"],
        switched["closed_ms"],
        site.waited.lock().unwrap().as_millis()
    );
    site.nothing_came_back().await;
}
