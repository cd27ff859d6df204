//! A proxy between the SDK and the gate. It forwards messages, drops a reply on request, and can make the gate seem
//! faulty. Without a gate behind it, it replays the answers of an earlier run.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::World;
use support::try_send;

/// A fault of the gate that a client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The old token remains valid after an exchange. The gate's configuration causes this fault.
    OldTokenIsKept,
    /// The same token again is refused: a lost reply costs the login.
    ReplayIsRefused,
    /// A token that was superseded long ago still brings a token.
    ReuseIsIgnored,
    /// A token that was logged out still opens a route.
    LoggedOutPasses,
    /// Times in seconds.
    WrongUnit,
    /// A frame without `room`.
    NoRoom,
}

const INVALID: &str = "security.token.invalid";

/// The answers of a gate, by request.
pub(crate) type Recording = HashMap<String, VecDeque<Value>>;

/// The server that answers.
pub(crate) enum Behind {
    Gate(SocketAddr),
    Recording(Recording),
}

/// The state of the proxy.
pub(crate) struct Between {
    pub(crate) behind: Behind,
    pub(crate) fault: Fault,
    pub(crate) lose_next: bool,
    pub(crate) lost: u32,
    pub(crate) said: Recording,
    given: Vec<Value>,
    last: Value,
    logged_out: bool,
    hello: Value,
}

impl Between {
    pub(crate) fn new(behind: Behind, fault: Fault) -> Self {
        let said = Recording::new();
        let (last, hello) = (Value::Null, Value::Null);
        Self { behind, fault, lose_next: false, lost: 0, said, given: Vec::new(), last, logged_out: false, hello }
    }

    fn gate(&self) -> Option<SocketAddr> {
        match &self.behind {
            Behind::Gate(address) => Some(*address),
            Behind::Recording(_) => None,
        }
    }

    /// The reply that the client gets; `None` where it is lost.
    fn pass(&mut self, key: &str, mut reply: Value) -> Option<Value> {
        self.said.entry(key.to_owned()).or_default().push_back(reply.clone());
        if reply["action"] == "refreshToken" {
            self.exchange(&mut reply);
            if reply["error"].is_null() && std::mem::take(&mut self.lose_next) {
                self.lost += 1;
                return None;
            }
        }
        self.logged_out |= reply["action"] == "logout" && reply["error"].is_null();
        if key.ends_with("hello") {
            if reply["error"].is_null() {
                self.hello = reply.clone();
            } else if self.fault == Fault::LoggedOutPasses && self.logged_out && reply["error"]["id"] == INVALID {
                let room = reply["room"].clone();
                reply = self.hello.clone();
                reply["room"] = room;
            }
        }
        if let (Fault::NoRoom, Some(fields)) = (self.fault, reply.as_object_mut()) {
            fields.remove("room");
        }
        Some(reply)
    }

    fn exchange(&mut self, reply: &mut Value) {
        if reply["error"]["id"] == INVALID && self.fault == Fault::ReuseIsIgnored {
            (reply["status"], reply["error"], reply["result"]) = (json!(200), Value::Null, self.last.clone());
        }
        if !reply["error"].is_null() {
            return;
        }
        let token = reply["result"]["jwt"].clone();
        let again = self.given.contains(&token);
        self.given.push(token);
        self.last = reply["result"].clone();
        match self.fault {
            Fault::ReplayIsRefused if again => {
                let error = json!({ "id": INVALID, "status": 401, "message": "Invalid token.", "code": 117_506_049 });
                (reply["status"], reply["error"], reply["result"]) = (json!(401), error, Value::Null);
            }
            Fault::WrongUnit => {
                for name in ["expiresAt", "ttl"] {
                    let milliseconds = reply["result"][name].as_u64().unwrap();
                    reply["result"][name] = json!(milliseconds / 1000);
                }
            }
            _ => {}
        }
    }

    /// The recorded answer to this request.
    fn recorded(&mut self, key: &str) -> Option<Value> {
        match &mut self.behind {
            Behind::Gate(_) => None,
            Behind::Recording(said) => said.get_mut(key)?.pop_front(),
        }
    }
}

/// Answers one request. An error ends the connection.
pub(crate) async fn answer(world: Arc<World>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    if let Some(what) = request.uri().path().strip_prefix("/test/") {
        return Ok(Response::new(world.test(what).await.into()));
    }
    let gate = world.between.lock().unwrap().gate();
    match (gate, request.headers().contains_key("upgrade")) {
        (Some(gate), true) => open(world, gate, request).await,
        (None, true) => Ok(play(world, request)),
        (gate, false) => {
            let key = format!("{} {}", request.method(), request.uri().path());
            let (reply, cookie) = match gate {
                Some(gate) => ask(gate, request).await?,
                None => (world.between.lock().unwrap().recorded(&key).ok_or_else(lost)?, None),
            };
            let reply = world.between.lock().unwrap().pass(&key, reply).ok_or_else(lost)?;
            let status = reply["status"]
                .as_u64()
                .map_or(StatusCode::OK, |status| StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap());
            let mut response = Response::builder().status(status).header("content-type", "application/json");
            if let Some(cookie) = cookie {
                response = response.header("set-cookie", cookie);
            }
            Ok(response.body(reply.to_string().into()).unwrap())
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("lost")
}

/// Every answer of the gate and the upstream is JSON. It may set a cookie.
async fn ask(gate: SocketAddr, request: Request<Incoming>) -> io::Result<(Value, Option<HeaderValue>)> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    parts.uri = format!("http://{gate}{}", parts.uri).parse().unwrap();
    parts.headers.remove("connection");
    let answer = try_send(Request::from_parts(parts, Full::new(body))).await.map_err(io::Error::other)?;
    assert_eq!(answer.headers["content-type"], "application/json");
    Ok((answer.json(), answer.headers.get("set-cookie").cloned()))
}

/// A WebSocket to the gate.
async fn open(
    world: Arc<World>,
    gate: SocketAddr,
    mut request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let stream = TcpStream::connect(gate).await?;
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let client = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let gate = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (Ok(client), Ok(gate)) = (client.await, gate.await) else { return };
        let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
        let (mut from_gate, mut to_gate) = tokio::io::split(TokioIo::new(gate));
        // The end of one side ends both.
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_gate) => {}
            _ = carry(&world, &mut from_gate, &mut to_client) => {}
        }
    });
    Ok(answer.map(|_| Full::default()))
}

/// Frame by frame, as a server sends them (RFC 6455 §5.2).
async fn carry(
    world: &World,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    const WHOLE_TEXT: u8 = 0x81;
    loop {
        let (first, length) = (from.read_u8().await?, from.read_u8().await?);
        let length = match length {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await?;
        if first == WHOLE_TEXT {
            let reply: Value = serde_json::from_slice(&payload).unwrap();
            let key = reply["action"].as_str().unwrap_or_default().to_owned();
            payload = world.between.lock().unwrap().pass(&key, reply).ok_or_else(lost)?.to_string().into();
        }
        to.write_u8(first).await?;
        match u16::try_from(payload.len()) {
            Ok(short @ 0..126) => to.write_u8(u8::try_from(short).unwrap()).await?,
            Ok(length) => {
                to.write_u8(126).await?;
                to.write_u16(length).await?;
            }
            Err(_) => panic!("a longer frame than the gate has to send"),
        }
        to.write_all(&payload).await?;
        to.flush().await?;
    }
}

/// A WebSocket that repeats an earlier answer for the present request.
fn play(world: Arc<World>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    tokio::spawn(async move {
        let Ok(client) = hyper::upgrade::on(&mut request).await else { return };
        let mut client = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
        while let Some(Ok(message)) = client.next().await {
            let Message::Text(text) = message else { continue };
            let asked: Value = serde_json::from_str(&text).unwrap();
            let reply = world.between.lock().unwrap().recorded(asked["action"].as_str().unwrap_or_default());
            let Some(mut reply) = reply else { return };
            (reply["requestId"], reply["room"]) = (asked["requestId"].clone(), asked["requestId"].clone());
            if client.send(Message::text(reply.to_string())).await.is_err() {
                return;
            }
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "upgrade");
    let response = response.header("upgrade", "websocket").header("sec-websocket-accept", accept);
    response.body(Full::default()).unwrap()
}
