//! Exchange towards upstreams, against the real binary and a provider that grants, refuses, lies and is slow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::client_assertions::reload;
use super::issuer::{Issuer, claims};
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, keep_secret, until};

const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A token endpoint.
#[derive(Clone)]
struct Provider {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    status: u16,
    answer: String,
    /// Whether it keeps those that ask waiting.
    is_held: bool,
    asked: Vec<(String, String)>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        provider.grants(&json!({}));
        let served = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, address) = (Arc::clone(&served.state), served.address);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    let (mut head, mut length) = (String::new(), 0);
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                        head += &line;
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let (lock, changed) = &*state;
                    let mut state = lock.lock().unwrap();
                    state.asked.push((head, String::from_utf8(body).unwrap()));
                    changed.notify_all();
                    let state = changed.wait_while(state, |state| state.is_held).unwrap();
                    let (status, answer) = (state.status, state.answer.clone());
                    drop(state);
                    let _ = write!(
                        &stream,
                        "HTTP/1.1 {status} Any\r\nContent-Length: {}\r\nConnection: close\r\nLocation: \
                         http://{address}/elsewhere\r\n\r\n{answer}",
                        answer.len()
                    );
                });
            }
        });
        provider
    }

    fn answers(&self, status: u16, answer: &str) {
        let mut state = self.state.0.lock().unwrap();
        (state.status, state.answer) = (status, answer.to_owned());
    }

    fn grants(&self, changes: &Value) {
        let token = format!("exchanged-{}", uuid::Uuid::new_v4());
        keep_secret(&token);
        let mut answer = json!({
            "access_token": token, "token_type": "Bearer", "issued_token_type": ACCESS, "expires_in": 300,
            "refresh_token": "never read",
        });
        answer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.answers(200, &answer.to_string());
    }

    fn token(&self) -> String {
        let answer: Value = serde_json::from_str(&self.state.0.lock().unwrap().answer).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn hold(&self, is_held: bool) {
        self.state.0.lock().unwrap().is_held = is_held;
        self.state.1.notify_all();
    }

    fn asked(&self) -> usize {
        self.state.0.lock().unwrap().asked.len()
    }

    fn last(&self) -> (String, String) {
        self.state.0.lock().unwrap().asked.last().unwrap().clone()
    }
}

struct World {
    edge: Edge,
    kc: Issuer,
    provider: Provider,
}

const CONFIG: &str = r#"
[[issuers]]
name = "kc"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "kc.json"
backchannel_logout = { path = "/logout/kc", audience = ["our-client"] }
[[providers]]
name = "kc"
issuer = "kc"
token_url = "http://@provider@/token"
client = { id = "gate", secret_file = "gate.secret" }
for_tests.timeout = "10s"
[[upstreams]]
name = "graph"
urls = ["http://@upstream@"]
exchange = { provider = "kc", audience = "graph", scope = ["g.read", "g.list"] }
[[upstreams]]
name = "entra"
urls = ["http://@upstream@"]
exchange = { provider = "kc", form = "entra", scope = ["https://graph.microsoft.com/User.Read"] }
[[providers]]
name = "slow"
issuer = "kc"
token_url = "http://@provider@/token"
client = { id = "gate", secret_file = "gate.secret" }
for_tests.timeout = "100ms"
[[providers]]
name = "away"
issuer = "kc"
token_url = "http://127.0.0.1:1/token"
client = { id = "gate", secret_file = "gate.secret" }
[[upstreams]]
name = "slow"
urls = ["http://@upstream@"]
exchange = { provider = "slow", resource = "https://graph.test/v1" }
[[upstreams]]
name = "away"
urls = ["http://@upstream@"]
exchange = { provider = "away", audience = "graph" }
[[routes]]
path = "/slow/{*rest}"
issuers = ["kc"]
upstream = "slow"
[[routes]]
path = "/away/{*rest}"
issuers = ["kc"]
upstream = "away"
[[routes]]
path = "/graph/{*rest}"
issuers = ["kc"]
upstream = "graph"
cookie = "token"
[[routes]]
path = "/entra/{*rest}"
issuers = ["kc"]
upstream = "entra"
[[routes]]
path = "/{*rest}"
issuers = ["self", "kc"]
upstream = "app"
"#;

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

fn world() -> World {
    let (kc, provider) = (Issuer::new(31), Provider::start());
    let config = format!("{HEAD}{CONFIG}").replace("@provider@", &provider.address.to_string());
    let set = json!({ "keys": [kc.jwk("k1")] }).to_string();
    keep_secret("the gate's secret at the provider");
    let files = |place: &Place| {
        std::fs::write(place.path("kc.json"), set).unwrap();
        let path = place.path("gate.secret");
        std::fs::write(&path, "the gate's secret at the provider").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    World { edge: Edge::with(&config, files, |_| {}), kc, provider }
}

impl World {
    fn token(&self, changes: &Value) -> String {
        let mut all = json!({ "iat": now() - 10, "sid": "s-1" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = self.kc.token(&all);
        keep_secret(&token);
        token
    }

    fn ask(&self, token: &str, path: &str) -> Reply {
        self.edge.ask_as(token, &format!("GET {path}"), &[])
    }
}

#[test]
fn d11_the_upstream_gets_the_exchanged_token_and_never_the_callers() {
    let world = world();
    let token = world.token(&json!({}));
    let cookie = format!("Cookie: token={token}; other=1");
    for headers in [vec![format!("Authorization: Bearer {token}")], vec![cookie]] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        assert_eq!(world.edge.ask("GET /graph/x", &headers).status, 200);
        let received = world.edge.stub.one();
        assert_eq!(received.all("authorization"), [format!("Bearer {}", world.provider.token())]);
        assert!(!format!("{received:?}").contains(&token), "{received:?}");
        assert_eq!(received.all("x-auth-subject"), ["user-1"]);
    }
    let (head, body) = world.provider.last();
    assert!(head.starts_with("POST /token ") && head.to_ascii_lowercase().contains("authorization: basic "), "{head}");
    let pairs: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", token.as_str()),
        ("subject_token_type", ACCESS),
        ("requested_token_type", ACCESS),
        ("audience", "graph"),
        ("scope", "g.read g.list"),
    ];
    assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(world.provider.asked(), 1);
    // Without a good caller the provider is not asked; a token of this gate is not the provider's.
    for (token, status) in [(world.token(&json!({ "exp": now() - 100 })), 401), (world.edge.login().access, 401)] {
        assert_eq!(world.ask(&token, "/graph/x").status, status);
    }
    assert_eq!((world.provider.asked(), world.edge.stub.take().len()), (1, 0));
    assert!(!world.edge.gate.log().contains(&world.provider.token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn d24_the_gate_proves_its_key_to_the_provider_by_a_new_assertion_each_time() {
    let world = world();
    let key = Issuer::new(35);
    support::pki::write_private(&world.edge.place.path("gate.pem"), &key.private_pem());
    let config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    let by_key = "key_file = \"gate.pem\", assertion_audience = \"https://idp.test/\"";
    world.edge.place.write_config(&config.replace("secret_file = \"gate.secret\"", by_key));
    reload(&world.edge, 1).await;
    let mut ids = std::collections::BTreeSet::new();
    for (path, answer) in [("/graph/x", json!({})), ("/entra/x", json!({ "issued_token_type": null }))] {
        world.provider.grants(&answer);
        assert_eq!(world.ask(&world.token(&json!({ "scp": "access_as_user" })), path).status, 200, "{path}");
        let (head, body) = world.provider.last();
        let field = |name: &str| {
            let all: Vec<_> = form_urlencoded::parse(body.as_bytes()).filter(|(key, _)| key == name).collect();
            assert!(all.len() < 2, "{name} twice");
            all.first().map(|(_, value)| value.to_string())
        };
        assert!(!head.to_ascii_lowercase().contains("authorization:") && field("client_secret").is_none(), "{head}");
        assert_eq!(field("client_assertion_type").unwrap(), super::client_assertions::KIND);
        let said = key.proved(&field("client_assertion").unwrap(), "gate", "https://idp.test/");
        ids.insert(said["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 2);
}

#[test]
fn d12_what_the_provider_says_and_what_the_caller_gets() {
    let world = world();
    let refused = |number: u64, status: u16, answer: &str, wanted: (u16, &str)| {
        world.provider.answers(status, answer);
        let token = world.token(&json!({ "sub": format!("user-{number}"), "sid": format!("s-{number}") }));
        let reply = world.ask(&token, "/graph/x");
        assert_eq!(reply.status, wanted.0, "{answer}: {reply:?}");
        assert_eq!(world.edge.stub.take().len(), 0, "{answer}");
        let log = world.edge.gate.log();
        assert!(log.contains(&format!("rotogate.outcome={}", wanted.1)), "{answer}: {}", wanted.1);
        (token, reply)
    };
    let said = |error: &str| json!({ "error": error }).to_string();
    // A refusal is kept: the same token asks once.
    let before = world.provider.asked();
    let (token, _) = refused(1, 400, &said("invalid_grant"), (403, "exchange_refused"));
    assert_eq!(world.ask(&token, "/graph/x").status, 403);
    assert_eq!(world.provider.asked(), before + 1);
    refused(2, 403, &said("access_denied"), (403, "exchange_refused"));
    let claims = json!({ "error": "interaction_required", "claims": "{\"x\":1}" }).to_string();
    let (_, reply) = refused(3, 400, &claims, (401, "exchange_claims"));
    assert_eq!(reply.all("www-authenticate"), ["Bearer error=\"insufficient_claims\", claims=\"eyJ4IjoxfQ==\""]);
    for (number, (status, answer)) in [
        (429, String::new()),
        (500, "oops".to_owned()),
        (200, "no JSON".to_owned()),
        (
            200,
            json!({ "access_token": "t", "token_type": "Bearer", "issued_token_type": ACCESS, "scope": "admin" })
                .to_string(),
        ),
    ]
    .iter()
    .enumerate()
    {
        let (_, reply) = refused(10 + number as u64, *status, answer, (503, "exchange_unavailable"));
        assert_eq!(reply.all("retry-after").len(), 1);
    }
    // What may depend on the token stops no other token.
    refused(15, 400, &said("invalid_target"), (503, "exchange_unavailable"));
    refused(16, 400, &said("invalid_request"), (403, "exchange_refused"));
    assert!(world.edge.gate.log().contains("the provider does not grant"));
    world.provider.grants(&json!({}));
    assert_eq!(world.ask(&world.token(&json!({ "sub": "user-17", "sid": "s-17" })), "/graph/x").status, 200);
    world.edge.stub.take();
    // The gate itself is refused: an ERROR, and one try a second.
    let before = world.provider.asked();
    refused(20, 401, &said("invalid_client"), (503, "exchange_unavailable"));
    refused(21, 401, &said("invalid_client"), (503, "exchange_unavailable"));
    assert_eq!(world.provider.asked(), before + 1);
    assert!(world.edge.gate.log().contains("the provider refuses the gate"));
    let metrics = world.edge.metrics();
    assert!(metrics.contains("rotogate_exchanges_total{provider=\"kc\",result=\"refused\"} 3"), "{metrics}");
}

#[test]
fn d12_a_provider_that_is_slow_or_away_or_redirects_gives_no_token() {
    let world = world();
    let token = world.token(&json!({}));
    world.provider.hold(true);
    assert_eq!(world.ask(&token, "/slow/x").status, 503);
    world.provider.hold(false);
    assert_eq!(world.provider.asked(), 1);
    // The resource takes the place of an audience.
    let body = world.provider.last().1;
    assert!(body.contains("&resource=https%3A%2F%2Fgraph.test%2Fv1") && !body.contains("audience"), "{body}");
    assert_eq!(world.ask(&token, "/away/x").status, 503);
    for (number, status) in [302, 307, 308].into_iter().enumerate() {
        world.provider.answers(status, "");
        assert_eq!(world.ask(&token, "/graph/x").status, 503, "{status}");
        assert_eq!(world.provider.asked(), number + 2, "{status} is not followed");
    }
    assert_eq!(world.edge.stub.take().len(), 0);
    world.provider.grants(&json!({}));
    assert_eq!(world.ask(&token, "/graph/x").status, 200);
}

#[test]
fn d12_explain_says_that_the_provider_was_not_asked() {
    let world = world();
    world.edge.place.point_commands_at(&world.edge.gate);
    let token = world.token(&json!({}));
    for (path, is_exchanged) in [("/graph/x", true), ("/x", false)] {
        let ran = world.edge.place.run(&["explain", "--path", path], &token);
        assert_eq!((ran.code, world.provider.asked()), (Some(0), 0), "{ran:?}");
        assert_eq!(ran.stdout.contains("\nNot judged: The provider"), is_exchanged, "{}", ran.stdout);
    }
}

#[test]
fn d12_a_401_of_the_upstream_is_a_502_and_its_token_is_forgotten() {
    let world = world();
    let token = world.token(&json!({}));
    let reply = world.ask(&token, "/graph/status-401");
    assert_eq!((reply.status, reply.all("www-authenticate").len()), (502, 0), "{reply:?}");
    assert!(reply.text().contains("upstream_unauthorized") && world.edge.gate.log().contains("upstream_unauthorized"));
    assert_eq!(world.ask(&token, "/graph/x").status, 200);
    assert_eq!(world.provider.asked(), 2, "it was asked for anew");
    assert_eq!(world.ask(&token, "/status-401").status, 401, "other upstreams say what they say");
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_requests_of_one_token_ask_once_and_a_slow_provider_holds_up_nobody_else() {
    let world = world();
    world.provider.hold(true);
    let (token, other) = (world.token(&json!({})), world.token(&json!({ "sub": "user-2", "sid": "s-2" })));
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let mut wire = world.edge.wire();
            wire.head("GET /graph/x", &["Host: gate.test", &format!("Authorization: Bearer {token}")]);
            wire
        })
        .collect();
    until("the provider is asked", async || world.provider.asked() == 1).await;
    // Requests elsewhere pass, of the same caller and of others.
    for token in [&token, &other] {
        assert_eq!(world.ask(token, "/x").status, 200);
    }
    // A client that leaves cancels nothing.
    let mut waiting = waiting;
    drop(waiting.pop());
    world.provider.hold(false);
    for mut wire in waiting {
        assert_eq!(wire.reply().status, 200);
    }
    assert_eq!(world.ask(&token, "/graph/x").status, 200);
    assert_eq!(world.provider.asked(), 1);
    // Fresh tokens of one caller: half of the places are for anyone.
    world.provider.hold(true);
    let fresh = |n: usize| world.token(&json!({ "jti": format!("fresh-{n}") }));
    let mut waiting = Vec::new();
    for n in 0..128 {
        let mut wire = world.edge.wire();
        wire.head("GET /graph/x", &["Host: gate.test", &format!("Authorization: Bearer {}", fresh(n))]);
        waiting.push(wire);
    }
    until("they are asked for", async || world.provider.asked() == 129).await;
    assert_eq!((world.ask(&fresh(128), "/graph/x").status, world.provider.asked()), (503, 129));
    assert_eq!(world.ask(&other, "/x").status, 200);
    let mut wire = world.edge.wire();
    wire.head("GET /graph/x", &["Host: gate.test", &format!("Authorization: Bearer {other}")]);
    until("another caller is asked for", async || world.provider.asked() == 130).await;
    // Clients that leave free no place: the provider is still asked.
    drop(waiting.drain(..64));
    assert_eq!((world.ask(&fresh(128), "/graph/x").status, world.provider.asked()), (503, 130));
    world.provider.hold(false);
    for mut wire in waiting.into_iter().chain([wire]) {
        assert_eq!(wire.reply().status, 200);
    }
}

#[test]
fn d14_two_tokens_of_one_session_alternate_and_an_answer_has_an_end() {
    let world = world();
    let two = ["a", "b"].map(|client| world.token(&json!({ "client_id": client, "jti": client })));
    for n in 0..1000 {
        assert_eq!(world.ask(&two[n % 2], "/graph/x").status, 200);
    }
    assert_eq!(world.provider.asked(), 2);
    // Too short to be kept: each request asks.
    world.provider.grants(&json!({ "expires_in": 5 }));
    let token = world.token(&json!({ "sub": "short", "sid": "s-3" }));
    for _ in 0..2 {
        assert_eq!(world.ask(&token, "/graph/x").status, 200);
    }
    assert_eq!(world.provider.asked(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_a_caller_that_is_revoked_during_the_exchange_gets_nothing() {
    let world = world();
    world.provider.hold(true);
    let token = world.token(&json!({}));
    let mut wire = world.edge.wire();
    wire.head("GET /graph/x", &["Host: gate.test", &format!("Authorization: Bearer {token}")]);
    until("the provider is asked", async || world.provider.asked() == 1).await;
    let told = json!({
        "iss": super::issuer::URL, "aud": "our-client", "iat": now(), "exp": now() + 120, "jti": "l-1", "sub": "user-1",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let told = world.kc.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }), &told);
    assert_eq!(world.edge.form("/logout/kc", &[], &[("logout_token", &told)]).status, 200);
    world.provider.hold(false);
    assert_eq!(wire.reply().status, 401);
    assert_eq!(world.ask(&token, "/graph/x").status, 401);
    assert_eq!((world.edge.stub.take().len(), world.provider.asked()), (0, 1));
}

#[test]
fn d17_entra_is_asked_on_behalf_of_a_user_and_not_of_an_app() {
    let world = world();
    world.provider.grants(&json!({ "issued_token_type": null, "ext_expires_in": 300 }));
    let token = world.token(&json!({ "scp": "access_as_user" }));
    assert_eq!(world.ask(&token, "/entra/x").status, 200);
    let received = world.edge.stub.one();
    assert_eq!(received.all("authorization"), [format!("Bearer {}", world.provider.token())]);
    let (head, body) = world.provider.last();
    assert!(!head.to_ascii_lowercase().contains("authorization:"), "{head}");
    let pairs: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", token.as_str()),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "https://graph.microsoft.com/User.Read"),
        ("client_id", "gate"),
        ("client_secret", "the gate's secret at the provider"),
    ];
    assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let app = world.token(&json!({ "sub": "app", "jti": "app" }));
    assert_eq!(world.ask(&app, "/entra/x").status, 403);
    assert_eq!(world.provider.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn d29_a_reload_asks_anew_for_the_upstream_that_changed_and_keeps_the_tokens_of_others() {
    let world = world();
    let token = world.token(&json!({ "scp": "access_as_user" }));
    world.provider.grants(&json!({}));
    assert_eq!((world.ask(&token, "/graph/x").status, world.ask(&token, "/entra/x").status), (200, 200));
    assert_eq!(world.provider.asked(), 2);
    let config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    world.edge.place.write_config(&config.replace("audience = \"graph\"", "audience = \"ledger\""));
    reload(&world.edge, 1).await;
    world.provider.grants(&json!({}));
    world.edge.stub.take();
    assert_eq!((world.ask(&token, "/entra/x").status, world.provider.asked()), (200, 2));
    assert_ne!(world.edge.stub.one().all("authorization"), [format!("Bearer {}", world.provider.token())]);
    assert_eq!((world.ask(&token, "/graph/x").status, world.provider.asked()), (200, 3));
    assert_eq!(world.edge.stub.one().all("authorization"), [format!("Bearer {}", world.provider.token())]);
    assert!(world.provider.last().1.contains("&audience=ledger&"));
}
