//! The protocol over a WebSocket (RFC 6455). Each message is a JSON object with a `requestId`. Replies may arrive in
//! any order.
//!
//! The gate executes the `auth` actions. It authorises every other message, removes its token, and forwards the message
//! over an upstream connection that only this caller uses. Upstream state, such as subscriptions, therefore never
//! reaches another caller. Messages from the upstream pass unchanged.
//!
//! Bounds:
//!
//! - A message has at most 32 KiB, or 1 MiB once the connection has presented a valid token. It must be complete within
//!   ten seconds.
//! - At most 4 MiB may be queued in each direction. Queued bytes count as buffered.
//! - A connection has at most four identities. A fifth one closes the oldest, or the oldest without pending calls.
//! - The gate disconnects a client that stops reading, or does not answer a ping after a minute of silence.
//! - If the route requires a token, the gate disconnects a client after a minute without a valid token.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame};

use super::super::socket::SocketGate;
use super::Kuzzle;
use rotogate_core::lease::Lease;
use rotogate_core::linger::linger;

mod accept;
mod calls;
mod inflow;
mod tokens;
mod upstream;

pub(super) use accept::accept;
use calls::Calls;
use inflow::Inflow;
use tokens::LinkedToken;
use upstream::{Upstream, heard};

/// The maximum length of a message in either direction, in bytes.
const MAX_MESSAGE_BYTES: usize = rotogate_core::bounds::MAX_MESSAGE;
const MAX_IDENTITIES: usize = 4;
/// These limits apply to messages in an upstream's queue, and to messages that wait for the current call.
const MAX_WAITING_MESSAGES: usize = 64;
const MAX_WAITING_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
/// The gate stops reading from an upstream when this many of its messages wait for the client (back-pressure).
const MAX_UNREAD_MESSAGES: usize = 4;
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A silent client or upstream is considered gone, because both must answer pings.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// After this silence the gate sends a ping (RFC 6455 §5.5.2), because load balancers close silent connections, often
/// after a minute. The SDK for the JVM does not send pings.
const PING_AFTER: Duration = Duration::from_secs(25);
const ANONYMOUS_TIMEOUT: Duration = Duration::from_secs(60);
/// The WebSocket library allocates a buffer of this size for each connection.
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn socket<S: Stream>(stream: S, role: Role) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_write_buffer_size(MAX_WAITING_BYTES);
    WebSocketStream::from_raw_socket(stream, role, Some(config)).await
}

struct Session<S> {
    client: WebSocketStream<Inflow<S>>,
    prefix: String,
    kuzzle: Kuzzle,
    gate: Arc<dyn SocketGate>,
    calls: Calls,
    /// If set, the gate does not read from the client any more. Earlier calls are still executed, but their replies are
    /// not sent.
    ended: Option<CloseReason>,
    linked: Option<LinkedToken>,
    upstreams: Vec<Upstream>,
    /// Whether an upstream connection was closed before it replied to all calls.
    has_lost_calls: bool,
    turn: usize,
    anonymous: Option<Instant>,
    is_unjudged: bool,
}

enum CloseReason {
    /// The code is never 1000, because the SDKs do not reconnect after it.
    With(CloseCode),
    /// The client expects a reply to its Close frame.
    ByClient,
    Broken,
}

pub(super) async fn serve(
    client: Upgraded,
    gate: Arc<dyn SocketGate>,
    linked: Option<(SecretString, bool)>,
    served: (String, Kuzzle),
) {
    serve_on(TokioIo::new(client), gate, linked, served).await;
}

async fn serve_on<S: Stream>(
    client: S,
    gate: Arc<dyn SocketGate>,
    linked: Option<(SecretString, bool)>,
    (prefix, kuzzle): (String, Kuzzle),
) {
    let client = socket(Inflow::new(client, Arc::clone(&gate)), Role::Server).await;
    let linked = linked.map(|(token, by_cookie)| LinkedToken::new(&*gate, token, by_cookie));
    let mut session = Session {
        client,
        prefix,
        kuzzle,
        gate,
        calls: Calls::default(),
        ended: None,
        linked,
        upstreams: Vec::new(),
        has_lost_calls: false,
        turn: 0,
        anonymous: None,
        is_unjudged: false,
    };
    let Err(ended) = session.run().await;
    // The upstream connections end at once, even if the client is slow to close.
    session.upstreams.clear();
    let mut client = session.client;
    let close = async {
        match ended {
            CloseReason::With(code) => client.close(Some(CloseFrame { code, reason: "".into() })).await,
            // The library has already prepared the reply to the client's Close frame.
            CloseReason::ByClient => SinkExt::close(&mut client).await,
            CloseReason::Broken => Err(WsError::ConnectionClosed),
        }
    };
    if let Ok(Ok(())) = tokio::time::timeout(WRITE_TIMEOUT, close).await {
        linger(client.get_mut()).await;
    }
}

impl<S: Stream> Session<S> {
    async fn run(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        let mut look = tokio::time::interval(CHECK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet = Duration::ZERO;
        let gate = Arc::clone(&self.gate);
        self.know(self.linked.as_ref().and_then(|linked| linked.lease.as_ref().ok()))?;
        let mut closing = std::pin::pin!(gate.closing());
        loop {
            if self.has_lost_calls && self.calls.is_idle() {
                // The client must reconnect, because it waits for replies that will not come.
                return Err(CloseReason::With(CloseCode::Restart));
            }
            if self.calls.is_idle()
                && let Some(ended) = self.ended.take()
            {
                return Err(ended);
            }
            let reads = self.ended.is_none() && !self.has_lost_calls && self.calls.has_room();
            tokio::select! {
                () = closing.as_mut() => return Err(CloseReason::With(CloseCode::Away)),
                frame = self.client.next(), if reads => {
                    quiet = Duration::ZERO;
                    match self.message_of(frame) {
                        Ok(Some(message)) => self.hear(message).await?,
                        Ok(None) => {}
                        Err(ended) => self.ended = Some(ended),
                    }
                }
                done = self.calls.done() => self.go_on(done).await?,
                said = heard(&mut self.upstreams, &mut self.turn) => match said {
                    Some((text, _room)) => self.send(text).await?,
                    // The pending calls are lost, so the client must reconnect.
                    None => return Err(CloseReason::With(CloseCode::Restart)),
                },
                _ = look.tick() => {
                    quiet += CHECK_INTERVAL;
                    if !reads {
                        quiet = Duration::ZERO;
                        self.client.get_mut().pause();
                    }
                    if quiet > IDLE_TIMEOUT {
                        return Err(CloseReason::With(CloseCode::Away));
                    }
                    if quiet == PING_AFTER {
                        self.write(Frame::Ping(Bytes::new())).await?;
                    }
                    if self.client.get_ref().is_late() {
                        return Err(CloseReason::With(CloseCode::Policy));
                    }
                    self.look().await?;
                }
            }
        }
    }

    fn message_of(&self, frame: Option<Result<Frame, WsError>>) -> Result<Option<Bytes>, CloseReason> {
        match frame {
            Some(Ok(Frame::Text(text))) => Ok(Some(text.into())),
            Some(Ok(Frame::Binary(bytes))) => Ok(Some(bytes)),
            // The library responds to Ping and Close frames itself.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => Ok(None),
            Some(Ok(Frame::Close(_))) => Err(CloseReason::ByClient),
            None => Err(CloseReason::Broken),
            Some(Err(error)) => {
                let code = self.client.get_ref().ended().or_else(|| code_of(&error));
                Err(code.map_or(CloseReason::Broken, CloseReason::With))
            }
        }
    }

    /// Gives a connection with a valid token the larger limits. The connection's memory then counts towards the token's
    /// holder.
    fn know(&self, lease: Option<&Lease>) -> Result<(), CloseReason> {
        let Some(caller) = lease.and_then(Lease::holder) else { return Ok(()) };
        self.gate.place().know(caller).map_err(|_| CloseReason::With(CloseCode::Again))
    }

    async fn send(&mut self, text: String) -> Result<(), CloseReason> {
        self.write(Frame::text(text)).await
    }

    async fn write(&mut self, frame: Frame) -> Result<(), CloseReason> {
        if self.ended.is_some() {
            return Ok(());
        }
        match tokio::time::timeout(WRITE_TIMEOUT, self.client.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CloseReason::Broken),
        }
    }
}

fn code_of(error: &WsError) -> Option<CloseCode> {
    match error {
        WsError::Capacity(_) => Some(CloseCode::Size),
        WsError::Protocol(_) => Some(CloseCode::Protocol),
        WsError::Utf8(_) => Some(CloseCode::Invalid),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
