//! The upstream side: a connection for each identity, and the messages on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::super::socket::{SocketGate, SocketIdentity};
use super::super::raw;
use super::{IDLE_TIMEOUT, MAX_WAITING_BYTES, MAX_WAITING_MESSAGES, PING_AFTER, WRITE_TIMEOUT, socket};
use rotogate_core::denial::Denial;
use rotogate_core::lease::{Lease, StreamEnd};
use rotogate_core::overload::PoolPermit;

/// A connection to the upstream.
pub(super) struct Upstream {
    pub(super) number: u64,
    pub(super) identity: SocketIdentity,
    pub(super) caller: Option<Caller>,
    to: mpsc::Sender<(String, PoolPermit)>,
    /// The bytes in `to`.
    waiting: Arc<AtomicUsize>,
    /// The check of the decision points of the connection's route, which are asked again.
    ended: Option<StreamEnd>,
}

impl Upstream {
    pub(super) fn open(
        number: u64,
        identity: SocketIdentity,
        caller: Option<Caller>,
        (stream, ended): (Upgraded, Option<StreamEnd>),
        said: mpsc::Sender<UpstreamEvent>,
        gate: Arc<dyn SocketGate>,
    ) -> Self {
        let (to, from) = mpsc::channel(MAX_WAITING_MESSAGES);
        let waiting = Arc::new(AtomicUsize::new(0));
        tokio::spawn(carry(number, stream, from, Arc::clone(&waiting), said, gate));
        Self { number, identity, caller, to, waiting, ended }
    }

    /// Has a decision point refused the connection since it was opened?
    // Requirement K30.
    pub(super) fn is_refused(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended().is_some())
    }

    /// Continues with another token of the same identity. A token of an earlier generation changes nothing.
    pub(super) fn go_on(&mut self, gate: &dyn SocketGate, token: SecretString) -> Result<(), Denial> {
        let known = self.caller.as_ref();
        if known.is_some_and(|known| known.token.expose_secret() == token.expose_secret()) {
            return Ok(());
        }
        let caller = Caller::new(gate, token)?;
        if known.is_none_or(|known| caller.lease.supersedes(&known.lease)) {
            self.caller = Some(caller);
        }
        Ok(())
    }

    /// Queues a message with its permit, if the queue has room.
    pub(super) fn take(&self, (text, room): (String, PoolPermit)) -> bool {
        let length = text.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        let taken = before + length <= MAX_WAITING_BYTES && self.to.try_send((text, room)).is_ok();
        if !taken {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        taken
    }
}

/// The caller that opened or continued an upstream connection.
pub(super) struct Caller {
    pub(super) token: SecretString,
    pub(super) lease: Lease,
}

impl Caller {
    pub(super) fn new(gate: &dyn SocketGate, token: SecretString) -> Result<Self, Denial> {
        let lease = gate.lease(token.expose_secret())?;
        Ok(Self { token, lease })
    }
}

/// A message from the upstream, or the end of its connection.
pub(super) enum UpstreamEvent {
    /// A message with its permit.
    Text(u64, String, PoolPermit),
    Gone(u64),
}

/// Carries messages to one upstream and back, until either side ends, or the upstream is silent and answers no ping.
async fn carry(
    number: u64,
    stream: Upgraded,
    mut from: mpsc::Receiver<(String, PoolPermit)>,
    waiting: Arc<AtomicUsize>,
    said: mpsc::Sender<UpstreamEvent>,
    gate: Arc<dyn SocketGate>,
) {
    let mut upstream = socket(TokioIo::new(stream), Role::Client).await;
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval_at(heard + PING_AFTER, PING_AFTER);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ping.tick() => {
                let sent = tokio::time::timeout(WRITE_TIMEOUT, upstream.send(Frame::Ping(Bytes::new())));
                if heard.elapsed() > IDLE_TIMEOUT || !matches!(sent.await, Ok(Ok(()))) {
                    break;
                }
            }
            text = from.recv() => {
                let Some((text, _room)) = text else { break };
                let length = text.len();
                if !matches!(tokio::time::timeout(WRITE_TIMEOUT, upstream.send(Frame::text(text))).await, Ok(Ok(()))) {
                    break;
                }
                waiting.fetch_sub(length, Ordering::Relaxed);
            }
            frame = upstream.next() => {
                match frame {
                    Some(Ok(Frame::Text(text))) => {
                        let Ok(room) = gate.place().buffer(text.len()) else { break };
                        if said.send(UpstreamEvent::Text(number, text.as_str().to_owned(), room)).await.is_err() {
                            break;
                        }
                    }
                    Some(Ok(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => break,
                }
                // The time after a wait for the client, during which the gate did not read.
                heard = Instant::now();
            }
        }
    }
    let _ = tokio::time::timeout(WRITE_TIMEOUT, upstream.close(None)).await;
    let _ = said.send(UpstreamEvent::Gone(number)).await;
}

/// A reply for the SDK, which finds its caller by `room`.
pub(super) fn relayed(text: String) -> String {
    let Ok(RelayedMessage { room: None, kind: None, id: Some(id) }) = serde_json::from_str(&text) else { return text };
    raw::rewrite(text.as_bytes(), "", Some(("room", &id))).unwrap_or(text)
}

/// The members of an upstream message that the gate reads.
#[derive(Deserialize)]
struct RelayedMessage {
    room: Option<IgnoredAny>,
    #[serde(rename = "type")]
    kind: Option<IgnoredAny>,
    #[serde(rename = "requestId")]
    id: Option<String>,
}
