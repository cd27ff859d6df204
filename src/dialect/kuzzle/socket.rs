//! The protocol over a WebSocket (RFC 6455): each message is a JSON object with a `requestId`, and replies may come in
//! any order.
//!
//! The gate answers the `auth` actions. It authorises every other message on its own, and forwards it without its token
//! over an upstream connection that belongs to its caller alone: state that the upstream ties to a connection (such as
//! subscriptions) never belongs to another caller. Upstream messages pass unchanged.
//!
//! Bounds: a message has at most 16 KiB until the connection has presented a valid token, and 1 MiB afterwards, and
//! must be complete within ten seconds; 4 MiB may wait in either direction; one connection has four identities at once,
//! and a fifth closes the oldest. The gate disconnects a client that does not read, or is silent for a minute, or has
//! no valid token for a minute, unless the route requires no token. Each waiting byte counts as buffered.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::super::EnclosedCall;
use super::super::socket::{SocketGate, SocketIdentity};
use super::MALFORMED;
use super::message::{self, Action, Message};
use super::perform::{self, ActionResult};
use super::raw;
use super::words::{self, Problem};
use rotogate_core::credential::{Found, Scheme};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::linger::linger;
use rotogate_core::reason::Reason;

mod accept;
mod inflow;
mod upstream;

pub(super) use accept::accept;
use inflow::Inflow;
use upstream::{Caller, Upstream, UpstreamEvent, relayed};

/// The longest message, in either direction.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// How many identities one connection may use at once.
const MAX_IDENTITIES: usize = 4;
/// How many messages may wait for an upstream, and how many bytes these messages may have together.
const MAX_WAITING_MESSAGES: usize = 64;
const MAX_WAITING_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
/// How many upstream messages may wait for the client; beyond that the gate stops reading from the upstream
/// (back-pressure).
const MAX_UNREAD_MESSAGES: usize = 4;
/// How often the tokens of a connection are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A client that is silent for this long is gone: the SDKs ping every two seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may stay without a valid token.
const ANONYMOUS_TIMEOUT: Duration = Duration::from_secs(60);
/// The size of a read; the library has a buffer of this size for each connection.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How long a client may take to accept sent data.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A byte stream.
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

/// The token of a connection, for messages without one.
struct LinkedToken {
    token: SecretString,
    by_cookie: bool,
    /// The token's lease, or why the token has no lease: the token was bad when it arrived, or a fault left the check
    /// undecided.
    lease: Result<Lease, Denial>,
}

impl LinkedToken {
    fn new(gate: &dyn SocketGate, token: SecretString, by_cookie: bool) -> Self {
        let lease = gate.lease(token.expose_secret());
        Self { token, by_cookie, lease }
    }

    /// Is the token not good? An undecided token is checked again (requirement R15).
    fn is_dead(&mut self, gate: &dyn SocketGate) -> bool {
        if self.lease.as_ref().is_err_and(Denial::is_undecided) {
            self.lease = gate.lease(self.token.expose_secret());
        }
        match &self.lease {
            Ok(lease) => lease.check().is_err(),
            Err(denial) => !denial.is_undecided(),
        }
    }
}

struct Session<S> {
    client: WebSocketStream<Inflow<S>>,
    /// The beginning of the endpoint's paths.
    prefix: String,
    gate: Arc<dyn SocketGate>,
    linked: Option<LinkedToken>,
    upstreams: Vec<Upstream>,
    next: u64,
    said: mpsc::Sender<UpstreamEvent>,
    /// Since when the connection has had no valid token.
    anonymous: Option<Instant>,
    /// Whether new rules are in force that have not judged the connection yet.
    is_unjudged: bool,
}

/// Why a connection ends.
enum CloseReason {
    /// The gate closes the connection. The code is never 1000: the SDKs would not reconnect.
    With(CloseCode),
    /// The client closed the connection, and expects a reply.
    ByClient,
    /// The connection broke.
    Broken,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    client: Upgraded,
    gate: Arc<dyn SocketGate>,
    linked: Option<(SecretString, bool)>,
    prefix: String,
) {
    serve_on(TokioIo::new(client), gate, linked, prefix).await;
}

async fn serve_on<S: Stream>(
    client: S,
    gate: Arc<dyn SocketGate>,
    linked: Option<(SecretString, bool)>,
    prefix: String,
) {
    let (said, mut hears) = mpsc::channel(MAX_UNREAD_MESSAGES);
    let client = socket(Inflow::new(client, Arc::clone(&gate)), Role::Server).await;
    let linked = linked.map(|(token, by_cookie)| LinkedToken::new(&*gate, token, by_cookie));
    let mut session = Session {
        client,
        prefix,
        gate,
        linked,
        upstreams: Vec::new(),
        next: 0,
        said,
        anonymous: None,
        is_unjudged: false,
    };
    let Err(ended) = session.run(&mut hears).await;
    // The upstreams are dropped, so that their messages no longer wait for the client.
    session.upstreams.clear();
    let mut client = session.client;
    let close = async {
        match ended {
            CloseReason::With(code) => client.close(Some(CloseFrame { code, reason: "".into() })).await,
            // The library has prepared the reply to the client's Close frame.
            CloseReason::ByClient => SinkExt::close(&mut client).await,
            CloseReason::Broken => Err(tokio_tungstenite::tungstenite::Error::ConnectionClosed),
        }
    };
    if let Ok(Ok(())) = tokio::time::timeout(WRITE_TIMEOUT, close).await {
        linger(client.get_mut()).await;
    }
}

impl<S: Stream> Session<S> {
    async fn run(
        &mut self,
        hears: &mut mpsc::Receiver<UpstreamEvent>,
    ) -> Result<std::convert::Infallible, CloseReason> {
        let mut look = tokio::time::interval(CHECK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet = Duration::ZERO;
        let gate = Arc::clone(&self.gate);
        self.know(self.linked.as_ref().and_then(|linked| linked.lease.as_ref().ok()))?;
        let mut closing = std::pin::pin!(gate.closing());
        loop {
            tokio::select! {
                () = closing.as_mut() => return Err(CloseReason::With(CloseCode::Away)),
                frame = self.client.next() => {
                    quiet = Duration::ZERO;
                    match frame {
                        Some(Ok(Frame::Text(text))) => self.hear(text.as_bytes()).await?,
                        Some(Ok(Frame::Binary(bytes))) => self.hear(&bytes).await?,
                        // The library itself answers Ping and Close frames.
                        Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                        Some(Ok(Frame::Close(_))) => return Err(CloseReason::ByClient),
                        None => return Err(CloseReason::Broken),
                        Some(Err(error)) => {
                            let code = self.client.get_ref().ended().or_else(|| code_of(&error));
                            return Err(code.map_or(CloseReason::Broken, CloseReason::With));
                        }
                    }
                }
                said = hears.recv() => match said {
                    Some(UpstreamEvent::Text(number, text, _room)) if self.knows(number) => self.send(relayed(text)).await?,
                    // The pending calls are lost: the client must reconnect.
                    Some(UpstreamEvent::Gone(number)) if self.knows(number) => return Err(CloseReason::With(CloseCode::Restart)),
                    Some(UpstreamEvent::Text(..) | UpstreamEvent::Gone(_)) => {}
                    None => return Err(CloseReason::With(CloseCode::Error)),
                },
                _ = look.tick() => {
                    quiet += CHECK_INTERVAL;
                    if quiet > IDLE_TIMEOUT {
                        return Err(CloseReason::With(CloseCode::Away));
                    }
                    if self.client.get_ref().is_late() {
                        return Err(CloseReason::With(CloseCode::Policy));
                    }
                    self.look().await?;
                }
            }
        }
    }

    /// Applies the wider bounds, counted for the caller, once a good token was presented.
    fn know(&self, lease: Option<&Lease>) -> Result<(), CloseReason> {
        let Some(caller) = lease.and_then(Lease::holder) else { return Ok(()) };
        self.gate.place().know(caller).map_err(|_| CloseReason::With(CloseCode::Again))
    }

    fn knows(&self, number: u64) -> bool {
        self.upstreams.iter().any(|upstream| upstream.number == number)
    }

    async fn send(&mut self, text: String) -> Result<(), CloseReason> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.client.send(Frame::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CloseReason::Broken),
        }
    }

    /// Closes the upstream connections of tokens that are no longer good, and notifies the client.
    async fn look(&mut self) -> Result<(), CloseReason> {
        // The SDK reconnects, and opens its subscriptions again.
        if self.upstreams.iter().filter_map(|upstream| upstream.caller.as_ref()).any(|caller| caller.lease.is_over()) {
            return Err(CloseReason::With(CloseCode::Restart));
        }
        if self.upstreams.iter().any(Upstream::is_refused) {
            return Err(CloseReason::With(CloseCode::Restart));
        }
        self.is_unjudged |= self.gate.has_new_rules();
        if self.is_unjudged {
            match self.judge() {
                Ok(()) => self.is_unjudged = false,
                // The lease is judged again later (requirement R15).
                Err(denial) if denial.is_undecided() => {}
                Err(_) => return Err(CloseReason::With(CloseCode::Restart)),
            }
        }
        let is_dead = |lease: &Lease| lease.check().is_err();
        let before = self.upstreams.len();
        self.upstreams.retain(|upstream| !upstream.caller.as_ref().is_some_and(|caller| is_dead(&caller.lease)));
        let is_unlinked = self.linked.as_mut().is_some_and(|linked| linked.is_dead(&*self.gate));
        if is_unlinked {
            self.linked = None;
        }
        let is_somebody = self.linked.is_some() || self.upstreams.iter().any(|upstream| upstream.caller.is_some());
        self.anonymous = (!is_somebody).then(|| self.anonymous.unwrap_or_else(Instant::now));
        // On a route that requires no token, the connection needs no token either.
        if self.anonymous.is_some_and(|since| since.elapsed() > ANONYMOUS_TIMEOUT)
            && self.gate.permit(None, &nothing()).is_err()
        {
            return Err(CloseReason::With(CloseCode::Policy));
        }
        // A client that logged in on another connection has no linked token on this one, and must still be notified.
        if is_unlinked || self.upstreams.len() < before {
            self.send(words::token_expired()).await?;
        }
        Ok(())
    }

    /// Judges the connection and its upstream connections by the rules in force. Messages from the upstream pass
    /// without a call that could be judged.
    ///
    /// # Errors
    /// Why the connection must end. An undecided denial counts only if no other denial applies.
    fn judge(&self) -> Result<(), Denial> {
        if !self.gate.is_served() {
            return Err(Denial::NoRoute);
        }
        let mut undecided = Ok(());
        for upstream in &self.upstreams {
            let token = upstream.caller.as_ref().map(|caller| caller.token.expose_secret());
            match self.gate.permit(token, &nothing()) {
                Ok(_) => {}
                Err(denial) if denial.is_undecided() => undecided = Err(denial),
                Err(denial) => return Err(denial),
            }
        }
        undecided
    }

    /// Answers one message, or forwards it.
    async fn hear(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let (mut asked, _) = Message::of_head(&HeaderMap::new());
        match asked.of_envelope(bytes) {
            Ok(false) => {}
            Ok(true) => return self.send(r#"{"p":2}"#.to_owned()).await,
            Err(problem) => return self.refuse(&asked, problem, MALFORMED).await,
        }
        match (asked.ours(), &asked.controller, &asked.action) {
            (Some(action), _, _) => self.execute(&asked, action).await,
            (None, None, _) => self.refuse(&asked, Problem::missing_argument("controller"), MALFORMED).await,
            (None, Some(_), None) => self.refuse(&asked, Problem::missing_argument("action"), MALFORMED).await,
            (None, Some(_), Some(_)) => self.pass(asked, bytes).await,
        }
    }

    async fn refuse(&mut self, asked: &Message, problem: Problem, reason: Reason) -> Result<(), CloseReason> {
        reason.tell();
        self.send(words::frame(asked, Err(problem))).await
    }

    async fn execute(&mut self, asked: &Message, action: Action) -> Result<(), CloseReason> {
        let found = match (&asked.jwt, &self.linked) {
            (Some(token), _) => Some((token.clone(), false)),
            (None, Some(linked)) => Some((linked.token.clone(), linked.by_cookie)),
            (None, None) => None,
        };
        // A WebSocket message cannot set a cookie; the SDK then logs in over HTTP.
        let by_cookie = asked.flag("cookieAuth") || found.as_ref().is_some_and(|(_, by_cookie)| *by_cookie);
        let makes_tokens = match action {
            Action::Login => asked.flag("cookieAuth"),
            Action::RefreshToken => by_cookie,
            Action::Logout
            | Action::CheckToken
            | Action::GetCurrentUser
            | Action::GetStrategies
            | Action::PublicApi => false,
        };
        if makes_tokens {
            return self.refuse(asked, Problem::cookie_unsupported(), MALFORMED).await;
        }
        let credential = found.as_ref().map(|(token, by_cookie)| Found {
            token: token.expose_secret().into(),
            scheme: Scheme::Bearer,
            by_cookie: *by_cookie,
        });
        let ActionResult { came, reason, .. } =
            perform::perform(asked, action, Ok(credential), "/", self.gate.as_ref()).await;
        if let Ok(result) = &came {
            self.link(action, found.as_ref().map(|(token, _)| token), result)?;
        }
        reason.tell();
        self.send(words::frame(asked, came)).await
    }

    /// Links the token of a login to the connection. An exchange moves the link, a logout removes it.
    fn link(&mut self, action: Action, old: Option<&SecretString>, result: &Value) -> Result<(), CloseReason> {
        let is_old = |token: &SecretString| old.is_some_and(|old| old.expose_secret() == token.expose_secret());
        let new = || result.get("jwt").and_then(Value::as_str).map(|jwt| SecretString::from(jwt.to_owned()));
        match action {
            // The upstream connections of the old token depend on its session, which continues.
            Action::Login | Action::RefreshToken => {
                self.linked = new().map(|token| LinkedToken::new(&*self.gate, token, false));
                self.know(self.linked.as_ref().and_then(|linked| linked.lease.as_ref().ok()))?;
            }
            Action::Logout => {
                self.upstreams.retain(|upstream| !upstream.caller.as_ref().is_some_and(|caller| is_old(&caller.token)));
                if self.linked.as_ref().is_some_and(|linked| is_old(&linked.token)) {
                    self.linked = None;
                }
            }
            Action::CheckToken | Action::GetCurrentUser | Action::GetStrategies | Action::PublicApi => {}
        }
        Ok(())
    }

    async fn pass(&mut self, mut asked: Message, bytes: &[u8]) -> Result<(), CloseReason> {
        let token = asked.jwt.take().or_else(|| self.linked.as_ref().map(|linked| linked.token.clone()));
        let token_text = token.as_ref().map(|token| token.expose_secret());
        let called = match asked.called(&self.prefix) {
            Ok(called) => called,
            Err(problem) => return self.refuse(&asked, problem, MALFORMED).await,
        };
        let identity = match self.gate.admit(token_text, &called).await {
            Ok(identity) => identity,
            Err(denial) => {
                if matches!(denial, Denial::TokenExpired | Denial::TokenRevoked) {
                    self.look().await?;
                }
                let problem = Problem::of_denial(denial, &asked);
                return self.refuse(&asked, problem, denial.into()).await;
            }
        };
        if let (Some(token), false) = (token_text, self.gate.place().is_known()) {
            self.know(self.gate.lease(token).ok().as_ref())?;
        }
        // The `room` of the reply is the id of the request; a client that sent no id gets a new one.
        let set = Some(("requestId", asked.request_id.as_str()));
        let text = raw::rewrite(bytes, message::JWT, set).unwrap_or_default();
        let room = match self.gate.place().buffer(text.len()) {
            Ok(room) => room,
            Err(refusal) => {
                let problem = Problem::unexpected(StatusCode::SERVICE_UNAVAILABLE, refusal.why());
                return self.refuse(&asked, problem, Reason::shed(refusal)).await;
            }
        };
        let told = match self.upstream(identity, token, &called).await {
            Ok(Some(upstream)) => upstream.take(text, room),
            Ok(None) => false,
            Err(denial) => {
                let problem = Problem::of_denial(denial, &asked);
                return self.refuse(&asked, problem, denial.into()).await;
            }
        };
        match told {
            true => Ok(()),
            // A restart makes the client reconnect to the routes and upstreams in force.
            false if self.gate.are_rules_replaced() => Err(CloseReason::With(CloseCode::Restart)),
            false => self.refuse(&asked, Problem::unreachable(), Reason::NOT_FORWARDED).await,
        }
    }

    /// The upstream connection of an identity, which is opened if it does not exist yet; `None` if it cannot be opened.
    async fn upstream(
        &mut self,
        identity: SocketIdentity,
        token: Option<SecretString>,
        called: &EnclosedCall,
    ) -> Result<Option<&mut Upstream>, Denial> {
        if let Some(index) = self.upstreams.iter().position(|upstream| upstream.identity == identity) {
            let Some(upstream) = self.upstreams.get_mut(index) else { return Ok(None) };
            if let Some(token) = token {
                upstream.go_on(&*self.gate, token)?;
            }
            return Ok(Some(upstream));
        }
        let caller = token.map(|token| Caller::new(&*self.gate, token)).transpose()?;
        let Some(dialled) = self.gate.dial(caller.as_ref().map(|caller| caller.token.expose_secret()), called).await
        else {
            return Ok(None);
        };
        if self.upstreams.len() >= MAX_IDENTITIES {
            self.upstreams.remove(0);
        }
        let number = self.next;
        self.next += 1;
        self.upstreams.push(Upstream::open(
            number,
            identity,
            caller,
            dialled,
            self.said.clone(),
            Arc::clone(&self.gate),
        ));
        Ok(self.upstreams.last_mut())
    }
}

/// An empty call, for a check without a message.
fn nothing() -> EnclosedCall {
    EnclosedCall { name: String::new(), requests: Vec::new() }
}

fn code_of(error: &tokio_tungstenite::tungstenite::Error) -> Option<CloseCode> {
    use tokio_tungstenite::tungstenite::Error as Broken;
    match error {
        Broken::Capacity(_) => Some(CloseCode::Size),
        Broken::Protocol(_) => Some(CloseCode::Protocol),
        Broken::Utf8(_) => Some(CloseCode::Invalid),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
