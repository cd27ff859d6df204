//! How long connections hang on their session: a rotation carries them on, whatever becomes of the old token; they end
//! with their authority.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::upgrades::{ask, gate_with, is, upstream};
use support::{CONFIG, Gate, keep_secret, until};

/// Longer than the gate takes to look at a connection. A test that waits so long for nothing to happen cannot fail for
/// being too slow.
const SEVERAL_LOOKS: Duration = Duration::from_millis(1700);

/// Tokens of any life, by Kuzzle's login; by the other endpoint, such as end with their exchange.
pub(super) fn config() -> String {
    let rules = "[sessions]\ngrace = \"0s\"\nlost_response_window = \"0s\"\nrevoke_previous_after = \"0s\"\n";
    let text = support::with(CONFIG, "issuer", "audience = [\"api\"]\nfor_tests = { leeway = \"0s\" }");
    // Old tokens of kuzzle sessions remain valid until they expire.
    let kuzzle = "[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/k\"\nprofile = { revoke_previous_after = \"1h\" }\n";
    format!("{text}{rules}{kuzzle}")
}

pub(super) type Tunnel = BufReader<TcpStream>;

pub(super) fn open(gate: &Gate, token: &str) -> Tunnel {
    let (answer, mut tunnel) = ask(gate, "/ws", "chat", &format!("authorization: Bearer {token}"));
    assert!(is(&answer, 101), "{answer}");
    assert!(echoes(&mut tunnel, b"HELLO"));
    tunnel
}

fn echoes(tunnel: &mut Tunnel, expected: &[u8; 5]) -> bool {
    let mut bytes = [0; 5];
    tunnel.read_exact(&mut bytes).is_ok() && &bytes == expected
}

pub(super) fn lives_on(tunnel: &mut Tunnel) {
    for _ in 0..SEVERAL_LOOKS.as_millis() / 20 {
        assert!(tunnel.get_mut().write_all(b"again").is_ok() && echoes(tunnel, b"AGAIN"), "it was cut");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn ends(tunnel: &mut Tunnel) {
    let mut rest = Vec::new();
    // A reset would do as well; only a connection that stays open would not.
    if let Err(error) = tunnel.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

pub(super) async fn kuzzle(gate: &Gate, path: &str, token: Option<&str>) -> String {
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let headers = token.map(|_| ("authorization", bearer.as_str()));
    let body = json!({ "username": "demo", "password": gate.password }).to_string();
    let answer = gate.call(Method::POST, path, headers.as_slice(), &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}");
    let Value::String(jwt) = answer.json()["result"]["jwt"].take() else { panic!("no token") };
    keep_secret(jwt.rsplit('.').next().unwrap());
    jwt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_tunnel_outlives_the_exchange_of_its_token_and_ends_with_its_session() {
    let (port, _heads) = upstream();
    let mut place = None;
    let gate = gate_with(&config(), port, &mut place);
    let first = gate.login().await;
    let mut tunnel = open(&gate, &first.access);
    let second = gate.refresh(&first.refresh).await.tokens();
    let third = gate.refresh(&second.refresh).await.tokens();
    for dead in [&first.access, &second.access] {
        assert_eq!(gate.get("/hello", dead).await.status, StatusCode::UNAUTHORIZED);
        let (refused, _) = ask(&gate, "/ws", "websocket", &format!("authorization: Bearer {dead}"));
        assert!(is(&refused, 401), "a client that comes again with the old token is refused: {refused}");
    }
    lives_on(&mut tunnel);
    gate.revoke(&third.refresh).await;
    ends(&mut tunnel);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_tunnel_ends_with_its_token_and_a_rotation_moves_that_end() {
    let (port, _heads) = upstream();
    let mut place = None;
    let gate = gate_with(&config(), port, &mut place);
    let mut left_alone = open(&gate, &kuzzle(&gate, "/k/_login/local?expiresIn=3s", None).await);
    let renewed = kuzzle(&gate, "/k/_login/local?expiresIn=3s", None).await;
    let mut carried = open(&gate, &renewed);
    let successor = kuzzle(&gate, "/k/_refreshToken?expiresIn=1h", Some(&renewed)).await;
    ends(&mut left_alone);
    until("the old token expired", async || gate.get("/hello", &renewed).await.status == StatusCode::UNAUTHORIZED)
        .await;
    lives_on(&mut carried);
    let logout = gate.call(Method::POST, "/k/_logout", &[("authorization", &format!("Bearer {successor}"))], "").await;
    assert_eq!(logout.status, StatusCode::OK);
    ends(&mut carried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_lasts_no_longer_than_any_may() {
    let (port, _heads) = upstream();
    let mut place = None;
    let gate = gate_with(&support::with(&config(), "sessions", "for_tests.max_stream = \"1s\""), port, &mut place);
    let tokens = gate.login().await;
    ends(&mut open(&gate, &tokens.access));
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK, "its token is as good as ever");
}
