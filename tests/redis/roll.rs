//! The keys of three gates change, one gate after the other, while clients use all of them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;
use support::redis::Redis;
use support::{CONFIG, Gate, Place, copy_folder, key_file, until, with};

use super::keys::has;
use super::store_of;

fn kid(token: &str) -> String {
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

/// Clients whose every request goes to the next gate. No request may be refused.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(gates: &[Arc<Gate>; 3]) -> Self {
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |first: usize| {
            let (gates, stop, requests) = (gates.clone(), Arc::clone(&stop), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut tokens = gates[first % 3].login().await;
                let mut turn = first;
                while !stop.load(Ordering::SeqCst) {
                    for _ in 0..3 {
                        turn += 1;
                        let answer = gates[turn % 3].get("/hello", &tokens.access).await;
                        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    }
                    let answer = gates[turn % 3].refresh(&tokens.refresh).await;
                    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    tokens = answer.tokens();
                    turn += 1;
                    requests.fetch_add(4, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..6).map(client).collect();
        Self { stop, requests, clients }
    }

    /// Waits for some more requests.
    async fn goes_on(&self) {
        let until_then = self.requests.load(Ordering::SeqCst) + 100;
        until("requests go on", async || {
            self.requests.load(Ordering::SeqCst) > until_then || self.clients.iter().any(|client| client.is_finished())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

/// Three gates with a copy of one key folder each, and clients at all of them.
struct Site {
    server: Redis,
    places: [Place; 3],
    gates: [Arc<Gate>; 3],
    load: Load,
}

impl Site {
    async fn start() -> Self {
        let server = Redis::start(&[]);
        // A short lifetime, and a leeway because clients on a slow machine may use tokens late.
        let short = "access_ttl = \"4s\"\nmax_access_ttl = \"4s\"\ngrace = \"2s\"\nlost_response_window = \"2s\"";
        let config = with(&with(CONFIG, "issuer", "for_tests = { leeway = \"6s\" }"), "sessions", short);
        let config = format!("{config}{}", store_of(&server));
        let places = [Place::new(&config), Place::new(&config), Place::new(&config)];
        let [first, others @ ..] = &places;
        let a = first.start();
        for other in others {
            copy_folder(&first.path("data"), &other.path("data"));
            fs::copy(first.path("password"), other.path("password")).unwrap();
        }
        let [b, c] = others.each_ref().map(Place::start);
        let gates = [a, b, c].map(Arc::new);
        let load = Load::on(&gates);
        load.goes_on().await;
        Self { server, places, gates, load }
    }

    /// The error of a command at the first gate.
    fn refused(&self, command: &[&str]) -> String {
        self.places[0].fails(command, "")
    }

    /// Waits until the command is refused because of exactly these gates.
    async fn until_refused_for(&self, command: &[&str], gates: &[usize], why: &str) {
        let name = |gate: usize| format!("/{} (last report", self.gates[gate].child.id());
        let is_named = |said: &str, gate| said.contains(&name(gate)) == gates.contains(&gate);
        until(&format!("{command:?} is refused: {why}, because of {gates:?}"), async || {
            let said = self.refused(command);
            said.contains(why) && (0..3).all(|gate| is_named(&said, gate))
        })
        .await;
    }

    /// Copies the key folder of the first gate to another one.
    fn copy_to(&self, other: usize) {
        self.places[other].copy_keys_from(&self.places[0]);
    }

    async fn end(self, file: &str) {
        // All gates have the index, so now the file is copied, too.
        for place in &self.places[1..] {
            fs::remove_file(place.path("data/keys").join(file)).unwrap();
        }
        assert!(!self.places[0].path("data/keys").join(file).exists());
        self.load.goes_on().await;
        self.load.end().await;
        for gate in &self.gates {
            assert!(!gate.log().contains("cannot be used"), "{}", gate.log());
        }
        drop(self.server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c28_a_key_is_rolled_over_three_gates_under_load_and_no_request_is_refused() {
    let site = Site::start().await;
    let first = &site.places[0];
    let old = kid(&site.gates[0].login().await.access);
    let added = first.json(&["keys", "add"], "");
    let next = added["kid"].as_str().unwrap().to_owned();
    let (promote, retire) = (["keys", "promote", &next], ["keys", "retire", &old]);
    site.until_refused_for(&promote, &[1, 2], "cannot verify").await;
    site.load.goes_on().await;
    site.copy_to(1);
    site.until_refused_for(&promote, &[2], "cannot verify").await;
    site.load.goes_on().await;
    site.copy_to(2);
    site.until_refused_for(&promote, &[], "published before").await;
    assert!(site.refused(&retire).contains("is in use"), "{}", site.refused(&retire));
    // Other verifiers may keep the JWK set for minutes; this test has no other verifier.
    first.done(&["keys", "promote", &next, "--force"], "");
    site.until_refused_for(&retire, &[1, 2], "sign with it").await;
    site.load.goes_on().await;
    site.copy_to(1);
    site.until_refused_for(&retire, &[2], "sign with it").await;
    site.load.goes_on().await;
    let last = site.gates[2].login().await.access;
    assert_eq!(kid(&last), old);
    site.copy_to(2);
    site.until_refused_for(&retire, &[], "may be in use").await;
    for gate in &site.gates {
        until("it signs", async || kid(&gate.login().await.access) == next).await;
    }
    until("nothing needs the key", async || first.run(&retire, "").code == Some(0)).await;
    // The other gates still have the key.
    assert!(has(&site.gates[2], &old).await);
    assert_eq!(site.gates[2].get("/hello", &last).await.status, StatusCode::UNAUTHORIZED, "the last token has expired");
    for (n, gate) in site.gates.iter().enumerate() {
        if n > 0 {
            site.load.goes_on().await;
            site.copy_to(n);
        }
        until("the key is gone", async || !has(gate, &old).await).await;
    }
    site.end(&key_file(&old)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c28_a_refresh_secret_is_rolled_over_three_gates_under_load_and_no_request_is_refused() {
    let site = Site::start().await;
    let first = &site.places[0];
    let added = first.json(&["keys", "add", "--refresh"], "");
    assert_eq!(added["kid"], "refresh-2");
    let (promote, retire) = (["keys", "promote", "refresh-2"], ["keys", "retire", "refresh-1"]);
    site.until_refused_for(&promote, &[1, 2], "cannot verify").await;
    site.load.goes_on().await;
    site.copy_to(1);
    site.until_refused_for(&promote, &[2], "cannot verify").await;
    site.load.goes_on().await;
    site.copy_to(2);
    until("all gates know it", async || first.run(&promote, "").code == Some(0)).await;
    site.until_refused_for(&retire, &[1, 2], "create refresh tokens with it").await;
    site.load.goes_on().await;
    site.copy_to(1);
    site.until_refused_for(&retire, &[2], "create refresh tokens with it").await;
    site.load.goes_on().await;
    let idle = site.gates[2].login().await;
    site.copy_to(2);
    site.until_refused_for(&retire, &[], "the refresh token or cookie of 1 session was created with it").await;
    let refreshed = site.gates[1].refresh(&idle.refresh).await.tokens();
    site.until_refused_for(&retire, &[], "clients may present refresh tokens").await;
    until("nothing needs the secret", async || first.run(&retire, "").code == Some(0)).await;
    for other in [1, 2] {
        site.load.goes_on().await;
        site.copy_to(other);
        until("the secret is gone", async || site.gates[other].log().matches("own keys reloaded").count() == 3).await;
    }
    assert_eq!(site.gates[2].refresh(&refreshed.refresh).await.status, StatusCode::OK);
    site.end("refresh-1.secret").await;
}
