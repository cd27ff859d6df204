//! A refusal to decide is never reported as a decision: every command of every dialect, while a limit is reached, while
//! a queue is full, while the store or the directory fails. The refusal consumes nothing and acknowledges nothing.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::client::{Client, Grant};
use rotogate::clock::Timestamp;
use rotogate::dialect::Options;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Endpoint, GateBuilder, Peer};
use rotogate::route::{Auth, Route, RoutePolicy};
use rotogate::session::{Generation, RevokedBecause, Scope, Session, SessionId};
use rotogate::store::{Cursor, Filter, Inserted, MemoryStore, Page, Store, StoreError, SubjectBound, Swap, Swept};
use rotogate_core::limit::{Rate, Rates};
use rotogate_core::password::SecretHash;
use rotogate_core::password::{self, Passwords};
use rotogate_core::revocation::Revocation;
use rotogate_core::token::keyring::Keyring;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

const PASSWORD: &str = "correct horse";
const SECRET: &str = "a secret of a client";
/// A limit that one address reaches soon, and that does not refill during a test.
const BURST: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The address has no try left.
    Limiter,
    /// More password checks wait than may.
    Busy,
    /// The directory cannot be reached.
    Directory,
    /// The store fails.
    Store,
}

use Trouble::{Busy, Limiter, Store as StoreFault};

const ALL: [Trouble; 4] = [Limiter, Busy, Trouble::Directory, StoreFault];

type Switch = Arc<Mutex<Option<Trouble>>>;

#[derive(Debug)]
struct Failing {
    inner: MemoryStore,
    now: Switch,
}

impl Failing {
    fn ask(&self) -> Result<(), StoreError> {
        if *self.now.lock().unwrap() == Some(StoreFault) { Err(StoreError::new("told to fail")) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Failing {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.ask()?;
        self.inner.load(id).await
    }
    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.ask()?;
        self.inner.insert(session, bound).await
    }
    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.ask()?;
        self.inner.compare_and_swap(expected, record, revocation).await
    }
    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.ask()?;
        self.inner.revoke(entry, because).await
    }
    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.inner.revocations_since(cursor).await
    }
    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.inner.confirm(seen).await
    }
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(filter, after, limit).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.inner.sweep(now).await
    }
    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.inner.last_known_time().await
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}

#[derive(Debug)]
struct Ada(Switch);

impl Ada {
    fn ask(&self) -> Result<Option<User>, DirectoryError> {
        match *self.0.lock().unwrap() {
            Some(Busy) => Err(DirectoryError::Busy),
            Some(Trouble::Directory) => Err(DirectoryError::Unavailable("told to fail".to_owned())),
            Some(Limiter | StoreFault) | None => Ok(Some(User::new("ada").scopes(Scope::parse("read").unwrap()))),
        }
    }
}

#[async_trait]
impl Directory for Ada {
    async fn authenticate(
        &self,
        _: Option<&str>,
        _: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        Ok(self.ask()?.filter(|_| password.expose_secret() == PASSWORD))
    }
    async fn lookup(&self, _: &str) -> Result<Option<User>, DirectoryError> {
        self.ask()
    }
}

struct World {
    gate: Gate,
    switch: Switch,
    address: AtomicU32,
}

/// The answer.
#[derive(Debug)]
struct Came {
    head: http::response::Parts,
    body: Bytes,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl World {
    async fn new() -> Self {
        let switch = Switch::default();
        let store =
            Failing { inner: MemoryStore::new("https://api.test", Duration::from_secs(30)), now: switch.clone() };
        let few = Rate::new(BURST, Duration::from_secs(86_400));
        let many = Rate::new(1_000_000, Duration::from_millis(1));
        let rates = Rates {
            login_per_address: few,
            refresh_per_address: few,
            forged_per_address: few,
            login_per_account: many,
            login_per_client: many,
            refresh_per_session: many,
            forged_overall: many,
            refused_per_address: many,
        };
        let hash = password::hash(&SecretString::from(SECRET)).unwrap();
        let service = Client {
            secret_hash: Some(SecretHash::new(hash)),
            grants: vec![Grant::ClientCredentials],
            scopes: Some(Scope::parse("read").unwrap()),
            ..Client::public("svc")
        };
        let mut builder = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::ephemeral().unwrap())
            .store(store)
            .directory(Arc::new(Ada(switch.clone())))
            .passwords(Arc::new(Passwords::default()))
            .rates(rates)
            .client(Client::public("web"))
            .client(service);
        for name in rotogate::program::NAMES {
            builder = builder.endpoint(Endpoint::boxed(rotogate::program::by_name(name, &Options::default()).unwrap()));
        }
        let gate = builder.build().await.unwrap();
        let world = Self { gate, switch, address: AtomicU32::new(0x0a00_0001) };
        // The secret is hashed once; afterwards the gate knows it as good.
        assert_eq!(world.ask(&client_token()).await.head.status, StatusCode::OK);
        world
    }

    fn fresh(&self) -> IpAddr {
        Ipv4Addr::from(self.address.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn send(&self, asked: &Asked, from: IpAddr) -> Came {
        let inner = tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"inside"))))
        });
        let mut request = Request::builder().method(asked.method.clone()).uri(asked.path).header("host", "api.test");
        for (name, value) in &asked.headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Full::new(Bytes::from(asked.body.clone()))).unwrap();
        request.extensions_mut().insert(Peer::new(from, true));
        let mut service = self.gate.layer().forward_buffered().layer(inner);
        let (head, body) = service.ready().await.unwrap().call(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap_or_else(|_| unreachable!());
        Came { head, body: body.to_bytes() }
    }

    /// Sends from an address without refusals. If the address shares the bucket of a refused one by chance, takes
    /// another.
    async fn ask(&self, asked: &Asked) -> Came {
        loop {
            let came = self.send(asked, self.fresh()).await;
            if came.head.status != StatusCode::TOO_MANY_REQUESTS {
                return came;
            }
        }
    }

    /// An address that has used up each limit.
    async fn worn_out(&self) -> IpAddr {
        let from = self.fresh();
        for _ in 0..=BURST {
            self.send(
                &oauth2("/connect/token", &[("grant_type", "password"), ("username", "x"), ("password", "x")]),
                from,
            )
            .await;
            self.send(&oauth2("/connect/token", &[("grant_type", "refresh_token"), ("refresh_token", "x")]), from)
                .await;
            let held = self.log_in().await;
            let forged = format!("{}AAAA", &held.access[..held.access.len() - 4]);
            self.send(&bearer(Asked::new(Method::GET, "/x"), &forged), from).await;
        }
        from
    }

    /// A session that the endpoint of each dialect would accept.
    async fn log_in_at(&self, dialect: &str) -> Held {
        let asked = match dialect {
            "envelope" => envelope(Method::POST, &json!({ "username": "ada", "password": PASSWORD })),
            "kuzzle" => kuzzle("/_login/local", &json!({ "username": "ada", "password": PASSWORD })),
            #[cfg(feature = "grpc")]
            "knox" => knox("AuthnWithPassword", &[&field(1, "ada"), &field(2, PASSWORD)].map(Vec::as_slice).concat()),
            _ => oauth2("/connect/token", &[("grant_type", "password"), ("username", "ada"), ("password", PASSWORD)]),
        };
        let came = self.ask(&asked).await;
        assert_eq!(came.head.status, StatusCode::OK, "{dialect} {came:?}");
        let json = came.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match dialect {
            "envelope" => {
                let content = &json["content"][0];
                Held { access: text(&content["token"]), refresh: text(&content["refreshToken"]) }
            }
            "kuzzle" => Held { access: text(&json["result"]["jwt"]), refresh: String::new() },
            "knox" => {
                // Finds the tokens by their form in the single message of the answer.
                let all = String::from_utf8_lossy(&came.body).into_owned();
                let from = |begin: &str| {
                    let rest = &all[all.find(begin).unwrap()..];
                    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
                    rest[..end.unwrap_or(rest.len())].to_owned()
                };
                Held { access: from("eyJ"), refresh: from("rg1_") }
            }
            _ => Held { access: text(&json["access_token"]), refresh: text(&json["refresh_token"]) },
        }
    }

    async fn log_in(&self) -> Held {
        self.log_in_at("oauth2").await
    }

    async fn opens(&self, held: &Held) -> bool {
        self.ask(&bearer(Asked::new(Method::GET, "/x"), &held.access)).await.head.status == StatusCode::OK
    }
}

struct Held {
    access: String,
    refresh: String,
}

#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn new(method: Method, path: &'static str) -> Self {
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.with("content-type", "application/json")
    }
}

fn bearer(asked: Asked, token: &str) -> Asked {
    asked.with("authorization", &format!("Bearer {token}"))
}

/// A browser's, from a page of this gate.
fn cookie(asked: Asked, token: &str) -> Asked {
    asked.with("cookie", &format!("authToken={token}")).with("origin", "https://api.test")
}

fn form(path: &'static str, fields: &[(&str, &str)]) -> Asked {
    let mut asked = Asked::new(Method::POST, path).with("content-type", "application/x-www-form-urlencoded");
    asked.body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes();
    asked
}

fn oauth2(path: &'static str, fields: &[(&str, &str)]) -> Asked {
    form(path, &[&[("client_id", "web")], fields].concat())
}

fn as_service(path: &'static str, fields: &[(&str, &str)]) -> Asked {
    form(path, &[&[("client_id", "svc"), ("client_secret", SECRET)], fields].concat())
}

fn client_token() -> Asked {
    as_service("/connect/token", &[("grant_type", "client_credentials")])
}

fn envelope(method: Method, body: &Value) -> Asked {
    Asked::new(method, "/api/v2/auth/token").json(body)
}

fn kuzzle(path: &'static str, body: &Value) -> Asked {
    Asked::new(Method::POST, path).json(body)
}

fn query(action: &str, held: &Held, body: &Value) -> Asked {
    kuzzle("/_query", &json!({ "controller": "auth", "action": action, "jwt": held.access, "body": body }))
}

#[cfg(feature = "grpc")]
fn field(number: u8, text: &str) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

#[cfg(feature = "grpc")]
fn knox(call: &str, message: &[u8]) -> Asked {
    let path = match call {
        "AuthnWithPassword" => "/user_api.v1.UserApiService/AuthnWithPassword",
        "RefreshAccessToken" => "/user_api.v1.UserApiService/RefreshAccessToken",
        _ => "/user_api.v1.UserApiService/GetMe",
    };
    let mut asked = Asked::new(Method::POST, path).with("content-type", "application/grpc").with("te", "trailers");
    asked.body = [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat();
    asked
}

/// The effects of an executed command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Nothing,
    /// The token opens nothing any more.
    AnEnd,
}

struct Row {
    dialect: &'static str,
    command: &'static str,
    /// The faults in which nothing can be decided. In other faults the answer is the usual one, or there is no answer.
    by: &'static [Trouble],
    leaves: Leaves,
    ask: fn(&Held) -> Asked,
    /// Is this the usual answer?
    is_good: fn(&Came) -> bool,
}

const DIRECTORY: [Trouble; 2] = [Busy, Trouble::Directory];
const LOGIN: &[Trouble] = &ALL;
const REFRESH: &[Trouble] = &ALL;
const CHECK: &[Trouble] = &[Limiter, DIRECTORY[0], DIRECTORY[1]];
const END: &[Trouble] = &[Limiter, StoreFault];

fn ok(came: &Came) -> bool {
    let json = came.json();
    came.head.status == StatusCode::OK && json["error"].is_null() && json["errorCode"].as_str().unwrap_or("").is_empty()
}

fn acknowledged(came: &Came) -> bool {
    ok(came) && came.json()["result"]["acknowledged"] == true
}

fn valid(came: &Came) -> bool {
    ok(came) && came.json()["result"]["valid"] == true
}

fn is_ada(came: &Came) -> bool {
    ok(came) && came.json()["result"]["_id"] == "ada"
}

#[cfg(feature = "grpc")]
fn grpc_ok(came: &Came) -> bool {
    came.head.status == StatusCode::OK && came.header("grpc-status").is_empty() && !came.body.is_empty()
}

fn rows() -> Vec<Row> {
    let row = |dialect, command, by, leaves, ask, is_good| Row { dialect, command, by, leaves, ask, is_good };
    let nothing = Leaves::Nothing;
    vec![
        row(
            "oauth2",
            "password",
            LOGIN,
            nothing,
            |_| oauth2("/connect/token", &[("grant_type", "password"), ("username", "ada"), ("password", PASSWORD)]),
            ok,
        ),
        row(
            "oauth2",
            "refresh_token",
            REFRESH,
            nothing,
            |held| oauth2("/connect/token", &[("grant_type", "refresh_token"), ("refresh_token", &held.refresh)]),
            ok,
        ),
        row("oauth2", "client_credentials", &[], nothing, |_| client_token(), ok),
        row(
            "oauth2",
            "revocation of a refresh token",
            &[StoreFault],
            Leaves::AnEnd,
            |held| oauth2("/connect/revocation", &[("token", &held.refresh)]),
            ok,
        ),
        row(
            "oauth2",
            "revocation of an access token",
            &[StoreFault],
            Leaves::AnEnd,
            |held| oauth2("/connect/revocation", &[("token", &held.access)]),
            ok,
        ),
        row(
            "oauth2",
            "introspection",
            &[],
            nothing,
            |held| as_service("/connect/introspect", &[("token", &held.access)]),
            |came| ok(came) && came.json()["active"] == true,
        ),
        row(
            "kuzzle",
            "login",
            LOGIN,
            nothing,
            |_| kuzzle("/_login/local", &json!({ "username": "ada", "password": PASSWORD })),
            ok,
        ),
        row(
            "kuzzle",
            "refreshToken",
            REFRESH,
            nothing,
            |held| bearer(kuzzle("/_refreshToken", &json!({})), &held.access),
            ok,
        ),
        row(
            "kuzzle",
            "refreshToken by cookie",
            REFRESH,
            nothing,
            |held| cookie(kuzzle("/_refreshToken", &json!({})), &held.access),
            ok,
        ),
        row(
            "kuzzle",
            "logout",
            END,
            Leaves::AnEnd,
            |held| bearer(kuzzle("/_logout", &json!({})), &held.access),
            acknowledged,
        ),
        row(
            "kuzzle",
            "logout by cookie",
            END,
            Leaves::AnEnd,
            |held| cookie(kuzzle("/_logout", &json!({})), &held.access),
            acknowledged,
        ),
        row(
            "kuzzle",
            "logout everywhere by cookie",
            END,
            Leaves::AnEnd,
            |held| cookie(kuzzle("/_logout?global", &json!({})), &held.access),
            acknowledged,
        ),
        row(
            "kuzzle",
            "checkToken",
            CHECK,
            nothing,
            |held| kuzzle("/_checkToken", &json!({ "token": held.access })),
            valid,
        ),
        row(
            "kuzzle",
            "getCurrentUser",
            CHECK,
            nothing,
            |held| bearer(Asked::new(Method::GET, "/_me"), &held.access),
            is_ada,
        ),
        row("kuzzle", "refreshToken in /_query", REFRESH, nothing, |held| query("refreshToken", held, &json!({})), ok),
        row("kuzzle", "logout in /_query", END, Leaves::AnEnd, |held| query("logout", held, &json!({})), acknowledged),
        row(
            "kuzzle",
            "checkToken in /_query",
            CHECK,
            nothing,
            |held| query("checkToken", held, &json!({ "token": held.access })),
            valid,
        ),
        row(
            "kuzzle",
            "getCurrentUser in /_query",
            CHECK,
            nothing,
            |held| query("getCurrentUser", held, &json!({})),
            is_ada,
        ),
        row(
            "envelope",
            "create token",
            LOGIN,
            nothing,
            |_| envelope(Method::POST, &json!({ "username": "ada", "password": PASSWORD })),
            ok,
        ),
        row(
            "envelope",
            "refresh",
            REFRESH,
            nothing,
            |held| envelope(Method::PUT, &json!({ "token": held.access, "refreshToken": held.refresh })),
            ok,
        ),
        #[cfg(feature = "grpc")]
        row(
            "knox",
            "AuthnWithPassword",
            LOGIN,
            nothing,
            |_| knox("AuthnWithPassword", &[field(1, "ada"), field(2, PASSWORD)].concat()),
            grpc_ok,
        ),
        #[cfg(feature = "grpc")]
        row(
            "knox",
            "RefreshAccessToken",
            REFRESH,
            nothing,
            |held| knox("RefreshAccessToken", &field(1, &held.refresh)),
            grpc_ok,
        ),
        #[cfg(feature = "grpc")]
        row("knox", "GetMe", CHECK, nothing, |held| bearer(knox("GetMe", &[]), &held.access), grpc_ok),
    ]
}

/// Whether this is the dialect's answer for "try again later", with a time.
fn is_undecided(dialect: &str, trouble: Trouble, came: &Came) -> bool {
    if dialect == "knox" {
        let code = if trouble == Limiter { "8" } else { "14" };
        let says_when = !came.header("grpc-status-details-bin").is_empty();
        return came.head.status == StatusCode::OK && came.header("grpc-status") == code && says_when;
    }
    let status = if trouble == Limiter { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE };
    let json = came.json();
    let says_so = match dialect {
        "kuzzle" => json["error"]["status"] == status.as_u16() && json["result"].is_null(),
        "envelope" => json["content"] == "" && json["errorCode"] != "AUTH_1001" && json["errorCode"] != "AUTH_1002",
        _ => matches!(json["error"].as_str(), Some("too_many_requests" | "temporarily_unavailable")),
    };
    let says_when = came.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 0);
    came.head.status == status && says_so && says_when && came.header("set-cookie").is_empty()
}

#[tokio::test]
async fn r15_r16_what_cannot_be_decided_is_said_as_such_by_every_command_of_every_dialect() {
    let world = World::new().await;
    let rows = rows();
    for name in rotogate::program::NAMES {
        assert!(rows.iter().any(|row| row.dialect == *name), "{name} has no row");
    }
    for row in &rows {
        for trouble in ALL {
            let place = format!("{} {}: {trouble:?}", row.dialect, row.command);
            let held = world.log_in_at(row.dialect).await;
            let asked = (row.ask)(&held);
            let worn_out = if trouble == Limiter { Some(world.worn_out().await) } else { None };
            *world.switch.lock().unwrap() = Some(trouble);
            let came = match worn_out {
                Some(from) => world.send(&asked, from).await,
                None => world.ask(&asked).await,
            };
            *world.switch.lock().unwrap() = None;
            if is_undecided(row.dialect, trouble, &came) {
                // The fault consumed nothing: the same request succeeds a moment later. A revocation that a faulty store
                // did not write may already hold at this gate; then the reply reports the end.
                let again = world.ask(&asked).await;
                let ended = row.leaves == Leaves::AnEnd && trouble == StoreFault;
                assert!((row.is_good)(&again) || ended, "{place}: afterwards {again:?}");
            } else {
                assert!(!row.by.contains(&trouble), "{place}: {came:?}");
                assert!((row.is_good)(&came), "{place}: {came:?}");
            }
            if row.leaves == Leaves::AnEnd {
                assert!(!world.opens(&held).await, "{place}: acknowledged, and the token opens data routes");
            }
        }
    }
}

/// The first logout failed in the store, so it holds on this node alone; the second finds a dead token.
#[tokio::test]
async fn r16_a_logout_that_failed_is_durable_once_it_is_acknowledged() {
    let world = World::new().await;
    let held = world.log_in_at("kuzzle").await;
    let logout = cookie(kuzzle("/_logout", &json!({})), &held.access);
    *world.switch.lock().unwrap() = Some(StoreFault);
    for _ in 0..2 {
        let came = world.ask(&logout).await;
        assert!(is_undecided("kuzzle", StoreFault, &came), "{came:?}");
    }
    *world.switch.lock().unwrap() = None;
    let came = world.ask(&logout).await;
    assert!(acknowledged(&came) && came.header("set-cookie").contains("authToken=null"), "{came:?}");
    let page = world.gate.sessions().list(Filter::All, None, 10).await.unwrap();
    assert!(page.sessions.iter().all(|session| session.status != rotogate::session::Status::Live), "{page:?}");
}

/// The token in the cookie is superseded and revoked, but its session is live.
#[tokio::test]
async fn r16_a_logout_by_cookie_ends_the_session_of_a_superseded_token_and_is_not_acknowledged_by_a_living_one() {
    let world = World::new().await;
    let first = world.log_in_at("kuzzle").await;
    let second = world.ask(&bearer(kuzzle("/_refreshToken", &json!({})), &first.access)).await.json();
    let second = Held { access: second["result"]["jwt"].as_str().unwrap().to_owned(), refresh: String::new() };
    assert!(world.opens(&second).await);
    // A logout everywhere requires a live session.
    let everywhere = world.ask(&cookie(kuzzle("/_logout?global", &json!({})), &first.access)).await;
    assert_eq!(everywhere.head.status, StatusCode::UNAUTHORIZED, "{everywhere:?}");
    assert!(everywhere.header("set-cookie").is_empty());
    let third = world.log_in_at("kuzzle").await;
    let came = world.ask(&cookie(kuzzle("/_logout", &json!({})), &first.access)).await;
    assert!(acknowledged(&came) && came.header("set-cookie").contains("authToken=null"), "{came:?}");
    assert!(!world.opens(&second).await, "the session goes on");
    assert!(world.opens(&third).await, "another session");
    // A page of another site ends nothing, and gets a refusal.
    let elsewhere = Asked::new(Method::POST, "/_logout").json(&json!({})).with("origin", "https://evil.test");
    let came = world.ask(&elsewhere.with("cookie", &format!("authToken={}", third.access))).await;
    assert_eq!(came.head.status, StatusCode::FORBIDDEN, "{came:?}");
    assert!(came.header("set-cookie").is_empty() && world.opens(&third).await);
}

/// Treats a bad credential like a missing one.
fn lenient() -> RoutePolicy {
    RoutePolicy { auth: Auth::Optional, ignores_bad_credential: true, ..RoutePolicy::default() }
}

/// A gate whose limit on forged tokens an address reaches soon.
fn few_forged() -> GateBuilder {
    let few = Rate::new(BURST, Duration::from_secs(86_400));
    Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .rates(Rates { forged_per_address: few, ..Rates::default() })
}

/// A bad credential may count as missing; an unchecked credential is not bad.
#[tokio::test]
async fn r15_a_route_that_takes_bad_credentials_for_none_takes_none_that_it_did_not_look_at() {
    let (world, policy, gate) = (World::new().await, lenient(), few_forged());
    let gate = gate.route(Route::catch_all(policy)).build().await.unwrap();
    let world = World { gate, ..world };
    let from = world.fresh();
    let good = world.gate.sessions().start(rotogate::gate::NewSession::new("ada", "web")).await.unwrap();
    let token = good.access_token.expose();
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert_eq!(world.send(&bearer(Asked::new(Method::GET, "/x"), &forged), from).await.head.status, StatusCode::OK);
    for _ in 0..BURST {
        world.send(&bearer(Asked::new(Method::GET, "/x"), &forged), from).await;
    }
    let came = world.send(&bearer(Asked::new(Method::GET, "/x"), token), from).await;
    assert_eq!(came.head.status, StatusCode::TOO_MANY_REQUESTS, "{came:?}");
    assert!(!came.header("retry-after").is_empty());
}

/// The same for a call in an envelope whose route takes no token.
#[tokio::test]
async fn r15_a_rule_of_calls_that_takes_bad_credentials_for_none_takes_none_that_it_did_not_look_at() {
    let world = World::new().await;
    let gate = few_forged()
        .endpoint(Endpoint::new(rotogate::dialect::kuzzle::Kuzzle::default()))
        .route(Route::catch_all(RoutePolicy::public()))
        .route(Route::kuzzle_rule(["document:*"], lenient()).unwrap());
    let gate = gate.build().await.unwrap();
    let world = World { gate, ..world };
    let from = world.fresh();
    let good = world.gate.sessions().start(rotogate::gate::NewSession::new("ada", "web")).await.unwrap();
    let token = good.access_token.expose();
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let call = || Asked::new(Method::POST, "/_query").json(&json!({ "controller": "document", "action": "get" }));
    let permitted = world.send(&call(), from).await.head.status;
    for _ in 0..=BURST {
        assert_eq!(world.send(&bearer(call(), &forged), from).await.head.status, permitted, "as without a token");
    }
    let came = world.send(&bearer(call(), token), from).await;
    assert_eq!(came.head.status, StatusCode::TOO_MANY_REQUESTS, "{came:?}");
    assert_ne!(permitted, StatusCode::TOO_MANY_REQUESTS);
}
