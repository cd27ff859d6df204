//! Clients that record their requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{Request as HttpRequest, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{KEY_LIFETIME, Moment, Operation, Pair, Reply, Request};
use crate::{Answer, Tokens, keep_secret, try_send};

/// The gates' origin, as a browser sends it.
const ORIGIN: &str = "https://gate.test";
/// After this time, a client gives up and retries at any gate.
const PATIENCE: Duration = Duration::from_secs(8);

/// Records the operations of clients of several gates. All gates accept the same password.
pub struct Recorder {
    began: Instant,
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
        Self { began: Instant::now(), password: password.to_owned(), operator: String::new(), notes: Mutex::default() }
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
        let fields = [("grant_type", "password"), ("username", "demo"), ("password", &self.password)];
        let answer = form(at, "token", &fields).await?;
        if answer.status != StatusCode::OK {
            return None;
        }
        Some(self.begun(at, begin, answer.tokens()))
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
        let fields = [("grant_type", "refresh_token"), ("refresh_token", held.tokens.refresh.as_str())];
        let answer = form(at, "token", &fields).await;
        let (issued, reply) = match &answer {
            Some(answer) if answer.status == StatusCode::OK => {
                let issued = self.held(held.session, answer.tokens());
                let reply = Reply::Issued(issued.pair);
                (Some(issued), reply)
            }
            Some(answer) if answer.status == StatusCode::BAD_REQUEST && answer.error() == "invalid_grant" => {
                (None, Reply::Refused)
            }
            other => (None, in_doubt(other.as_ref())),
        };
        self.note(held.session, at, begin, Request::Refresh(held.pair), reply);
        (issued, reply)
    }

    /// Revokes the refresh token. For a browser, logs out.
    pub async fn log_out(&self, at: At, held: &Held) -> Reply {
        let begin = self.now();
        let answer = if held.is_of_browser() {
            let request = browser(at, "POST", "/auth/logout").header("cookie", &held.tokens.access);
            send(request.body(Full::default()).unwrap()).await
        } else {
            form(at, "revocation", &[("token", held.tokens.refresh.as_str())]).await
        };
        let reply = match answer {
            Some(answer) if answer.status == StatusCode::OK => Reply::Accepted,
            other => in_doubt(other.as_ref()),
        };
        self.note(held.session, at, begin, Request::LogOut(held.pair), reply);
        reply
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

async fn send(request: HttpRequest<Full<Bytes>>) -> Option<Answer> {
    timeout(PATIENCE, try_send(request)).await.ok()?.ok()
}
