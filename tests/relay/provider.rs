//! A provider that rotates: each refresh token is good once. A repeated token ends its login (RFC 9700 §4.14.2).

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::edge::issuer::{Issuer, claims};
use support::keep_secret;

/// The fault of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Processed; the reply is lost.
    LostReply,
    /// The connection ends before it is processed.
    Dropped,
    /// This status with a page, and nothing is processed.
    Status(u16),
    /// Processed; the body of the reply is cut.
    Truncated,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) form: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Each token with its login, and whether it is still good.
    tokens: Mutex<HashMap<String, (usize, bool)>>,
    /// Logins that ended.
    ended: Mutex<Vec<usize>>,
    made: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    faults: Mutex<VecDeque<Fault>>,
    /// If set, replies wait for a permit of the semaphore.
    held: Mutex<Option<Arc<Semaphore>>>,
    /// Signs the access tokens.
    issuer: Mutex<Option<Issuer>>,
    /// Whether there is a discovery document.
    is_discovered: AtomicBool,
    lifetime: AtomicUsize,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { lifetime: AtomicUsize::new(300), ..State::default() });
        let shared = Arc::clone(&state);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let serve = service_fn(move |request| serve(Arc::clone(&shared), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Self { address, state, _server: server }
    }

    /// Access tokens are JWTs of this issuer.
    pub(crate) fn sign_as(&self, issuer: Issuer) {
        *self.state.issuer.lock().unwrap() = Some(issuer);
    }

    /// Publishes a discovery document of the issuer `https://idp.test/`.
    pub(crate) fn publish(&self) {
        self.state.is_discovered.store(true, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The refresh token of a new login.
    pub(crate) fn login(&self) -> String {
        let login = self.state.made.fetch_add(1, Ordering::SeqCst);
        self.state.refresh_token(login)
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.state.faults.lock().unwrap().push_back(fault);
    }

    /// Holds replies back until permits are added.
    pub(crate) fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        *self.state.held.lock().unwrap() = Some(Arc::clone(&held));
        held
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Asked {
        self.asked().last().unwrap().clone()
    }

    /// The number of requests.
    pub(crate) fn count(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }

    /// The number of logins that ended by a repeated token or a revocation.
    pub(crate) fn ended(&self) -> usize {
        self.state.ended.lock().unwrap().len()
    }
}

impl State {
    fn refresh_token(&self, login: usize) -> String {
        let token = format!("provider-refresh-{login}-{}-{:016x}", self.made.fetch_add(1, Ordering::SeqCst), fresh());
        keep_secret(&token);
        self.tokens.lock().unwrap().insert(token.clone(), (login, true));
        token
    }

    fn access_token(&self, login: usize) -> String {
        let token = match &*self.issuer.lock().unwrap() {
            Some(issuer) => {
                let (sub, sid) = (format!("user-{login}"), format!("session-{login}"));
                issuer.token(&json!({"sub": sub, "sid": sid, "jti": format!("{:016x}", fresh())}))
            }
            None => format!("provider-access-{login}-{:016x}", fresh()),
        };
        keep_secret(&token);
        token
    }

    fn is_over(&self, login: usize) -> bool {
        self.ended.lock().unwrap().contains(&login)
    }

    /// The discovery document and the keys. Requests for them are not counted.
    fn document(&self, parts: &Parts) -> Option<Response<Full<Bytes>>> {
        let url = |path: &str| format!("http://{}{path}", parts.headers["host"].to_str().unwrap());
        let document = match parts.uri.path() {
            "/discovery" if self.is_discovered.load(Ordering::SeqCst) => json!({
                "issuer": "https://idp.test/",
                "jwks_uri": url("/keys"),
                "token_endpoint": url("/token"),
                "revocation_endpoint": url("/revoke"),
            }),
            "/keys" => json!({ "keys": [self.issuer.lock().unwrap().as_ref()?.jwk("k1")] }),
            "/discovery" => return Some(said(StatusCode::NOT_FOUND, String::new())),
            _ => return None,
        };
        Some(said(StatusCode::OK, document.to_string()))
    }

    /// The response about an opaque access token (RFC 7662). Requests for it are not counted.
    fn introspected(&self, asked: &Asked) -> Response<Full<Bytes>> {
        let rest = asked.field("token").and_then(|token| token.strip_prefix("provider-access-"));
        let login = rest.and_then(|rest| rest.split('-').next()).and_then(|login| login.parse().ok());
        let body = match login.filter(|login| !self.is_over(*login)) {
            Some(login) => claims(&json!({ "active": true, "sub": format!("user-{login}"), "jti": null })),
            None => json!({ "active": false }),
        };
        said(StatusCode::OK, body.to_string())
    }

    fn answer(&self, asked: &Asked) -> Response<Full<Bytes>> {
        if asked.path == "/revoke" {
            let token = asked.field("token").unwrap_or_default();
            if let Some((login, _)) = self.tokens.lock().unwrap().get(token) {
                self.ended.lock().unwrap().push(*login);
            }
            return Response::new(Full::default());
        }
        let login = match asked.field("grant_type") {
            Some("refresh_token") => {
                let token = asked.field("refresh_token").unwrap_or_default();
                let known = self.tokens.lock().unwrap().get(token).copied();
                match known {
                    Some((login, true)) if !self.is_over(login) => {
                        self.tokens.lock().unwrap().insert(token.to_owned(), (login, false));
                        login
                    }
                    Some((login, _)) => {
                        if !self.is_over(login) {
                            self.ended.lock().unwrap().push(login);
                        }
                        return refused("invalid_grant");
                    }
                    None => return refused("invalid_grant"),
                }
            }
            Some("authorization_code") => self.made.fetch_add(1, Ordering::SeqCst),
            _ => return refused("unsupported_grant_type"),
        };
        let body = json!({
            "access_token": self.access_token(login),
            "token_type": "Bearer",
            "expires_in": self.lifetime.load(Ordering::SeqCst),
            "refresh_token": self.refresh_token(login),
        });
        said(StatusCode::OK, body.to_string())
    }
}

fn fresh() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn refused(error: &str) -> Response<Full<Bytes>> {
    let body = json!({"error": error, "error_description": "said by the provider"});
    said(StatusCode::BAD_REQUEST, body.to_string())
}

fn said(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::from(body)).unwrap()
}

/// A reply that is not sent: the connection ends.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gone")
    }
}

impl std::error::Error for Gone {}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Gone> {
    let (parts, body) = request.into_parts();
    if let Some(document) = state.document(&parts) {
        return Ok(document);
    }
    let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
    let form = form_urlencoded::parse(&body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let asked = Asked { path: parts.uri.path().to_owned(), headers: parts.headers, form };
    if asked.path == "/introspect" {
        return Ok(state.introspected(&asked));
    }
    let fault = state.faults.lock().unwrap().pop_front();
    let response = match fault {
        Some(Fault::Dropped | Fault::Status(_)) => None,
        Some(Fault::LostReply | Fault::Truncated) | None => Some(state.answer(&asked)),
    };
    state.asked.lock().unwrap().push(asked);
    let held = state.held.lock().unwrap().clone();
    if let Some(held) = held {
        held.acquire().await.unwrap().forget();
    }
    match (fault, response) {
        (None, Some(response)) => Ok(response),
        (Some(Fault::Status(status)), _) => {
            let response = Response::builder().status(status).header("retry-after", "7");
            Ok(response.body(Full::from("<html>an inner page</html>")).unwrap())
        }
        (Some(Fault::Truncated), Some(response)) => {
            let body =
                response.into_body().collect().await.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
            Ok(Response::new(Full::from(body.slice(..body.len() / 2))))
        }
        (Some(Fault::LostReply | Fault::Dropped), _) | (_, None) => Err(Gone),
    }
}

/// A provider that accepts connections and never answers.
pub(crate) async fn silent() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.flush().await;
            open.push(stream);
        }
    });
    (address, task)
}
