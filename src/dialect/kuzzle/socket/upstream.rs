//! The upstream side: one connection for each identity.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

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
use super::{
    IDLE_TIMEOUT, MAX_UNREAD_MESSAGES, MAX_WAITING_BYTES, MAX_WAITING_MESSAGES, PING_AFTER, Session, WRITE_TIMEOUT,
    socket,
};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::overload::PoolPermit;

pub(super) struct Upstream {
    pub(super) identity: SocketIdentity,
    pub(super) caller: Option<Caller>,
    to: mpsc::Sender<(String, PoolPermit)>,
    waiting: Arc<AtomicUsize>,
    /// Each connection has its own queue, so that one slow connection does not delay the others.
    said: mpsc::Receiver<UpstreamEvent>,
    /// While the caller's token cannot be checked, the messages wait.
    pub(super) is_undecided: bool,
    /// The number of calls without a reply.
    pub(super) pending: usize,
}

impl Upstream {
    pub(super) fn open(
        identity: SocketIdentity,
        caller: Option<Caller>,
        stream: Upgraded,
        gate: Arc<dyn SocketGate>,
    ) -> Self {
        let (to, from) = mpsc::channel(MAX_WAITING_MESSAGES);
        let (says, said) = mpsc::channel(MAX_UNREAD_MESSAGES);
        let waiting = Arc::new(AtomicUsize::new(0));
        tokio::spawn(carry(stream, from, Arc::clone(&waiting), says, gate));
        Self { identity, caller, to, waiting, said, is_undecided: false, pending: 0 }
    }

    /// Continues the connection with a newer token of the same identity. Ignores an older token.
    pub(super) fn go_on(
        &mut self,
        gate: &dyn SocketGate,
        token: SecretString,
        is_presented: bool,
    ) -> Result<(), Denial> {
        let known = self.caller.as_ref();
        let is_known = |known: &Caller| {
            known.token.expose_secret() == token.expose_secret() && (known.is_presented || !is_presented)
        };
        if known.is_some_and(is_known) {
            return Ok(());
        }
        let caller = Caller::new(gate, token, is_presented)?;
        if known.is_none_or(|known| caller.lease.supersedes(&known.lease)) {
            self.caller = Some(caller);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, (text, room): (String, PoolPermit)) -> bool {
        let length = text.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        let taken = before + length <= MAX_WAITING_BYTES && self.to.try_send((text, room)).is_ok();
        if taken {
            self.pending += 1;
        } else {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        taken
    }

    /// Adds `room` to a reply. The SDK uses this member to match the reply to its request.
    fn relayed(&mut self, text: String) -> String {
        // A notification has a type.
        let Ok(RelayedMessage { room, kind: None, id: Some(id) }) = serde_json::from_str(&text) else { return text };
        self.pending = self.pending.saturating_sub(1);
        if room.is_some() {
            return text;
        }
        raw::rewrite(text.as_bytes(), "", Some(("room", &id))).unwrap_or(text)
    }
}

pub(super) struct Caller {
    pub(super) token: SecretString,
    pub(super) lease: Lease,
    /// Whether the client sent the token, which shows that the token is in use.
    is_presented: bool,
}

impl Caller {
    pub(super) fn new(gate: &dyn SocketGate, token: SecretString, is_presented: bool) -> Result<Self, Denial> {
        let lease = gate.lease(token.expose_secret(), is_presented)?;
        Ok(Self { token, lease, is_presented })
    }
}

impl<S> Session<S> {
    /// Closes the connections for which `is_over` returns true. Returns whether there was one.
    pub(super) fn drop_upstreams(&mut self, mut is_over: impl FnMut(&mut Upstream) -> bool) -> bool {
        let (before, has_lost_calls) = (self.upstreams.len(), &mut self.has_lost_calls);
        self.upstreams.retain_mut(|upstream| {
            let is_over = is_over(upstream);
            *has_lost_calls |= is_over && upstream.pending > 0;
            !is_over
        });
        self.upstreams.len() < before
    }
}

pub(super) type UpstreamEvent = (String, PoolPermit);

/// Returns the next message of an upstream, in round-robin order. Returns `None` if an upstream has closed its
/// connection.
pub(super) async fn heard(upstreams: &mut [Upstream], turn: &mut usize) -> Option<UpstreamEvent> {
    poll_fn(|cx| {
        let first = *turn % upstreams.len().max(1);
        let (before, from_first) = upstreams.split_at_mut(first);
        let in_turn = from_first.iter_mut().zip(first..).chain(before.iter_mut().zip(0..));
        for (upstream, place) in in_turn.filter(|(upstream, _)| !upstream.is_undecided) {
            if let Poll::Ready(said) = upstream.said.poll_recv(cx) {
                *turn = place + 1;
                return Poll::Ready(said.map(|(text, room)| (upstream.relayed(text), room)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Carries messages until either side closes the connection, or the upstream does not answer pings.
async fn carry(
    stream: Upgraded,
    mut from: mpsc::Receiver<(String, PoolPermit)>,
    waiting: Arc<AtomicUsize>,
    says: mpsc::Sender<UpstreamEvent>,
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
                        if says.send((text.as_str().to_owned(), room)).await.is_err() {
                            break;
                        }
                    }
                    Some(Ok(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => break,
                }
                // The time in which the gate waited for the client does not count as silence.
                heard = Instant::now();
            }
        }
    }
    let _ = tokio::time::timeout(WRITE_TIMEOUT, upstream.close(None)).await;
}

#[derive(Deserialize)]
struct RelayedMessage {
    room: Option<IgnoredAny>,
    #[serde(rename = "type")]
    kind: Option<IgnoredAny>,
    #[serde(rename = "requestId")]
    id: Option<String>,
}
