//! Clients that record their requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request as HttpRequest, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{KEY_LIFETIME, Moment, Operation, Pair, Reply, Request};
use crate::{Answer, Tokens, keep_secret, try_send};

/// The gates' origin, as a browser sends it.
const ORIGIN: &str = "https://gate.test";
/// After this time, a client gives up and retries at any gate.
const PATIENCE: Duration = Duration::from_secs(8);

/// A protocol, from the view of its clients.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Logs `demo` in. `None` if the response has no tokens.
    async fn log_in(&self, at: At, password: &str) -> Option<Tokens>;

    async fn refresh(&self, at: At, held: &Tokens) -> Refreshed;

    /// Ends the session. Returns whether the gate acknowledged this, or `None` if the outcome is unknown.
    async fn log_out(&self, at: At, held: &Tokens) -> Option<bool>;
}

/// A response to a refresh.
pub enum Refreshed {
    Issued(Tokens),
    Refused,
    InDoubt,
}

/// OAuth 2, with revocations by RFC 7009.
pub struct OAuth2;

#[async_trait]
impl Wire for OAuth2 {
    async fn log_in(&self, at: At, password: &str) -> Option<Tokens> {
        let fields = [("grant_type", "password"), ("username", "demo"), ("password", password)];
        form(at, "token", &fields).await.filter(|answer| answer.status == StatusCode::OK).map(|answer| answer.tokens())
    }

    async fn refresh(&self, at: At, held: &Tokens) -> Refreshed {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", held.refresh.as_str())];
        match form(at, "token", &fields).await {
            Some(answer) if answer.status == StatusCode::OK => Refreshed::Issued(answer.tokens()),
            Some(answer) if answer.status == StatusCode::BAD_REQUEST && answer.error() == "invalid_grant" => {
                Refreshed::Refused
            }
            other => is_unknown(other.as_ref()),
        }
    }

    async fn log_out(&self, at: At, held: &Tokens) -> Option<bool> {
        let answer = form(at, "revocation", &[("token", held.refresh.as_str())]).await;
        is_acknowledged(answer.as_ref())
    }
}

/// Panics unless the response is missing or a valid 503.
pub fn is_unknown(answer: Option<&Answer>) -> Refreshed {
    in_doubt(answer);
    Refreshed::InDoubt
}

/// Returns whether a logout succeeded. Panics unless it did, or the response is missing or a valid 503.
pub fn is_acknowledged(answer: Option<&Answer>) -> Option<bool> {
    if answer.is_some_and(|answer| answer.status == StatusCode::OK) {
        return Some(true);
    }
    in_doubt(answer);
    None
}

/// Records the operations of clients of several gates. All gates accept the same password.
pub struct Recorder {
    began: Instant,
    wire: Arc<dyn Wire>,
    password: String,
    operator: String,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    operations: Vec<Operation>,
    pairs: HashMap<(String, String), Pair>,
    sessions: usize,
}

/// A client's credentials. A browser's access token is the cookie. Machines use the API key as the access token, and
/// the id of the key as the refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub session: usize,
    pub pair: Pair,
    pub tokens: Tokens,
}

impl Held {
    /// Returns whether this is a browser session, which has no refresh token.
    pub fn is_of_browser(&self) -> bool {
        self.tokens.refresh.is_empty()
    }
}

/// A gate, with its present address.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub gate: usize,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Recorder {
    pub fn new(password: &str) -> Self {
        let (began, wire) = (Instant::now(), Arc::new(OAuth2));
        Self { began, wire, password: password.to_owned(), operator: String::new(), notes: Mutex::default() }
    }

    /// A recorder of clients with another protocol, with the same clock.
    pub fn beside(&self, wire: Arc<dyn Wire>) -> Self {
        let (password, operator) = (self.password.clone(), self.operator.clone());
        Self { began: self.began, wire, password, operator, notes: Mutex::default() }
    }

    pub fn with_operator(self, token: &str) -> Self {
        Self { operator: token.to_owned(), ..self }
    }

    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    pub fn history(&self) -> Vec<Operation> {
        self.notes.lock().unwrap().operations.clone()
    }

    /// Logs in. `None` if the response has no tokens.
    pub async fn log_in(&self, at: At) -> Option<Held> {
        let begin = self.now();
        let tokens = self.wire.log_in(at, &self.password).await?;
        Some(self.begun(at, begin, tokens))
    }

    /// Logs in like a browser. `None` if the response has no cookie.
    pub async fn log_in_browser(&self, at: At) -> Option<Held> {
        let begin = self.now();
        let body = json!({ "username": "demo", "password": self.password }).to_string();
        let request = browser(at, "POST", "/auth/login").header("content-type", "application/json");
        let answer = send(request.body(Full::from(body)).unwrap()).await?;
        if answer.status != StatusCode::OK {
            return None;
        }
        let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Some(self.begun(at, begin, Tokens { access: cookie, refresh: String::new() }))
    }

    fn begun(&self, at: At, begin: Moment, tokens: Tokens) -> Held {
        self.started(at, (begin, self.now()), Request::LogIn, tokens)
    }

    fn started(&self, at: At, when: (Moment, Moment), request: Request, tokens: Tokens) -> Held {
        let session = {
            let mut notes = self.notes.lock().unwrap();
            notes.sessions += 1;
            notes.sessions - 1
        };
        let held = self.held(session, tokens);
        self.note_until(session, at, when, request, Reply::Issued(held.pair));
        held
    }

    /// Makes an API key. `None` if the response has no key.
    pub async fn make_key(&self, at: At) -> Option<Held> {
        let begin = self.now();
        let body =
            json!({ "name": "of a history", "user": "demo", "lifetime": format!("{}s", KEY_LIFETIME.as_secs()) });
        let tokens = key_in(&self.operate(at, "", &body).await?)?;
        Some(self.started(at, (begin, self.now()), Request::MakeKey, tokens))
    }

    /// Replaces a key, which stays valid for `overlap`. Returns the new key.
    pub async fn replace_key(&self, at: At, key: &Held, overlap: Duration) -> Option<Held> {
        let begin = self.now();
        let path = format!("/{}/rotate", key.tokens.refresh);
        let answer = self.operate(at, &path, &json!({ "overlap": format!("{}s", overlap.as_secs()) })).await;
        let when = (begin, self.now());
        let made = answer.as_ref().and_then(key_in).map(|tokens| self.started(at, when, Request::MakeKey, tokens));
        // A refusal because of the owner's key limit says nothing about this key.
        let is_over = |answer: &Answer| String::from_utf8_lossy(&answer.body).contains("replaced already");
        let reply = match (&made, &answer) {
            (Some(made), _) => Reply::Issued(made.pair),
            (None, Some(answer)) if is_over(answer) => Reply::Refused,
            (None, _) => Reply::InDoubt,
        };
        self.note_until(key.session, at, when, Request::ReplaceKey(key.pair, overlap), reply);
        made
    }

    pub async fn revoke_key(&self, at: At, key: &Held) -> Reply {
        let begin = self.now();
        let answer = self.operate(at, &format!("/{}/revoke", key.tokens.refresh), &json!({})).await;
        let is_done = answer.is_some_and(|answer| answer.status == StatusCode::OK);
        let reply = if is_done { Reply::Accepted } else { Reply::InDoubt };
        self.note(key.session, at, begin, Request::RevokeKey(key.pair), reply);
        reply
    }

    pub async fn use_key(&self, at: At, key: &Held) -> Reply {
        let begin = self.now();
        let request = HttpRequest::get(format!("http://{}/hello", at.address)).header("x-api-key", &key.tokens.access);
        let reply = accepted(send(request.body(Full::default()).unwrap()).await.as_ref());
        self.note(key.session, at, begin, Request::UseKey(key.pair), reply);
        reply
    }

    async fn operate(&self, at: At, path: &str, body: &serde_json::Value) -> Option<Answer> {
        let request = HttpRequest::post(format!("http://{}/v1/api-keys{path}", at.admin))
            .header("authorization", format!("Bearer {}", self.operator))
            .header("content-type", "application/json");
        send(request.body(Full::from(body.to_string())).unwrap()).await
    }

    /// Presents the refresh token. Returns the new tokens, and the outcome.
    pub async fn refresh(&self, at: At, held: &Held) -> (Option<Held>, Reply) {
        let begin = self.now();
        let (issued, reply) = match self.wire.refresh(at, &held.tokens).await {
            Refreshed::Issued(tokens) => {
                let issued = self.held(held.session, tokens);
                let reply = Reply::Issued(issued.pair);
                (Some(issued), reply)
            }
            Refreshed::Refused => (None, Reply::Refused),
            Refreshed::InDoubt => (None, Reply::InDoubt),
        };
        self.note(held.session, at, begin, Request::Refresh(held.pair), reply);
        (issued, reply)
    }

    /// Presents the refresh token, and loses the response.
    pub async fn refresh_and_lose(&self, at: At, held: &Held) {
        let begin = self.now();
        drop(self.wire.refresh(at, &held.tokens).await);
        self.note(held.session, at, begin, Request::Refresh(held.pair), Reply::InDoubt);
    }

    /// Ends the session.
    pub async fn log_out(&self, at: At, held: &Held) -> Reply {
        let begin = self.now();
        let acknowledged = if held.is_of_browser() {
            let request = browser(at, "POST", "/auth/logout").header("cookie", &held.tokens.access);
            is_acknowledged(send(request.body(Full::default()).unwrap()).await.as_ref())
        } else {
            self.wire.log_out(at, &held.tokens).await
        };
        let reply = match acknowledged {
            Some(true) => Reply::Accepted,
            Some(false) => Reply::Refused,
            None => Reply::InDoubt,
        };
        self.note(held.session, at, begin, Request::LogOut(held.pair), reply);
        reply
    }

    /// Looks whether the store knows that this pair, which is the session's latest, was used.
    pub async fn is_confirmed(&self, at: At, held: &Held) -> bool {
        let begin = self.now();
        let payload = held.tokens.access.split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let request = HttpRequest::get(format!("http://{}/v1/sessions/{}", at.admin, claims["sid"].as_str().unwrap()))
            .header("authorization", format!("Bearer {}", self.operator));
        let answer = send(request.body(Full::default()).unwrap()).await;
        let Some(answer) = answer.filter(|answer| answer.status == StatusCode::OK) else { return false };
        let session = answer.json();
        if session["generation"] != claims["gen"] || session["confirmed"] != true {
            return false;
        }
        self.note(held.session, at, begin, Request::Confirmed(held.pair), Reply::Accepted);
        true
    }

    pub async fn access(&self, at: At, held: &Held) -> Reply {
        let begin = self.now();
        let request = if held.is_of_browser() {
            browser(at, "GET", "/hello").header("cookie", &held.tokens.access)
        } else {
            HttpRequest::get(format!("http://{}/hello", at.address))
                .header("authorization", format!("Bearer {}", held.tokens.access))
        };
        let reply = accepted(send(request.body(Full::default()).unwrap()).await.as_ref());
        self.note(held.session, at, begin, Request::Access(held.pair), reply);
        reply
    }

    fn held(&self, session: usize, tokens: Tokens) -> Held {
        let pairs = &mut self.notes.lock().unwrap().pairs;
        let next = pairs.len();
        let pair = *pairs.entry((tokens.access.clone(), tokens.refresh.clone())).or_insert(next);
        Held { session, pair, tokens }
    }

    fn note(&self, session: usize, at: At, begin: Moment, request: Request, reply: Reply) {
        self.note_until(session, at, (begin, self.now()), request, reply);
    }

    fn note_until(&self, session: usize, at: At, (begin, end): (Moment, Moment), request: Request, reply: Reply) {
        let operation = Operation { session, gate: at.gate, begin, end, request, reply };
        self.notes.lock().unwrap().operations.push(operation);
    }
}

fn accepted(answer: Option<&Answer>) -> Reply {
    match answer {
        Some(answer) if answer.status == StatusCode::OK => Reply::Accepted,
        Some(answer) if answer.status == StatusCode::UNAUTHORIZED => Reply::Refused,
        other => in_doubt(other),
    }
}

fn key_in(answer: &Answer) -> Option<Tokens> {
    if answer.status != StatusCode::OK {
        return None;
    }
    let made = answer.json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    keep_secret(&text("key"));
    Some(Tokens { access: text("key"), refresh: text("id") })
}

/// Panics unless the response is missing or a valid 503.
fn in_doubt(answer: Option<&Answer>) -> Reply {
    if let Some(answer) = answer {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    Reply::InDoubt
}

/// Builds a request with the headers that a page of the gates would send.
fn browser(at: At, method: &str, path: &str) -> http::request::Builder {
    let request = HttpRequest::builder().method(method).uri(format!("http://{}{path}", at.address));
    request.header("host", "gate.test").header("origin", ORIGIN)
}

async fn form(at: At, operation: &str, fields: &[(&str, &str)]) -> Option<Answer> {
    let body = {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", "web").extend_pairs(fields).finish()
    };
    let request = HttpRequest::post(format!("http://{}/connect/{operation}", at.address))
        .header("content-type", "application/x-www-form-urlencoded");
    send(request.body(Full::from(body)).unwrap()).await
}

/// Sends a request of an impatient client.
pub async fn send(request: HttpRequest<Full<Bytes>>) -> Option<Answer> {
    timeout(PATIENCE, try_send(request)).await.ok()?.ok()
}
