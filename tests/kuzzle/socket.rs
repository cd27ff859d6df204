//! Kuzzle's protocol over WebSocket: identities, cookies, bounds, and the end of connections with their tokens.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Asked, Response as Agreed};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::kuzzle::client::{Client, jwt, result};
use support::{CONFIG, Gate, Place, until};

/// The time limit of a wait, which only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than several checks of connections by the gate take.
pub(super) const SEVERAL_LOOKS: Duration = Duration::from_millis(1700);

/// An event at the upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Opened(usize),
    /// A call came that gets no reply.
    Held(usize),
    Closed(usize),
}

/// An upstream that answers with the caller's identity and the number of the connection.
pub(super) async fn upstream() -> (u16, UnboundedReceiver<Event>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (events, happened) = unbounded_channel();
    tokio::spawn(async move {
        for connection in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, connection, events.clone()));
        }
    });
    (port, happened)
}

#[allow(clippy::result_large_err, reason = "the library's signature")]
async fn serve(stream: TcpStream, connection: usize, events: UnboundedSender<Event>) {
    let mut caller = Value::Null;
    let note = |asked: &Asked, agreed: Agreed| {
        let header = |name: &str| asked.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        caller =
            json!({ "session": header("x-auth-session"), "cookie": header("cookie"), "jwt": header("authorization") });
        Ok(agreed)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note).await else { return };
    events.send(Event::Opened(connection)).unwrap();
    let (mut is_subscribed, mut number) = (false, 0);
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = tokio::time::sleep(Duration::from_millis(50)), if is_subscribed => {
                number += 1;
                let document = json!({ "room": "subscription", "type": "document", "connection": connection, "number": number });
                let _ = socket.send(Message::text(document.to_string())).await;
                continue;
            }
        };
        let Some(Ok(message)) = message else { break };
        let Message::Text(text) = message else { continue };
        let asked: Value = serde_json::from_str(&text).unwrap();
        is_subscribed |= asked["action"] == "subscribe";
        if asked["action"] == "hold" {
            events.send(Event::Held(connection)).unwrap();
            continue;
        }
        let result = json!({ "connection": connection, "caller": caller, "text": text.as_str() });
        let answer = json!({ "requestId": asked["requestId"], "status": 200, "error": null, "result": result });
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            break;
        }
    }
    let _ = events.send(Event::Closed(connection));
}

pub(super) async fn gate(place: &mut Option<Place>) -> (Gate, UnboundedReceiver<Event>) {
    gate_with("", place).await
}

pub(super) async fn gate_with(more: &str, place: &mut Option<Place>) -> (Gate, UnboundedReceiver<Event>) {
    let (port, events) = upstream().await;
    let kuzzle = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"ws\"\n\
         [[endpoints]]\ndialect = \"kuzzle\"\n"
    );
    (place.insert(Place::new(&format!("{CONFIG}{kuzzle}{more}"))).start(), events)
}

/// A client's connection.
pub(super) struct Wire(pub(super) WebSocketStream<TcpStream>);

impl Wire {
    pub(super) async fn open(gate: &Gate) -> Self {
        Self::try_open(gate.address, &[]).await.unwrap()
    }

    async fn try_open(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, (StatusCode, Value)> {
        Self::try_open_at(address, "/", headers).await
    }

    async fn try_open_at(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, (StatusCode, Value)> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = Request::get(format!("ws://gate.test{path}")).header("host", "gate.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let request = request.header("sec-websocket-version", "13").header("sec-websocket-key", generate_key());
        match client_async(request.body(()).unwrap(), stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status(), serde_json::from_slice(body).unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.0.next()).await.expect("nothing came").unwrap().unwrap()
    }

    pub(super) async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message.
    pub(super) async fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.next().await {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// A call that the upstream answers.
    pub(super) async fn call(&mut self, jwt: Option<&str>) -> Value {
        let call = json!({ "controller": "app", "action": "hello", "requestId": "R", "jwt": jwt });
        self.send(call.to_string()).await;
        let answer = self.hear().await;
        assert_eq!(answer["room"], "R", "{}", answer["type"]);
        answer
    }
}

pub(super) fn connection(answer: &Value) -> &Value {
    assert_eq!(answer["error"], Value::Null);
    &answer["result"]["connection"]
}

pub(super) async fn event(events: &mut UnboundedReceiver<Event>) -> Event {
    timeout(PATIENCE, events.recv()).await.expect("nothing happened").unwrap()
}

#[tokio::test]
async fn t9_a_rotation_elsewhere_leaves_a_connection_and_what_hangs_on_it_alone() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let http = Client { gate: &gate };
    let first = http.login("").await;
    let mut wire = Wire::open(&gate).await;
    assert_eq!(connection(&wire.call(Some(jwt(&first))).await), 1);
    let second = result(&http.refresh(jwt(&first)).await);
    let refused = wire.call(Some(jwt(&first))).await;
    assert_eq!(refused["error"]["id"], "security.token.invalid");
    // No message arrives and nothing ends. A slow machine cannot fail this check.
    assert!(timeout(SEVERAL_LOOKS, wire.0.next()).await.is_err(), "something was said");
    assert_eq!(connection(&wire.call(Some(jwt(&second))).await), 1);
    // The same over the connection itself.
    let refresh = json!({ "controller": "auth", "action": "refreshToken", "jwt": second["jwt"] });
    wire.send(refresh.to_string()).await;
    let third = wire.hear().await["result"].take();
    assert!(timeout(SEVERAL_LOOKS, wire.0.next()).await.is_err(), "something was said");
    assert_eq!(connection(&wire.call(Some(jwt(&third))).await), 1);
    assert_eq!(connection(&wire.call(None).await), 1, "it stands for the new token");
    assert_eq!(event(&mut events).await, Event::Opened(1));
    assert!(events.try_recv().is_err(), "no other connection came or went");

    result(&http.post("/_logout", Some(jwt(&third)), "").await);
    assert_eq!(wire.hear().await["type"], "TokenExpired");
    assert_eq!(event(&mut events).await, Event::Closed(1));
    assert_eq!(wire.call(Some(jwt(&third))).await["error"]["id"], "security.token.invalid");
}

#[tokio::test]
async fn a_fifth_identity_ends_the_connection_of_the_first() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let http = Client { gate: &gate };
    let mut wire = Wire::open(&gate).await;
    let mut tokens = Vec::new();
    for number in 1..=5 {
        let token = http.login("").await;
        assert_eq!(connection(&wire.call(Some(jwt(&token))).await), number);
        assert_eq!(event(&mut events).await, Event::Opened(number));
        tokens.push(token);
    }
    assert_eq!(event(&mut events).await, Event::Closed(1));
    for (index, token) in tokens.iter().enumerate().skip(1) {
        assert_eq!(connection(&wire.call(Some(jwt(token))).await), index + 1);
    }
    assert_eq!(connection(&wire.call(Some(jwt(&tokens[0]))).await), 6, "it may come again");
}

#[tokio::test]
async fn t9_t18_a_cookie_is_the_identity_of_a_connection_from_a_page_that_may() {
    let mut place = None;
    let (gate, _events) = gate(&mut place).await;
    let token = Client { gate: &gate }.login("").await;
    let cookie = format!("a=1; authToken={}", jwt(&token));
    let mut wire = Wire::try_open(gate.address, &[("cookie", &cookie), ("origin", "http://gate.test")]).await.unwrap();
    let answer = wire.call(None).await;
    assert_eq!(connection(&answer), 1);
    assert_eq!(answer["result"]["caller"]["cookie"], "a=1");
    assert_eq!(answer["result"]["caller"]["jwt"], Value::Null);
    assert!(answer["result"]["caller"]["session"].is_string());
    // No frame can set a cookie: the SDK refreshes over HTTP, and reconnects.
    wire.send(json!({ "controller": "auth", "action": "refreshToken" }).to_string()).await;
    assert_eq!(wire.hear().await["error"]["id"], "security.cookie.unsupported");

    for headers in [
        &[("cookie", cookie.as_str())][..],
        &[("cookie", &cookie), ("origin", "https://evil.test")],
        &[("cookie", &cookie), ("origin", "null")],
        &[("cookie", &cookie), ("origin", "http://gate.test.evil.test")],
    ] {
        let (status, body) = Wire::try_open(gate.address, headers).await.err().expect("it was let in");
        assert_eq!((status, &body["error"]["id"]), (StatusCode::FORBIDDEN, &json!("security.rights.forbidden")));
    }
    let bearer = format!("Bearer {}", jwt(&token));
    let both = [("cookie", cookie.as_str()), ("origin", "http://gate.test"), ("authorization", &bearer)];
    let (status, body) = Wire::try_open(gate.address, &both).await.err().expect("it was let in");
    let expected = (StatusCode::INTERNAL_SERVER_ERROR, &json!("security.token.verification_error"));
    assert_eq!((status, &body["error"]["id"]), expected);
    // A page without a cookie sends its token in each message, so its origin does not matter.
    let mut other = Wire::try_open(gate.address, &[("origin", "https://other.test")]).await.unwrap();
    assert_eq!(other.call(None).await["error"]["id"], "security.rights.unauthorized");
}

#[tokio::test]
async fn a11_messages_pass_as_they_were_written_and_not_beyond_their_bound() {
    let mut place = None;
    let (gate, _events) = gate(&mut place).await;
    let token = Client { gate: &gate }.login("").await;
    let mut wire = Wire::open(&gate).await;
    let rest =
        r#""controller":"app","action":"hello","requestId":"R","body":{"a":123456789012345678901234567890,"b":1.10}}"#;
    wire.send(format!(r#"{{"jwt":"{}", {rest}"#, jwt(&token))).await;
    assert_eq!(wire.hear().await["result"]["text"], format!("{{{rest}"));

    // Lower limits hold until a token was good on the connection.
    let mut stranger = Wire::open(&gate).await;
    stranger.send(format!(r#"{{"body":"{}"}}"#, "x".repeat(40_000))).await;
    let Message::Close(Some(close)) = stranger.next().await else { panic!("it was taken") };
    assert_eq!(u16::from(close.code), 1009);
    let large = format!(r#"{{"more":"{}","jwt":"{}",{rest}"#, "x".repeat(500_000), jwt(&token));
    wire.send(large).await;
    assert_eq!(wire.hear().await["status"], 200);

    wire.send("x".repeat(1024 * 1024 + 1)).await;
    let Message::Close(Some(close)) = wire.next().await else { panic!("it was taken") };
    assert_eq!(u16::from(close.code), 1009);
    assert_eq!(gate.call(Method::GET, "/strategies", &[], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let token = Client { gate: &gate }.login("").await;
    let mut wire = Wire::open(&gate).await;
    assert_eq!(connection(&wire.call(Some(jwt(&token))).await), 1);
    assert_eq!(event(&mut events).await, Event::Opened(1));
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    wire.0.close(Some(frame.clone())).await.unwrap();
    assert_eq!(wire.next().await, Message::Close(Some(frame)));
    assert!(timeout(PATIENCE, wire.0.next()).await.expect("nothing came").is_none(), "it is closed, too");
    assert_eq!(event(&mut events).await, Event::Closed(1));
}

#[tokio::test]
async fn a_connection_that_is_over_is_closed_with_a_word_that_has_the_sdk_come_back() {
    let mut place = None;
    let (gate, _events) = gate_with("[sessions]\nfor_tests.max_stream = \"1s\"\n", &mut place).await;
    let token = Client { gate: &gate }.login("").await;
    let mut wire = Wire::open(&gate).await;
    assert_eq!(connection(&wire.call(Some(jwt(&token))).await), 1);
    let Message::Close(Some(close)) = wire.next().await else { panic!("something else came") };
    assert_eq!(u16::from(close.code), 1012);
}

#[tokio::test]
async fn t22_a_message_obeys_the_rules_of_its_own_path() {
    let rules = "[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\nkuzzle = [\"some-plugin:*\"]\nupstream = \"ws\"\n";
    let mut place = None;
    let (gate, _events) = gate_with(rules, &mut place).await;
    let token = Client { gate: &gate }.login("").await;
    let mut wire = Wire::open(&gate).await;
    for (controller, action, is_refused) in [
        ("security", "createUser", true),
        ("some-plugin", "action", true),
        ("document", "get", false),
        ("realtime", "subscribe", false),
    ] {
        let call = json!({
            "controller": controller, "action": action, "requestId": "R", "jwt": jwt(&token),
            "_id": "1", "index": "i", "collection": "c",
        });
        wire.send(call.to_string()).await;
        let answer = wire.hear().await;
        let id = answer["error"]["id"].as_str();
        assert_eq!(id, is_refused.then_some("security.rights.forbidden"), "{controller}:{action}");
    }
}

/// The remedies that a message of `rotogate check` prints: `kuzzle = […]`.
fn printed(message: &str) -> Vec<String> {
    let lists = message.split("kuzzle = ").skip(1).filter_map(|rest| rest.split_once(']'));
    lists.map(|(list, _)| format!("kuzzle = {list}]")).collect()
}

#[tokio::test]
async fn p67_t42_each_remedy_of_the_message_about_calls_stops_the_attack_that_it_warns_of() {
    // The route permits a WebSocket without a token, but calls need a user.
    let strict = "[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"ws\"\n";
    let (port, _events) = upstream().await;
    let config = |at_strict: &str, at_envelope: &str| {
        format!(
            "{CONFIG}[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n{strict}{at_strict}\
             [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nauth = \"optional\"\nupgrade = true\nupstream = \"ws\"\n\
             {at_envelope}[[routes]]\npath = \"/_query\"\ndialect = \"kuzzle\"\nauth = \"optional\"\nupstream = \"app\"\n\
             [[endpoints]]\ndialect = \"kuzzle\"\n"
        )
    };
    let place = Place::new(&config("", ""));
    let message = place.run(&["check"], "").stderr;
    let (all, plugin) = ("kuzzle = [\"*\"]", "kuzzle = [\"my-plugin:*\"]");
    assert_eq!(printed(&message), [all, plugin, all], "each remedy is tried here: {message}");
    // A rule of a less strict route is no remedy, and neither is a rule for calls of Kuzzle's own API.
    for (at_strict, at_envelope) in [
        ("", "kuzzle = [\"realtime:*\"]\n"),
        ("kuzzle = [\"realtime:*\"]\n", ""),
        ("kuzzle = [\"security:*\", \"memoryStorage:*\", \"auth:logout\"]\n", ""),
    ] {
        place.write_config(&config(at_strict, at_envelope));
        assert_eq!(printed(&place.run(&["check"], "").stderr).len(), 3, "{at_strict}");
    }
    let in_lines = |rule: &str| format!("{rule}\n");
    for (at_strict, at_envelope, others_pass) in
        [(in_lines(all), String::new(), false), (in_lines(plugin), in_lines(all), true)]
    {
        place.write_config(&config(&at_strict, &at_envelope));
        let gate = place.start();
        let client = Client { gate: &gate };
        let token = client.login("").await;
        let mut wire = Wire::open(&gate).await;
        // With a token that lacks the scope, and without a token: calls that a path refuses, and calls that the rule
        // names.
        for (controller, action, token, passes) in [
            ("security", "createUser", Some(jwt(&token)), false),
            ("my-plugin", "hello", Some(jwt(&token)), false),
            ("my-plugin", "hello", None, false),
            ("security", "createUser", None, false),
            ("document", "delete", None, false),
            ("admin", "resetDatabase", None, false),
            // Calls that a path permits, and calls that the operator left open.
            ("document", "delete", Some(jwt(&token)), true),
            ("other-plugin", "hello", None, others_pass),
        ] {
            let call = json!({
                "controller": controller, "action": action, "requestId": "R", "jwt": token,
                "_id": "1", "index": "i", "collection": "c",
            });
            wire.send(call.to_string()).await;
            let answer = wire.hear().await;
            let error = answer["error"].clone();
            assert_eq!(error.is_null(), passes, "{at_strict}{at_envelope}{controller}:{action} {answer}");
            let answer = client.query(&call).await;
            assert_eq!(answer.status == StatusCode::OK, passes, "{at_strict}{at_envelope}{controller}:{action}");
        }
    }
}

/// Kuzzle opens WebSockets at any path. A tunnel at another path would carry calls that no rule of the gate has judged.
#[tokio::test]
async fn t42_no_other_path_of_the_dialect_opens_a_tunnel_past_the_rules_of_calls() {
    let (port, mut events) = upstream().await;
    let place = Place::new(&format!(
        "{}[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"ws\"\n\
         [[routes]]\nkuzzle = [\"app:*\"]\nscopes = [\"admin\"]\n[[endpoints]]\ndialect = \"kuzzle\"\n",
        CONFIG.replace("path = \"/{*rest}\"", "path = \"/app/{*rest}\"")
    ));
    let gate = place.start();
    let token = Client { gate: &gate }.login("").await;
    let bearer = format!("Bearer {}", jwt(&token));
    let past = Wire::try_open_at(gate.address, "/other", &[("authorization", &bearer)]).await;
    assert!(past.is_err(), "it opened");
    let mut wire = Wire::open(&gate).await;
    let call = json!({ "controller": "app", "action": "hello", "requestId": "R", "jwt": jwt(&token) });
    wire.send(call.to_string()).await;
    assert_eq!(wire.hear().await["status"], 403, "the rule of the call");
    assert!(events.try_recv().is_err(), "the upstream has opened a WebSocket");
}

#[tokio::test]
async fn a9_a10_sockets_of_nobody_known_have_places_of_their_own_for_each_address() {
    let mut place = None;
    let (port, _events) = upstream().await;
    let kuzzle = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"ws\"\n\
         [[endpoints]]\ndialect = \"kuzzle\"\n"
    );
    let bounds = "for_tests.max_anonymous_sockets = 3\nfor_tests.max_anonymous_sockets_per_address = 2\nfor_tests.max_tunnels = 3\n\
                  for_tests.max_tunnels_per_caller = 2\n";
    let config = support::with(CONFIG, "server", bounds);
    let gate = place.insert(Place::new(&format!("{config}{kuzzle}"))).start();
    let token = Client { gate: &gate }.login("").await;
    let call = json!({ "controller": "app", "action": "hello", "requestId": "R", "jwt": jwt(&token) }).to_string();
    let mut one = Wire::open(&gate).await;
    let _two = Wire::open(&gate).await;
    let (status, body) = Wire::try_open(gate.address, &[]).await.err().expect("it was let in");
    assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(503)));
    // A connection with a good token returns its permit, and counts among the tunnels of its caller.
    assert_eq!(connection(&one.call(Some(jwt(&token))).await), 1);
    assert_eq!(gate.metric("rotogate_tunnels").await, 1);
    let mut three = Wire::open(&gate).await;
    assert_eq!(connection(&three.call(Some(jwt(&token))).await), 2);
    let mut four = Wire::open(&gate).await;
    four.send(call).await;
    let Message::Close(Some(close)) = four.next().await else { panic!("it was taken") };
    assert_eq!(u16::from(close.code), 1013);
    drop(one);
    support::until("its place is free", async || gate.metric("rotogate_tunnels").await == 1).await;
}

/// The configuration of the gate with the WebSocket's route alone.
pub(super) fn with_one_route(place: &Place) -> String {
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let (begin, _) = config.split_once("[[routes]]").unwrap();
    let (_, end) = config.split_once("[[upstreams]]\nname = \"ws\"\n").unwrap();
    format!("{begin}[[upstreams]]\nname = \"ws\"\n{end}")
}

/// Reloads the gate with this configuration.
pub(super) async fn reload(place: &Place, gate: &Gate, config: &str) {
    let before = gate.log().matches("configuration reloaded").count();
    place.write_config(config);
    gate.signal("HUP");
    until("it is taken up", async || gate.log().matches("configuration reloaded").count() > before).await;
}

pub(super) async fn close_code(wire: &mut Wire) -> CloseCode {
    loop {
        if let Message::Close(frame) = wire.next().await {
            return frame.unwrap().code;
        }
    }
}

#[tokio::test]
async fn t34_a_call_on_an_open_connection_is_judged_by_the_routes_in_force() {
    for (before, after, status) in [("", "scopes = [\"admin\"]\n", 403), ("auth = \"none\"\n", "", 401)] {
        let mut place = None;
        let (gate, mut events) = gate(&mut place).await;
        let place = place.unwrap();
        let config = with_one_route(&place);
        let with = |line: &str| config.replace("upgrade = true\n", &format!("upgrade = true\n{line}"));
        reload(&place, &gate, &with(before)).await;
        let token = Client { gate: &gate }.login("").await;
        let token = before.is_empty().then(|| jwt(&token));
        let [mut busy, mut idle] = [Wire::open(&gate).await, Wire::open(&gate).await];
        assert_eq!(connection(&busy.call(token).await), 1);
        assert_eq!(event(&mut events).await, Event::Opened(1));
        // The same rules again.
        reload(&place, &gate, &with(before)).await;
        assert_eq!(connection(&busy.call(token).await), 1, "it goes on");

        reload(&place, &gate, &with(after)).await;
        assert_eq!(idle.call(token).await["status"], status, "{after}");
        // Subscriptions at the upstream would continue to send.
        assert_eq!(close_code(&mut busy).await, CloseCode::Restart);
        assert_eq!(event(&mut events).await, Event::Closed(1));
        assert!(events.try_recv().is_err(), "nothing else arrived");

        reload(&place, &gate, &with(before)).await;
        assert_eq!(connection(&idle.call(token).await), 2, "it was refused for what the rules said then");
    }
}

#[tokio::test]
async fn t34_a_connection_ends_with_its_endpoint_and_one_that_the_old_routes_refuse_begins_anew() {
    let mut place = None;
    let (gate, mut events) = gate(&mut place).await;
    let place = place.unwrap();
    let config = with_one_route(&place);
    let strict = config.replace("upgrade = true\n", "upgrade = true\nscopes = [\"admin\"]\n");
    reload(&place, &gate, &strict).await;
    let token = Client { gate: &gate }.login("").await;
    let [mut one, mut other] = [Wire::open(&gate).await, Wire::open(&gate).await];
    assert_eq!(one.call(Some(jwt(&token))).await["status"], 403);
    reload(&place, &gate, &config).await;
    // The routes at the begin of the connection have no upstream for this caller, so the client connects again.
    let call = json!({ "controller": "app", "action": "hello", "requestId": "R", "jwt": jwt(&token) });
    one.send(call.to_string()).await;
    assert_eq!(close_code(&mut one).await, CloseCode::Restart);
    assert_eq!(connection(&Wire::open(&gate).await.call(Some(jwt(&token))).await), 1);
    assert_eq!(event(&mut events).await, Event::Opened(1));

    let elsewhere = "[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/elsewhere\"\n";
    reload(&place, &gate, &config.replace("[[endpoints]]\ndialect = \"kuzzle\"\n", elsewhere)).await;
    assert_eq!(close_code(&mut other).await, CloseCode::Restart);
}

#[tokio::test]
async fn k20_each_message_counts_with_the_limits_that_govern_it() {
    let mut place = None;
    let rules = "[[routes]]\nid = \"hello\"\nkuzzle = [\"app:*\"]\n\
                 rate = [{ per = \"subject\", limit = \"3/1h\" }, { per = \"address\", limit = \"1000/1h\" }]\n";
    let (gate, mut events) = gate_with(rules, &mut place).await;
    let http = Client { gate: &gate };
    let login = http.login("").await;
    let mut wire = Wire::open(&gate).await;
    // The upstream connection of the first socket does not count.
    for _ in 0..3 {
        assert_eq!(connection(&wire.call(Some(jwt(&login))).await), 1);
    }
    let refused = wire.call(Some(jwt(&login))).await;
    assert_eq!((&refused["status"], &refused["error"]["id"]), (&json!(429), &json!("api.process.too_many_requests")));
    assert_eq!(event(&mut events).await, Event::Opened(1));
    assert_eq!(gate.metric("rotogate_rate_refused_total{name=\"hello subject\"}").await, 1);
    assert_eq!(gate.metric("rotogate_rate_refused_total{name=\"hello address\"}").await, 0);
}
