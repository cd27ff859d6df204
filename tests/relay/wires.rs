//! The rules for the other two protocols, each in front of its own server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::ISSUER;
use super::lost::kept;
use crate::edge::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rotogate::program::knox::{AuthToken, RefreshAccessTokenRequest, RefreshAccessTokenResponse};
use serde_json::{Value, json};
use support::tls_client::Connection;
use support::{CONFIG, Gate, Place, until};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;

/// A server that exchanges each pair once.
struct Server {
    url: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    /// The number of requests.
    asked: AtomicUsize,
    /// The valid pair: access token and refresh token.
    pair: Mutex<(String, String)>,
    /// Signs the access tokens.
    issuer: Option<Issuer>,
}

impl State {
    /// Makes the pair of this number.
    fn next(&self, n: usize) -> (String, String) {
        let access = match &self.issuer {
            Some(issuer) => issuer.token(&json!({ "jti": n.to_string() })),
            None => format!("access-{n}"),
        };
        let pair = (access, format!("refresh-{n}"));
        *self.pair.lock().unwrap() = pair.clone();
        pair
    }
}

async fn envelope(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap();
    let n = state.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let valid = state.pair.lock().unwrap().clone();
    let good = parts.method == Method::POST || body == json!({"token": valid.0, "refreshToken": valid.1});
    let said = if good {
        let (access, refresh) = state.next(n);
        let content = json!([{"token": access, "refreshToken": refresh, "validityTime": 3600}]);
        json!({"errorCode": "", "errorMessage": "", "content": content, "pageable": {}})
    } else {
        json!({"errorCode": "AUTH_1002", "errorMessage": "Invalid token", "content": "", "pageable": ""})
    };
    Ok(Response::builder().status(if good { 200 } else { 401 }).body(Full::from(said.to_string())).unwrap())
}

async fn knox(state: Arc<State>, request: Request<Incoming>) -> Result<Response<tonic::body::Body>, hyper::Error> {
    assert_eq!(request.uri().path(), "/user_api.v1.UserApiService/RefreshAccessToken");
    let serve = move |request: tonic::Request<RefreshAccessTokenRequest>| {
        let state = Arc::clone(&state);
        async move {
            let n = state.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if request.into_inner().refresh_token != state.pair.lock().unwrap().1 {
                return Err(Status::unauthenticated("said by the server"));
            }
            let (token, refresh_token) = state.next(n);
            let auth_token = AuthToken { token, token_type: "Bearer".to_owned(), expires_in: 300, refresh_token };
            Ok(tonic::Response::new(RefreshAccessTokenResponse { user: None, auth_token: Some(auth_token) }))
        }
    };
    let codec = tonic_prost::ProstCodec::<RefreshAccessTokenResponse, RefreshAccessTokenRequest>::default();
    Ok(tonic::server::Grpc::new(codec).unary(tower::service_fn(serve), request).await)
}

impl Server {
    async fn start(is_grpc: bool) -> Self {
        Self::start_as(is_grpc, None).await
    }

    async fn start_as(is_grpc: bool, issuer: Option<Issuer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pair = Mutex::new(("access-0".to_owned(), "refresh-0".to_owned()));
        let state = Arc::new(State { asked: AtomicUsize::new(0), pair, issuer });
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let stream = TokioIo::new(stream);
                    if is_grpc {
                        let serve = service_fn(move |request| knox(Arc::clone(&shared), request));
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http2.serve_connection(stream, serve).await;
                    } else {
                        let serve = service_fn(move |request| envelope(Arc::clone(&shared), request));
                        let _ = http1::Builder::new().serve_connection(stream, serve).await;
                    }
                });
            }
        });
        Self { url, state, _tasks: tasks }
    }

    fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    fn place(&self, lines: &str) -> Place {
        let endpoint = format!("[[endpoints]]\ndialect = \"relay\"\n{lines}\nca = \"ca.pem\"\n");
        let issuer = if self.state.issuer.is_some() { ISSUER } else { "[[upstreams]]" };
        let place = Place::new(&CONFIG.replacen("[[upstreams]]", &format!("{endpoint}{issuer}"), 1));
        let jwks = json!({ "keys": [Issuer::new(1).jwk("k1")] }).to_string();
        std::fs::write(place.path("idp.json"), jwks).unwrap();
        std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
        place
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_i38_the_envelope_is_exchanged_once_and_given_again_to_the_presenter_of_both_tokens() {
    let server = Server::start(false).await;
    let lines = format!("wire = \"envelope\"\ntoken_url = \"{}/api/v2/auth/token\"", server.url);
    let place = server.place(&lines);
    let gate = place.start();
    let json = [("content-type", "application/json")];
    let put = async |body: Value| gate.call(Method::PUT, "/api/v2/auth/token", &json, &body.to_string()).await;
    let pair = json!({"token": "access-0", "refreshToken": "refresh-0"});
    let first = put(pair.clone()).await;
    assert_eq!(first.json()["content"][0]["refreshToken"], "refresh-1", "{first:?}");
    let again = put(json!({"refreshToken": "refresh-0", "token": "access-0"})).await;
    assert_eq!(again.json()["content"][0]["refreshToken"], "refresh-1");
    assert_eq!(again.headers["cache-control"], "no-store");
    let other = put(json!({"token": "access-x", "refreshToken": "refresh-0"})).await;
    assert_eq!((other.status.as_u16(), other.json()["errorCode"].as_str()), (401, Some("AUTH_1002")));
    assert_eq!(server.asked(), 1, "one request at the server");
    let dead = put(json!({"token": "access-0", "refreshToken": "never-issued"})).await;
    assert_eq!((dead.status.as_u16(), dead.json()["errorMessage"].as_str()), (401, Some("Invalid token")));
    assert_eq!(put(json!({"token": "access-0"})).await.json()["errorCode"], "AUTH_1000");
    assert_eq!(gate.call(Method::POST, "/api/v2/auth/token", &json, "{}").await.status, 405, "no login is served");
    assert_eq!(server.asked(), 2);
    drop(gate);
    let place = server.place(&format!("{lines}\ngrants = [\"refresh_token\", \"password\"]"));
    let gate = place.start();
    let login = gate.call(Method::POST, "/api/v2/auth/token", &json, r#"{"username":"a","password":"b"}"#).await;
    assert_eq!(login.json()["content"][0]["token"], "access-3", "a login passes through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_refresh_access_token_is_called_once_and_answered_again() {
    let server = Server::start(true).await;
    let place = server.place(&format!("wire = \"knox\"\ntoken_url = \"{}\"", server.url));
    let gate = place.start();
    let refresh = async |token: &str| refresh_by_grpc(&gate, token).await;
    for _ in 0..3 {
        let tokens = refresh("refresh-0").await.unwrap();
        assert_eq!((tokens.token.as_str(), tokens.refresh_token.as_str()), ("access-1", "refresh-1"));
        assert!((290..=300).contains(&tokens.expires_in));
    }
    assert_eq!(server.asked(), 1, "one call at the server");
    for _ in 0..2 {
        let refused = refresh("never-issued").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Unauthenticated, "said by the server"));
    }
    assert_eq!(server.asked(), 2, "its refusal is kept, too");
    assert_eq!(refresh("").await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

/// Calls `RefreshAccessToken`.
async fn refresh_by_grpc(gate: &Gate, token: &str) -> Result<AuthToken, Status> {
    let address = gate.address;
    let service = tower::service_fn(move |mut request: Request<tonic::body::Body>| async move {
        let mut connection = Connection::h2c(address).await;
        let body = std::mem::take(request.body_mut()).collect().await.unwrap().to_bytes();
        *request.uri_mut() = format!("http://gate.test{}", request.uri().path()).parse().unwrap();
        let request = request.map(|_| Full::new(body));
        connection.send(request).await.map_err(|error| Status::unavailable(error.to_string()))
    });
    let path = "/user_api.v1.UserApiService/RefreshAccessToken".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<RefreshAccessTokenRequest, RefreshAccessTokenResponse>::default();
    let message = RefreshAccessTokenRequest { refresh_token: token.to_owned() };
    let answered = tonic::client::Grpc::new(service).unary(tonic::Request::new(message), path, codec).await?;
    Ok(answered.into_inner().auth_token.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i71_after_grace_a_lost_reply_of_either_protocol_costs_no_login() {
    for is_grpc in [false, true] {
        let server = Server::start_as(is_grpc, Some(Issuer::new(1))).await;
        let wire = match is_grpc {
            true => format!("wire = \"knox\"\ntoken_url = \"{}\"", server.url),
            false => format!("wire = \"envelope\"\ntoken_url = \"{}/api/v2/auth/token\"", server.url),
        };
        let place = server.place(&format!("{wire}\ngrace = \"1s\"\nissuer = \"idp\""));
        let gate = place.start();
        // The pair that the client gets for the first one, in the form of its protocol.
        let refresh = async || {
            if is_grpc {
                let tokens = refresh_by_grpc(&gate, "refresh-0").await.ok()?;
                return Some((tokens.token, tokens.refresh_token));
            }
            let body = r#"{"token":"access-0","refreshToken":"refresh-0"}"#;
            let json = [("content-type", "application/json")];
            let answer = gate.call(Method::PUT, "/api/v2/auth/token", &json, body).await.json();
            let text = |name: &str| answer["content"][0][name].as_str().map(str::to_owned);
            Some((text("token")?, text("refreshToken")?))
        };
        let first = refresh().await.unwrap();
        assert_eq!(first.1, "refresh-1");
        let mut access = String::new();
        until("grace is over", async || {
            let again = refresh().await.unwrap();
            let is_next = again.1 == "refresh-2";
            assert!(is_next || again == first, "{again:?}");
            access = again.0;
            is_next
        })
        .await;
        assert_eq!(server.asked(), 2);
        assert_eq!(gate.get("/hello", &access).await.status, 200);
        until("the use is noted", async || kept(&gate).await == "0").await;
        until("the first pair counts as used", async || refresh().await.is_none()).await;
        assert_eq!(server.asked(), 3, "the server decides");
    }
}
