//! The bounds of a connection, on a clock that a test moves.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::super::super::socket::SocketIdentity;
use super::super::super::{Command, CommandHandler, EnclosedCall, Outcome};
use super::super::words;
use super::*;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::overload::{Bounds, Overload, SocketPermit};

/// A gate that knows no token, and may admit anonymous calls.
struct Nobody {
    lets_in: bool,
    place: SocketPermit,
    /// Whether the rules in force are others than those of the beginning, and still have the endpoint.
    replaced: Option<bool>,
    /// How many commands may end. `None` for all.
    ready: Option<tokio::sync::Semaphore>,
    /// The commands that have ended.
    executed: AtomicUsize,
}

impl Nobody {
    fn new(lets_in: bool) -> Arc<Self> {
        Self::under_rules(lets_in, None)
    }

    fn under_rules(lets_in: bool, replaced: Option<bool>) -> Arc<Self> {
        let place = SocketPermit::new(&Overload::new(&Bounds::default()), None).unwrap();
        Arc::new(Self { lets_in, place, replaced, ready: None, executed: AtomicUsize::new(0) })
    }

    /// A gate whose commands end when the test says so.
    fn slow() -> Arc<Self> {
        let ready = Some(tokio::sync::Semaphore::new(0));
        Arc::new(Self { ready, ..Arc::into_inner(Self::new(true)).unwrap() })
    }

    fn end_commands(&self, number: usize) {
        self.ready.as_ref().unwrap().add_permits(number);
    }
}

#[async_trait]
impl CommandHandler for Nobody {
    async fn execute(&self, _: Command) -> Result<Outcome, Error> {
        if let Some(ready) = &self.ready {
            ready.acquire().await.unwrap().forget();
        }
        self.executed.fetch_add(1, Ordering::Relaxed);
        Err(Denial::NoCredential.into())
    }
}

#[async_trait]
impl SocketGate for Nobody {
    fn judge(&self, _: Option<&Lease>) -> Result<(), Denial> {
        if self.lets_in { Ok(()) } else { Err(Denial::NoCredential) }
    }

    async fn admit(&self, _: Option<&str>, _: &EnclosedCall) -> Result<SocketIdentity, Denial> {
        self.judge(None).map(|()| SocketIdentity::default())
    }

    fn lease(&self, _: &str, _: bool) -> Result<Lease, Denial> {
        Err(Denial::TokenExpired)
    }

    fn place(&self) -> &SocketPermit {
        &self.place
    }

    async fn closing(&self) {
        std::future::pending::<()>().await;
    }

    fn are_rules_replaced(&self) -> bool {
        self.replaced.is_some()
    }

    fn has_new_rules(&self) -> bool {
        self.replaced.is_some()
    }

    fn is_served(&self) -> bool {
        self.replaced.unwrap_or(true)
    }

    async fn dial(&self, _: Option<&str>, _: &EnclosedCall) -> Option<Upgraded> {
        None
    }
}

async fn client(linked: Option<(SecretString, bool)>) -> (WebSocketStream<DuplexStream>, JoinHandle<()>) {
    client_of(Nobody::new(true), linked).await
}

async fn client_of(
    gate: Arc<Nobody>,
    linked: Option<(SecretString, bool)>,
) -> (WebSocketStream<DuplexStream>, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(serve_on(far, gate, linked, (String::new(), Kuzzle::default())));
    (WebSocketStream::from_raw_socket(near, Role::Client, None).await, serving)
}

/// The next frame but pings, which the library answers.
async fn next(client: &mut WebSocketStream<DuplexStream>) -> Frame {
    loop {
        match client.next().await.unwrap().unwrap() {
            Frame::Ping(_) => {}
            frame => return frame,
        }
    }
}

async fn answer(client: &mut WebSocketStream<DuplexStream>) -> Value {
    let Frame::Text(text) = next(client).await else { panic!("something else came") };
    serde_json::from_str(&text).unwrap()
}

/// The code of the close frame, from a connection whose client answers no ping.
async fn closed_for_silence(mut stream: DuplexStream) -> (u16, Duration) {
    let start = Instant::now();
    let mut bytes = [0; 4];
    loop {
        stream.read_exact(&mut bytes[..2]).await.unwrap();
        match bytes {
            [0x89, 0, ..] => {}
            [0x88, 2, ..] => break,
            _ => panic!("{bytes:?}"),
        }
    }
    stream.read_exact(&mut bytes[..2]).await.unwrap();
    (u16::from_be_bytes([bytes[0], bytes[1]]), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_silence_ends_a_connection_and_a_ping_does_not() {
    let (mut client, serving) = client(None).await;
    // A client that only listens answers pings.
    let listens = tokio::time::timeout(5 * IDLE_TIMEOUT, next(&mut client));
    assert!(listens.await.is_err(), "something came");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(45)).await;
        client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
        assert_eq!(next(&mut client).await, Frame::text(r#"{"p":2}"#));
    }
    let (code, silence) = closed_for_silence(client.into_inner()).await;
    assert_eq!(code, u16::from(CloseCode::Away));
    assert!(silence >= IDLE_TIMEOUT && silence < 2 * IDLE_TIMEOUT, "{silence:?}");
    serving.await.unwrap();
}

const LOGIN: &str = r#"{"controller":"auth","action":"login","strategy":"local","requestId":"login","body":{"username":"a","password":"b"}}"#;
const STRATEGIES: &str = r#"{"controller":"auth","action":"getStrategies","requestId":"strategies"}"#;

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_time_stops_neither_pings_nor_checks_and_later_calls_wait_for_it() {
    let gate = Nobody::slow();
    let (mut client, _serving) = client_of(Arc::clone(&gate), Some((SecretString::from("dead"), false))).await;
    client.send(Frame::text(LOGIN)).await.unwrap();
    // The check of the tokens.
    assert_eq!(answer(&mut client).await["type"], "TokenExpired");
    client.send(Frame::text(STRATEGIES)).await.unwrap();
    client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
    assert_eq!(next(&mut client).await, Frame::text(r#"{"p":2}"#));
    client.send(Frame::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(next(&mut client).await, Frame::Pong(Bytes::from_static(b"x")));
    assert_eq!(gate.executed.load(Ordering::Relaxed), 0);
    gate.end_commands(1);
    for id in ["login", "strategies"] {
        assert_eq!(answer(&mut client).await["requestId"], id);
    }
}

#[tokio::test(start_paused = true)]
async fn a11_a_bounded_number_of_calls_waits_and_a_client_beyond_it_is_not_read_and_not_cut() {
    let gate = Nobody::slow();
    let (mut client, _serving) = client_of(Arc::clone(&gate), None).await;
    client.send(Frame::text(LOGIN)).await.unwrap();
    for _ in 0..MAX_WAITING_MESSAGES {
        client.send(Frame::text(STRATEGIES)).await.unwrap();
    }
    client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
    let more = tokio::time::timeout(3 * IDLE_TIMEOUT, next(&mut client));
    assert!(more.await.is_err(), "the ping was read");
    gate.end_commands(1);
    assert_eq!(answer(&mut client).await["requestId"], "login");
    let mut pongs = 0;
    for _ in 0..=MAX_WAITING_MESSAGES {
        let answer = answer(&mut client).await;
        pongs += usize::from(answer["p"] == 2);
        assert!(answer["p"] == 2 || answer["requestId"] == "strategies", "{answer}");
    }
    assert_eq!(pongs, 1);
}

#[tokio::test(start_paused = true)]
async fn the_calls_before_the_end_of_a_client_are_carried_out() {
    let gate = Nobody::slow();
    let (mut client, serving) = client_of(Arc::clone(&gate), None).await;
    for _ in 0..3 {
        client.send(Frame::text(LOGIN)).await.unwrap();
    }
    client.send(Frame::Close(None)).await.unwrap();
    // The gate reads the close frame before the first call ends.
    assert!(tokio::time::timeout(PING_AFTER, next(&mut client)).await.is_err());
    gate.end_commands(3);
    assert_eq!(next(&mut client).await, Frame::Close(None));
    drop(client);
    serving.await.unwrap();
    assert_eq!(gate.executed.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn t34_other_rules_end_a_connection_only_if_they_lack_its_endpoint() {
    for (replaced, code) in [(Some(false), CloseCode::Restart), (Some(true), CloseCode::Away), (None, CloseCode::Away)]
    {
        let (client, serving) = client_of(Nobody::under_rules(true, replaced), None).await;
        assert_eq!(closed_for_silence(client.into_inner()).await.0, u16::from(code), "{replaced:?}");
        serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a8_a_client_that_does_not_read_is_closed_and_keeps_nothing_waiting() {
    let (mut client, serving) = client(None).await;
    let start = Instant::now();
    let ask = r#"{"controller":"auth","action":"getStrategies"}"#;
    let mut asked = 0_usize;
    // The client asks while the gate accepts frames.
    while client.send(Frame::text(ask)).await.is_ok() {
        asked += 1;
        assert!(asked < 10_000, "all of it was taken, and waits somewhere");
    }
    serving.await.unwrap();
    assert!(start.elapsed() < 3 * WRITE_TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_opened_with_a_dead_token_is_told_so_and_stays() {
    let (mut client, _serving) = client(Some((SecretString::from("dead"), true))).await;
    let Frame::Text(told) = next(&mut client).await else { panic!("something else came") };
    assert_eq!(told.as_str(), words::token_expired());
    client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
    assert_eq!(next(&mut client).await, Frame::text(r#"{"p":2}"#));
}

#[tokio::test(start_paused = true)]
async fn a11_nobody_known_stays_a_minute_where_a_token_is_asked_for() {
    let (mut client, serving) = client_of(Nobody::new(false), None).await;
    let start = Instant::now();
    let ended = loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _ = client.send(Frame::text(r#"{"p":1}"#)).await;
        match next(&mut client).await {
            Frame::Text(_) => {}
            other => break other,
        }
    };
    let Frame::Close(Some(close)) = ended else { panic!("{ended:?}") };
    assert_eq!(close.code, CloseCode::Policy);
    assert!(start.elapsed() >= ANONYMOUS_TIMEOUT && start.elapsed() < 2 * ANONYMOUS_TIMEOUT, "{:?}", start.elapsed());
    drop(client);
    serving.await.unwrap();
}

/// Frames as a client sends them, without the library's help.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&[first, 0x80 | 126][..], &length, &[0; 4]].concat();
    [&head, payload].concat()
}

const BEGIN: u8 = 0x01;
const PING: u8 = 0x89;

async fn raw() -> (DuplexStream, JoinHandle<()>, Arc<Nobody>) {
    let gate = Nobody::new(true);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving =
        tokio::spawn(serve_on(far, Arc::clone(&gate) as Arc<dyn SocketGate>, None, (String::new(), Kuzzle::default())));
    (near, serving, gate)
}

/// The code of the close frame, after all pongs were read.
async fn closed(stream: &mut DuplexStream) -> u16 {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut all)).await;
    let close = all.windows(2).rposition(|two| two[0] == 0x88).expect("no close frame");
    u16::from_be_bytes([all[close + 2], all[close + 3]])
}

#[tokio::test(start_paused = true)]
async fn a11_a_message_is_whole_in_its_time_whatever_pings_and_fragments_come() {
    let (mut client, serving, gate) = raw().await;
    let start = Instant::now();
    client.write_all(&frame(BEGIN, b"{")).await.unwrap();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(9) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = if sent % 2 == 0 { frame(PING, b"x") } else { frame(0x00, b" ") };
        client.write_all(&more).await.unwrap();
        sent += 1;
    }
    assert!(!serving.is_finished());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(closed(&mut client).await, 1008);
    drop(client);
    serving.await.unwrap();
    assert_eq!(Arc::strong_count(&gate), 1);
}

#[tokio::test(start_paused = true)]
async fn a11_of_nobody_known_fragments_together_are_small() {
    let (mut client, _serving, _gate) = raw().await;
    client.write_all(&frame(BEGIN, &[b' '; 20_000])).await.unwrap();
    client.write_all(&frame(PING, b"x")).await.unwrap();
    // The header of the frame gives its length: the gate closes before the payload arrives.
    client.write_all(&frame(0x00, &[b' '; 20_000])[..8]).await.unwrap();
    assert_eq!(closed(&mut client).await, 1009);
}
