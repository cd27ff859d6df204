//! The bounds of a connection, on a clock that a test moves.

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::super::{Acting, Command, Outcome};
use super::*;
use crate::denial::Error;

/// Knows nobody.
struct Nobody;

#[async_trait]
impl Acting for Nobody {
    async fn act(&self, _: Command) -> Result<Outcome, Error> {
        Err(Denial::NoCredential.into())
    }
}

#[async_trait]
impl SocketGate for Nobody {
    fn permit(&self, _: Option<&str>, _: &Called) -> Result<Identity, Denial> {
        Err(Denial::NoCredential)
    }

    fn lease(&self, _: &str) -> Result<Lease, Denial> {
        Err(Denial::TokenExpired)
    }

    async fn closing(&self) {
        std::future::pending::<()>().await;
    }

    async fn dial(&self, _: Option<&str>, _: &Called) -> Option<Upgraded> {
        None
    }
}

async fn client(linked: Option<(SecretString, bool)>) -> (WebSocketStream<DuplexStream>, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(serve_on(far, Arc::new(Nobody), linked, String::new()));
    (WebSocketStream::from_raw_socket(near, Role::Client, None).await, serving)
}

async fn next(client: &mut WebSocketStream<DuplexStream>) -> Frame {
    client.next().await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_silence_ends_a_connection_and_a_ping_does_not() {
    let (mut client, serving) = client(None).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(45)).await;
        client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
        assert_eq!(next(&mut client).await, Frame::text(r#"{"p":2}"#));
    }
    let start = Instant::now();
    let Frame::Close(Some(close)) = next(&mut client).await else { panic!("something else came") };
    assert_eq!(close.code, CloseCode::Away);
    assert!(start.elapsed() >= IDLE && start.elapsed() < 2 * IDLE, "{:?}", start.elapsed());
    drop(client);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a8_a_client_that_does_not_read_is_closed_and_keeps_nothing_waiting() {
    let (mut client, serving) = client(None).await;
    let start = Instant::now();
    let ask = r#"{"controller":"auth","action":"getStrategies"}"#;
    let mut asked = 0_usize;
    // It asks for as long as anybody takes it.
    while client.send(Frame::text(ask)).await.is_ok() {
        asked += 1;
        assert!(asked < 10_000, "all of it was taken, and waits somewhere");
    }
    serving.await.unwrap();
    assert!(start.elapsed() < 3 * PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_opened_with_a_dead_token_is_told_so_and_stays() {
    let (mut client, _serving) = client(Some((SecretString::from("dead"), true))).await;
    let Frame::Text(told) = next(&mut client).await else { panic!("something else came") };
    assert_eq!(told.as_str(), words::token_expired());
    client.send(Frame::text(r#"{"p":1}"#)).await.unwrap();
    assert_eq!(next(&mut client).await, Frame::text(r#"{"p":2}"#));
}
