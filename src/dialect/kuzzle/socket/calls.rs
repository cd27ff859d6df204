//! The calls of a client. Only one call is in progress at a time, so that the calls keep their order. Pings get a reply
//! even during a call, because the SDKs otherwise disconnect after two seconds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::super::EnclosedCall;
use super::super::super::socket::SocketIdentity;
use super::super::message::{self, Action, Message};
use super::super::perform::{self, ActionResult};
use super::super::words::{self, Problem};
use super::super::{MALFORMED, raw, relayed};
use super::tokens::LinkedToken;
use super::upstream::{Caller, Upstream};
use super::{CloseReason, MAX_IDENTITIES, MAX_MESSAGE_BYTES, MAX_WAITING_BYTES, MAX_WAITING_MESSAGES, Session, Stream};
use rotogate_core::credential::{Found, Scheme};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::overload::PoolPermit;
use rotogate_core::reason::Reason;
use rotogate_core::session::SessionId;

const PONG: &str = r#"{"p":2}"#;
/// The maximum length of a message that may be a ping, in bytes. Clients send `{"p":1}`.
const MAX_PING_BYTES: usize = 64;

#[derive(Default)]
pub(super) struct Calls {
    step: Option<Step>,
    room: Option<PoolPermit>,
    waiting: VecDeque<(Bytes, Option<PoolPermit>)>,
    bytes: usize,
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) enum Done {
    Performed(PerformedAction),
    /// The server behind the relay must execute the call.
    NotOurs(Message, Bytes),
    Admitted(ForwardedCall, Result<SocketIdentity, Denial>),
    Dialled(ForwardedCall, SocketIdentity, Option<Caller>, Outgoing, Option<Upgraded>),
}

pub(super) struct PerformedAction {
    asked: Message,
    action: Action,
    old: (Option<SecretString>, Option<SessionId>),
    result: ActionResult,
}

pub(super) struct ForwardedCall {
    asked: Message,
    bytes: Bytes,
    token: Option<SecretString>,
    called: EnclosedCall,
}

type Outgoing = (String, PoolPermit);

impl Calls {
    /// Returns whether another message may be read. Without room, the gate stops reading from the client
    /// (back-pressure).
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING_MESSAGES && self.bytes <= MAX_WAITING_BYTES - MAX_MESSAGE_BYTES
    }

    pub(super) fn is_idle(&self) -> bool {
        self.step.is_none() && self.waiting.is_empty()
    }

    pub(super) async fn done(&mut self) -> Done {
        let Some(step) = &mut self.step else { return std::future::pending().await };
        let done = step.await;
        self.step = None;
        done
    }

    fn push(&mut self, bytes: Bytes, room: Option<PoolPermit>) {
        self.bytes += bytes.len();
        self.waiting.push_back((bytes, room));
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (bytes, room) = self.waiting.pop_front()?;
        self.bytes -= bytes.len();
        self.room = room;
        Some(bytes)
    }
}

impl<S: Stream> Session<S> {
    /// A ping gets its reply at once.
    pub(super) async fn hear(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        let room = self.client.get_mut().hand_over_room();
        let is_ping = || matches!(Message::of_head(&HeaderMap::new()).0.of_envelope(&bytes), Ok(true));
        if !self.calls.is_idle() && bytes.len() <= MAX_PING_BYTES && is_ping() {
            return self.send(PONG.to_owned()).await;
        }
        self.calls.push(bytes, room);
        self.advance().await
    }

    pub(super) async fn go_on(&mut self, done: Done) -> Result<(), CloseReason> {
        self.calls.step = match done {
            Done::Performed(performed) => self.performed(performed).await?,
            Done::NotOurs(asked, bytes) => self.pass(asked, bytes).await?,
            Done::Admitted(call, Ok(identity)) => self.admitted(call, identity).await?,
            Done::Admitted(call, Err(denial)) => {
                if matches!(denial, Denial::TokenExpired | Denial::TokenRevoked) {
                    self.look().await?;
                }
                self.deny(&call.asked, denial).await?
            }
            Done::Dialled(call, identity, caller, outgoing, dialled) => {
                let upstream = dialled.and_then(|dialled| self.open(identity, caller, dialled));
                let is_taken = upstream.is_some_and(|upstream| upstream.take(outgoing));
                self.taken(&call.asked, is_taken).await?
            }
        };
        self.advance().await
    }

    async fn advance(&mut self) -> Result<(), CloseReason> {
        while self.calls.step.is_none() {
            self.calls.room = None;
            let Some(bytes) = self.calls.pop() else { break };
            self.calls.step = self.begin(bytes).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, bytes: Bytes) -> Result<Option<Step>, CloseReason> {
        let (mut asked, _) = Message::of_head(&HeaderMap::new());
        match asked.of_envelope(&bytes) {
            Ok(false) => {}
            Ok(true) => return self.send(PONG.to_owned()).await.map(|()| None),
            Err(problem) => return self.refuse(&asked, problem, MALFORMED).await,
        }
        let ours = asked.ours().filter(|action| self.kuzzle.executes(*action));
        match (ours, &asked.controller, &asked.action) {
            (Some(action), _, _) => self.execute(asked, action, bytes).await,
            (None, None, _) => self.refuse(&asked, Problem::missing_argument("controller"), MALFORMED).await,
            (None, Some(_), None) => self.refuse(&asked, Problem::missing_argument("action"), MALFORMED).await,
            (None, Some(_), Some(_)) => self.pass(asked, bytes).await,
        }
    }

    async fn refuse(&mut self, asked: &Message, problem: Problem, reason: Reason) -> Result<Option<Step>, CloseReason> {
        reason.tell();
        self.send(words::frame(asked, &Err(problem))).await.map(|()| None)
    }

    async fn deny(&mut self, asked: &Message, denial: Denial) -> Result<Option<Step>, CloseReason> {
        self.refuse(asked, Problem::of_denial(denial, asked), denial.into()).await
    }

    async fn execute(&mut self, asked: Message, action: Action, bytes: Bytes) -> Result<Option<Step>, CloseReason> {
        let found = match (&asked.jwt, &self.linked) {
            (Some(token), _) => Some((token.clone(), false)),
            (None, Some(linked)) => Some((linked.token.clone(), linked.by_cookie)),
            (None, None) => None,
        };
        // A WebSocket message cannot set a cookie, so the SDK logs in over HTTP if it uses the cookie.
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
            return self.refuse(&asked, Problem::cookie_unsupported(), MALFORMED).await;
        }
        let gate = Arc::clone(&self.gate);
        // The session is looked up now, because the token does not have a lease after the logout.
        let ending = found.as_ref().filter(|_| action == Action::Logout);
        let session = ending.and_then(|(token, _)| gate.lease(token.expose_secret(), true).ok()?.session());
        // The token may come from the URL of the request that opened the connection.
        let by_query = asked.jwt.is_none();
        let is_relay = self.kuzzle.relay;
        Ok(Some(Box::pin(async move {
            let credential = found.as_ref().map(|(token, by_cookie)| Found {
                token: token.expose_secret().into(),
                scheme: Scheme::Bearer,
                by_cookie: *by_cookie,
                by_query,
            });
            let result = if is_relay {
                let result = relayed::perform(&asked, action, Ok(credential), gate.as_ref()).await;
                let Some(result) = result else { return Done::NotOurs(asked, bytes) };
                let new = result.came.as_ref().ok().and_then(|came| came.get("jwt")?.as_str());
                if let (Action::RefreshToken, Some(new)) = (action, new) {
                    gate.learn(new).await;
                }
                result
            } else {
                perform::perform(&asked, action, Ok(credential), "/", gate.as_ref()).await
            };
            let old = (found.map(|(token, _)| token), session);
            Done::Performed(PerformedAction { asked, action, old, result })
        })))
    }

    async fn performed(&mut self, performed: PerformedAction) -> Result<Option<Step>, CloseReason> {
        let PerformedAction { asked, action, old, result: ActionResult { came, reason, .. } } = performed;
        if let Ok(result) = &came {
            self.link(action, &old, result)?;
        }
        reason.tell();
        self.send(words::frame(&asked, &came)).await.map(|()| None)
    }

    /// Links the token of a login or refresh to the connection. A logout removes the link.
    fn link(
        &mut self,
        action: Action,
        (old, session): &(Option<SecretString>, Option<SessionId>),
        result: &Value,
    ) -> Result<(), CloseReason> {
        match action {
            Action::RefreshToken if self.kuzzle.relay => {
                // The server has moved the subscriptions to the new token.
                let (Some(old), Some(new)) = (old, result.get("jwt").and_then(Value::as_str)) else { return Ok(()) };
                let is_old = |caller: &Caller| caller.token.expose_secret() == old.expose_secret();
                for upstream in &mut self.upstreams {
                    if upstream.caller.as_ref().is_some_and(is_old) {
                        // If the new token cannot be checked now, the old lease soon ends the connection.
                        let _ = upstream.go_on(&*self.gate, SecretString::from(new.to_owned()), false);
                    }
                }
            }
            Action::Login | Action::RefreshToken => {
                let new = result.get("jwt").and_then(Value::as_str).map(|jwt| SecretString::from(jwt.to_owned()));
                self.linked = new.map(|token| LinkedToken::issued(&*self.gate, token));
                let linked = self.linked.as_ref().and_then(|linked| Some((linked, linked.lease.as_ref().ok()?)));
                let Some((linked, lease)) = linked else { return Ok(()) };
                self.know(Some(lease))?;
                if action == Action::RefreshToken {
                    // The session's upstream connections continue with the new token. If a fault prevents the check of
                    // the new token, the lease of the old token stays valid.
                    let is_of_session = |caller: &Caller| caller.lease.session() == lease.session();
                    for upstream in &mut self.upstreams {
                        if lease.session().is_some() && upstream.caller.as_ref().is_some_and(is_of_session) {
                            let _ = upstream.go_on(&*self.gate, linked.token.clone(), false);
                        }
                    }
                }
            }
            Action::Logout => {
                let is_old =
                    |token: &SecretString| old.as_ref().is_some_and(|old| old.expose_secret() == token.expose_secret());
                let is_ended = |token: &SecretString, lease: Option<&Lease>| {
                    is_old(token) || session.is_some() && lease.and_then(Lease::session) == *session
                };
                let is_callers = |caller: &Caller| is_ended(&caller.token, Some(&caller.lease));
                self.drop_upstreams(|upstream| upstream.caller.as_ref().is_some_and(is_callers));
                self.linked.take_if(|linked| is_ended(&linked.token, linked.lease.as_ref().ok()));
            }
            Action::CheckToken | Action::GetCurrentUser | Action::GetStrategies | Action::PublicApi => {}
        }
        Ok(())
    }

    async fn pass(&mut self, mut asked: Message, bytes: Bytes) -> Result<Option<Step>, CloseReason> {
        let token = asked.jwt.take().or_else(|| self.linked.as_ref().map(|linked| linked.token.clone()));
        // The server does not need a token for a login, and must not refuse one because of an old token.
        let token = token.filter(|_| !(self.kuzzle.relay && asked.ours() == Some(Action::Login)));
        let called = match asked.called(&self.prefix) {
            Ok(called) => called,
            Err(problem) => return self.refuse(&asked, problem, MALFORMED).await,
        };
        let (gate, call) = (Arc::clone(&self.gate), ForwardedCall { asked, bytes, token, called });
        Ok(Some(Box::pin(async move {
            let token = call.token.as_ref().map(ExposeSecret::expose_secret);
            let admitted = gate.admit(token, &call.called).await;
            Done::Admitted(call, admitted)
        })))
    }

    /// Forwards a call over the caller's upstream connection, or opens that connection as the next step.
    async fn admitted(&mut self, call: ForwardedCall, identity: SocketIdentity) -> Result<Option<Step>, CloseReason> {
        if let (Some(token), false) = (&call.token, self.gate.place().is_known()) {
            self.know(self.gate.lease(token.expose_secret(), true).ok().as_ref())?;
        }
        // The SDK uses `room`, the request's id, to match a reply to its request. A request without an id gets a new
        // id.
        let set = Some(("requestId", call.asked.request_id.as_str()));
        let text = match &call.token {
            // The server needs the token, also that of the opening request.
            Some(token) if self.kuzzle.relay => raw::rewrite(&call.bytes, "", set)
                .and_then(|text| raw::rewrite(text.as_bytes(), "", Some((message::JWT, token.expose_secret())))),
            _ => raw::rewrite(&call.bytes, message::JWT, set),
        };
        let text = text.unwrap_or_default();
        let outgoing = match self.gate.place().buffer(text.len()) {
            Ok(room) => (text, room),
            Err(refusal) => {
                let problem = Problem::unexpected(StatusCode::SERVICE_UNAVAILABLE, refusal.why());
                return self.refuse(&call.asked, problem, Reason::shed(refusal)).await;
            }
        };
        let gate = Arc::clone(&self.gate);
        if let Some(upstream) = self.upstreams.iter_mut().find(|upstream| upstream.identity == identity) {
            let token = call.token.as_ref();
            return match token.map_or(Ok(()), |token| upstream.go_on(&*gate, token.clone(), true)) {
                Ok(()) => {
                    let is_taken = upstream.take(outgoing);
                    self.taken(&call.asked, is_taken).await
                }
                Err(denial) => self.deny(&call.asked, denial).await,
            };
        }
        let caller = match call.token.clone().map(|token| Caller::new(&*gate, token, true)).transpose() {
            Ok(caller) => caller,
            Err(denial) => return self.deny(&call.asked, denial).await,
        };
        Ok(Some(Box::pin(async move {
            let token = caller.as_ref().map(|caller| caller.token.expose_secret());
            let dialled = gate.dial(token, &call.called).await;
            Done::Dialled(call, identity, caller, outgoing, dialled)
        })))
    }

    fn open(&mut self, identity: SocketIdentity, caller: Option<Caller>, dialled: Upgraded) -> Option<&mut Upstream> {
        if self.upstreams.len() >= MAX_IDENTITIES {
            let place = self.upstreams.iter().position(|upstream| upstream.pending == 0).unwrap_or_default();
            self.has_lost_calls |= self.upstreams.remove(place).pending > 0;
        }
        let gate = Arc::clone(&self.gate);
        self.upstreams.push(Upstream::open(identity, caller, dialled, gate));
        self.upstreams.last_mut()
    }

    async fn taken(&mut self, asked: &Message, is_taken: bool) -> Result<Option<Step>, CloseReason> {
        match is_taken {
            true => Ok(None),
            // A restart makes the client reconnect under the current routes and upstreams.
            false if self.gate.are_rules_replaced() => Err(CloseReason::With(CloseCode::Restart)),
            false => self.refuse(asked, Problem::unreachable(), Reason::NOT_FORWARDED).await,
        }
    }
}
