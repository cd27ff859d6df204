//! A WebSocket lasts as long as its session: through refreshes, reloads, and outages of the store.

#[cfg(feature = "redis")]
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use support::pki::write_private;
use support::wire::Wire as Plain;
use support::{Gate, keep_secret};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::edge::introspection::{Server, active};
use crate::edge::issuer::{Issuer, URL};

use super::client::{Client, jwt, result};
use super::socket::{Event, SEVERAL_LOOKS, Wire, close_code, connection, event, gate, reload, with_one_route};

async fn asked(wire: &mut Wire, action: &str, jwt: Option<&str>) -> Value {
    wire.send(json!({ "controller": "auth", "action": action, "jwt": jwt }).to_string()).await;
    let mut answer = wire.hear().await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    answer["result"].take()
}

async fn hears_nothing(wire: &mut Wire) {
    assert!(timeout(SEVERAL_LOOKS, wire.hear()).await.is_err(), "something was said");
}

#[tokio::test]
async fn t9_a_logout_ends_the_connections_of_its_session_whatever_token_they_came_with() {
    for over_socket in [true, false] {
        let mut place = None;
        let (gate, mut events) = gate(&mut place).await;
        let http = Client { gate: &gate };
        let [first, other] = [http.login("").await, http.login("").await];
        let mut wire = Wire::open(&gate).await;
        assert_eq!(connection(&wire.call(Some(jwt(&first))).await), 1);
        assert_eq!(connection(&wire.call(Some(jwt(&other))).await), 2);
        let second = match over_socket {
            true => asked(&mut wire, "refreshToken", Some(jwt(&first))).await,
            false => result(&http.refresh(jwt(&first)).await),
        };
        assert_eq!(asked(&mut wire, "logout", Some(jwt(&second))).await["acknowledged"], true);
        for expected in [Event::Opened(1), Event::Opened(2), Event::Closed(1)] {
            assert_eq!(event(&mut events).await, expected);
        }
        // The client knows about its own logout.
        hears_nothing(&mut wire).await;
        assert_eq!(connection(&wire.call(Some(jwt(&other))).await), 2, "another session");
    }
}

/// A call that the upstream never answers.
async fn hold(wire: &mut Wire, token: &Value) {
    let call = json!({ "controller": "document", "action": "hold", "requestId": "held", "jwt": jwt(token) });
    wire.send(call.to_string()).await;
}

/// Otherwise the client would wait for ever for a reply.
#[tokio::test]
async fn a_connection_closes_if_a_token_ends_while_the_upstream_works_on_a_call() {
    for is_answered in [true, false] {
        let mut place = None;
        let (gate, mut events) = gate(&mut place).await;
        let http = Client { gate: &gate };
        let login = http.login("").await;
        let mut wire = Wire::open(&gate).await;
        assert_eq!(connection(&wire.call(Some(jwt(&login))).await), 1);
        assert_eq!(event(&mut events).await, Event::Opened(1));
        if !is_answered {
            hold(&mut wire, &login).await;
            assert_eq!(event(&mut events).await, Event::Held(1));
        }
        result(&http.post("/_logout", Some(jwt(&login)), "").await);
        match is_answered {
            true => assert_eq!(wire.hear().await["type"], "TokenExpired"),
            false => assert_eq!(close_code(&mut wire).await, CloseCode::Restart),
        }
    }
}

#[tokio::test]
async fn a_logout_over_the_connection_is_answered_and_then_closes_it_if_a_call_is_lost() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let login = Client { gate: &gate }.login("").await;
    let mut wire = Wire::open(&gate).await;
    hold(&mut wire, &login).await;
    assert_eq!((event(&mut events).await, event(&mut events).await), (Event::Opened(1), Event::Held(1)));
    assert_eq!(asked(&mut wire, "logout", Some(jwt(&login))).await["acknowledged"], true);
    assert_eq!(close_code(&mut wire).await, CloseCode::Restart);
}

#[tokio::test]
async fn a_fifth_identity_closes_the_connection_of_one_that_waits_for_nothing() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let http = Client { gate: &gate };
    let mut wire = Wire::open(&gate).await;
    for number in 1..=4 {
        let token = http.login("").await;
        match number {
            3 => assert_eq!(connection(&wire.call(Some(jwt(&token))).await), number),
            _ => hold(&mut wire, &token).await,
        }
        assert_eq!(event(&mut events).await, Event::Opened(number));
        if number != 3 {
            assert_eq!(event(&mut events).await, Event::Held(number));
        }
    }
    assert_eq!(connection(&wire.call(Some(jwt(&http.login("").await))).await), 5);
    let next = [event(&mut events).await, event(&mut events).await];
    assert!(next.contains(&Event::Opened(5)) && next.contains(&Event::Closed(3)), "{next:?}");
    hold(&mut wire, &http.login("").await).await;
    let next = [event(&mut events).await, event(&mut events).await, event(&mut events).await];
    assert!(next.contains(&Event::Closed(5)) && next.contains(&Event::Held(6)), "{next:?}");
    // All four wait now, so one more makes the client reconnect.
    hold(&mut wire, &http.login("").await).await;
    assert_eq!(close_code(&mut wire).await, CloseCode::Restart);
}

#[tokio::test]
async fn t34_a_reload_judges_the_caller_of_a_connection_and_not_its_superseded_token() {
    for over_socket in [true, false] {
        let mut place = None;
        let (gate, mut events) = gate(&mut place).await;
        let place = place.unwrap();
        let config = with_one_route(&place);
        let http = Client { gate: &gate };
        let first = http.login("").await;
        let mut wire = Wire::open(&gate).await;
        assert_eq!(connection(&wire.call(Some(jwt(&first))).await), 1);
        match over_socket {
            true => asked(&mut wire, "refreshToken", Some(jwt(&first))).await,
            false => result(&http.refresh(jwt(&first)).await),
        };
        reload(&place, &gate, &config).await;
        hears_nothing(&mut wire).await;
        // The new rules refuse the caller.
        reload(&place, &gate, &config.replace("upgrade = true\n", "upgrade = true\nscopes = [\"admin\"]\n")).await;
        assert_eq!(close_code(&mut wire).await, CloseCode::Restart);
        assert_eq!((event(&mut events).await, event(&mut events).await), (Event::Opened(1), Event::Closed(1)));
    }
}

/// The status of a request with these header lines.
fn status(gate: &Gate, request: &str, headers: &[&str]) -> u16 {
    let mut wire = Plain::open(gate.address);
    wire.head(request, &[&["Host: gate.test"], headers].concat());
    wire.reply_head().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_only_an_upgrade_to_a_websocket_opens_the_socket_of_a_path() {
    let kuzzle = "[[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"app\"\n\
                  [[endpoints]]\ndialect = \"kuzzle\"\n";
    let place = support::Place::new(&format!("{}{kuzzle}", support::CONFIG));
    let gate = place.start();
    let bearer = format!("Authorization: Bearer {}", jwt(&Client { gate: &gate }.login("").await));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for upgrade in ["h2c", "TLS/1.2", "other", "websocket/13", "websocket, h2c"] {
        let lines = ["Connection: Upgrade, HTTP2-Settings", &format!("Upgrade: {upgrade}"), key, &bearer];
        for request in ["GET /", "POST /"] {
            assert_eq!(status(&gate, request, &lines), StatusCode::OK.as_u16(), "{request} {upgrade}");
        }
    }
    let socket = ["Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", key];
    assert_eq!(status(&gate, "GET /", &socket), StatusCode::SWITCHING_PROTOCOLS.as_u16());
}

/// The issuer of one identity's token fails for longer than a question may take (30 s), so it is not known whether the token
/// is valid. Messages of the upstream for this identity wait, in their order, until the issuer answers again. Messages for
/// the other identity of the connection pass meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_what_cannot_be_decided_for_one_identity_holds_up_no_other_of_the_connection() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let secret = folder.path().join("idp.secret");
    keep_secret("secret-of-the-gate-at-idp");
    write_private(&secret, "secret-of-the-gate-at-idp");
    let entry = format!(
        "[[issuers]]\nname = \"idp\"\nurl = \"{URL}\"\naudience = [\"api\"]\nscopes = \"any\"\neverywhere = true\n\
         introspection = {{ url = \"{}\", client_id = \"gate\", secret_file = \"{}\", always = true, cache = \"1s\" }}\n",
        server.url(),
        secret.display()
    );
    let mut place = None;
    let (gate, mut events) = super::socket::gate_with(&entry, &mut place).await;
    let own = Client { gate: &gate }.login("").await;
    let theirs = &Issuer::new(1).token(&json!({}));
    server.says(theirs, &active(&json!({})));
    let mut wire = Wire::open(&gate).await;
    let call = |jwt: &str| json!({ "controller": "realtime", "action": "subscribe", "requestId": "S", "jwt": jwt });
    // The socket does not wait for the answer.
    support::until("the answer is known", async || {
        wire.send(call(theirs).to_string()).await;
        wire.hear().await["status"] == 200
    })
    .await;
    wire.send(call(jwt(&own)).to_string()).await;
    // The numbers of what the upstream says for an identity, for a time.
    let mut heard = async || {
        let mut all = [Vec::new(), Vec::new()];
        let all_of_it = async {
            loop {
                let said = wire.hear().await;
                if let Some(connection) = said["connection"].as_u64() {
                    all[usize::from(connection == 2)].push(said["number"].as_u64().unwrap());
                }
            }
        };
        let _: Result<(), _> = timeout(SEVERAL_LOOKS, all_of_it).await;
        all
    };
    let mut first = heard().await;
    assert!(first.iter().all(|numbers| !numbers.is_empty()), "both go on: {first:?}");
    server.answers(theirs, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    support::until("one waits and the other goes on", async || {
        let more = heard().await;
        let is_so = more[0].is_empty() && more[1].len() > 10;
        first.iter_mut().zip(more).for_each(|(first, more)| first.extend(more));
        is_so
    })
    .await;
    server.says(theirs, &active(&json!({})));
    support::until("both go on", async || {
        let more = heard().await;
        let is_so = !more[0].is_empty();
        first.iter_mut().zip(more).for_each(|(first, more)| first.extend(more));
        is_so
    })
    .await;
    for numbers in first {
        let expected: Vec<_> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "nothing is lost, and the order stays");
    }
    assert_eq!((event(&mut events).await, event(&mut events).await), (Event::Opened(1), Event::Opened(2)));
    assert!(events.try_recv().is_err(), "no connection came or went");
}

/// The store is out of reach for longer than its staleness.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_an_outage_of_the_store_ends_no_connection_and_lets_nothing_pass() {
    let server = support::redis::Redis::start(&[]);
    let way = support::proxy::Proxy::to(server.port).await;
    let store = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", way.port);
    let mut place = None;
    let (gate, mut events) = super::socket::gate_with(&store, &mut place).await;
    let login = Client { gate: &gate }.login("").await;
    let subscribe = json!({ "controller": "realtime", "action": "subscribe", "requestId": "S", "jwt": jwt(&login) });
    let mut wire = Wire::open(&gate).await;
    wire.send(subscribe.to_string()).await;
    assert_eq!(wire.hear().await["room"], "S");
    assert_eq!(wire.hear().await["room"], "subscription");
    way.go_away(true);
    // The gate cannot judge tokens then, and the upstream sends every 50 ms.
    support::until("nothing passes", async || {
        let said = timeout(SEVERAL_LOOKS, wire.hear()).await;
        assert!(said.as_ref().is_ok_and(|said| said["type"] == "document") || said.is_err(), "{said:?}");
        said.is_err()
    })
    .await;
    assert_eq!(wire_refused(&mut wire, jwt(&login)).await, 503);
    way.go_away(false);
    let said = timeout(Duration::from_secs(20), wire.hear()).await.expect("nothing passes any more");
    assert_eq!(said["type"], "document");
    assert_eq!(event(&mut events).await, Event::Opened(1));
    assert!(events.try_recv().is_err(), "the connection to the upstream was replaced");
}

#[cfg(feature = "redis")]
async fn wire_refused(wire: &mut Wire, jwt: &str) -> u64 {
    let call = json!({ "controller": "app", "action": "hello", "requestId": "R", "jwt": jwt });
    wire.send(call.to_string()).await;
    wire.hear().await["status"].as_u64().unwrap()
}
