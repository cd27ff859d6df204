//! Proofs of possession at gates that share a store (RFC 9449).

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::client;
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::dpop::DpopSettings;
use rotogate::gate::{Authorizer, Endpoint, Neighbour};
use rotogate::route::{Auth, Route, RoutePolicy};
use rotogate::session::Binding;
use rotogate::store::Store;
use rotogate::token::{Algorithm, Keyring};
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::headers::Peer;
use rotogate_core::store::conformance::nodes::{MemoryNode, Way};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

const NOW: Timestamp = Timestamp::from_secs(1_800_001_000);
const GATE: &str = "https://api.test";

/// Every user has the same password.
#[derive(Debug)]
struct Users;

#[async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        _: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        Ok((password.expose_secret() == "right").then(|| User::new(username)))
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(Some(User::new(subject)))
    }
}

type Asked = Request<Full<Bytes>>;

/// Answers with the caller of the request.
async fn upstream(request: Asked) -> Result<Response, Infallible> {
    let subject = request.headers().get("x-auth-subject").map(|name| name.as_bytes().to_vec());
    Ok(http::Response::new(Full::from(subject.unwrap_or_default())))
}

type Response = http::Response<Full<Bytes>>;

struct Node {
    gate: Gate,
    store: Arc<MemoryNode>,
}

impl Node {
    async fn ask(&self, request: Builder, body: String) -> (StatusCode, HeaderMap, Bytes) {
        answer(self.gate.layer().layer(tower::service_fn(upstream)), request, body).await
    }

    /// Asks a path with a token and a proof.
    async fn get(&self, path: &str, token: &str, proof: &str) -> (StatusCode, HeaderMap, Bytes) {
        self.ask(asked(path, token, proof), String::new()).await
    }

    async fn status(&self, token: &str, proof: &str) -> u16 {
        self.get("/orders", token, proof).await.0.as_u16()
    }

    /// The status of a request behind only `require()`.
    async fn required(&self, token: &str, proof: &str) -> u16 {
        let service = self.gate.require().layer(tower::service_fn(upstream));
        answer(service, asked("/orders", token, proof), String::new()).await.0.as_u16()
    }

    /// The verdict that a proxy gets.
    async fn verdict(&self, token: &str, proof: &str) -> u16 {
        let stated =
            [("method", "GET"), ("host", "api.test"), ("uri", "/orders"), ("proto", "https"), ("for", "192.0.2.7")];
        let mut question = Request::get("/").extension(Peer::new([127, 0, 0, 1].into(), false));
        for (name, value) in stated {
            question = question.header(format!("x-forwarded-{name}"), value);
        }
        let question =
            question.header("authorization", format!("DPoP {token}")).header("dpop", proof).body(()).unwrap();
        Authorizer::new(&self.gate, Neighbour::Nginx).oneshot(question).await.unwrap().status().as_u16()
    }

    /// Makes a call of Kuzzle, in the body of a request.
    async fn call(&self, controller: &str, token: &str, proof: &str) -> (StatusCode, HeaderMap, Bytes) {
        let service = self.gate.layer().forward_buffered().layer(tower::service_fn(upstream));
        let request = Request::post("/_query").header("host", "api.test").header("content-type", "application/json");
        let request = request.header("authorization", format!("DPoP {token}")).header("dpop", proof);
        answer(service, request, json!({"controller": controller, "action": "get"}).to_string()).await
    }

    /// Asks the token endpoint.
    async fn token(&self, proof: &str, fields: &[(&str, &str)]) -> (StatusCode, Value) {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post("/token").header("host", "api.test").header("dpop", proof);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let (status, _, body) = self.ask(request, body).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn log_in(&self, proof: &str) -> (StatusCode, Value) {
        let fields = [("grant_type", "password"), ("client_id", "web"), ("username", "ada"), ("password", "right")];
        self.token(proof, &fields).await
    }

    async fn refresh(&self, proof: &str, token: &str) -> (StatusCode, Value) {
        self.token(proof, &[("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", token)]).await
    }
}

fn asked(path: &str, token: &str, proof: &str) -> Builder {
    let request = Request::get(path).header("host", "api.test");
    request.header("authorization", format!("DPoP {token}")).header("dpop", proof)
}

async fn answer<S, R>(service: S, request: Builder, body: String) -> (StatusCode, HeaderMap, Bytes)
where
    S: Service<Asked, Response = http::Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    let (parts, body) = service.oneshot(request.body(Full::from(body)).unwrap()).await.unwrap().into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

async fn nodes(counted_in_store: bool) -> [Node; 2] {
    let time = ManualTime::at(NOW);
    let first = MemoryNode::first(GATE, Gate::DEFAULT_LEEWAY, Arc::clone(&time) as Arc<dyn TimeSource>);
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let client = client::Client { dpop: Binding::Required, ..client::Client::public("web") };
    let lenient = RoutePolicy { auth: Auth::Optional, ignores_bad_credential: true, ..RoutePolicy::default() };
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(first.another());
        let gate = Gate::builder()
            .issuer(GATE)
            .keys(Keyring::load(folder.path()).unwrap())
            .client(client.clone())
            .endpoint(Endpoint::new(OAuth2).path("/token"))
            .directory(Arc::new(Users))
            .dpop(DpopSettings { counted_in_store, ..DpopSettings::default() })
            .endpoint(Endpoint::new(Kuzzle::default()))
            .route(Route::new("/lenient", lenient.clone()))
            .route(Route::new("/_query", lenient.clone()))
            .route(Route::kuzzle_rule(["document:*"], RoutePolicy::default()).unwrap())
            .route(Route::kuzzle_rule(["*"], lenient.clone()).unwrap())
            .route(Route::catch_all(RoutePolicy::default()))
            .trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()])
            .shared_store(Arc::clone(&store) as Arc<dyn Store>)
            .time(Arc::clone(&time) as Arc<dyn TimeSource>)
            .build();
        nodes.push(Node { gate: gate.await.unwrap(), store });
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("there are two"))
}

/// A client that makes each proof once.
struct Owner(Ed25519KeyPair, std::cell::Cell<u64>);

impl Owner {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap(), std::cell::Cell::default())
    }

    fn proof(&self, method: &str, path: &str, token: Option<&str>) -> String {
        self.1.set(self.1.get() + 1);
        let htu = format!("{GATE}{path}");
        let mut claims = json!({"jti": self.1.get().to_string(), "htm": method, "htu": htu, "iat": NOW.as_secs()});
        if let Some(token) = token {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
            claims["ath"] = URL_SAFE_NO_PAD.encode(hash).into();
        }
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.0.public_key())});
        let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk});
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes())))
    }

    fn for_tokens(&self) -> String {
        self.proof("POST", "/token", None)
    }

    fn for_orders(&self, token: &str) -> String {
        self.proof("GET", "/orders", Some(token))
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn j25_a_proof_counts_once_at_the_token_endpoints_of_gates_that_share_a_store() {
    let ([a, b], owner) = (nodes(true).await, Owner::new());
    let captured = owner.for_tokens();
    let (status, first) = a.log_in(&captured).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    for node in [&b, &a] {
        let (status, refused) = node.log_in(&captured).await;
        assert_eq!((status, text(&refused, "error").as_str()), (StatusCode::BAD_REQUEST, "invalid_dpop_proof"));
    }
    assert_eq!(b.log_in(&owner.for_tokens()).await.0, StatusCode::OK, "a proof of its own");
    let (captured, held) = (owner.for_tokens(), text(&first, "refresh_token"));
    let (status, second) = a.refresh(&captured, &held).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    let (status, refused) = b.refresh(&captured, &held).await;
    assert_eq!((status, text(&refused, "error").as_str()), (StatusCode::BAD_REQUEST, "invalid_dpop_proof"));
    let (status, third) = b.refresh(&owner.for_tokens(), &text(&second, "refresh_token")).await;
    assert_eq!(status, StatusCode::OK, "the copy consumed nothing: {third}");
}

#[tokio::test]
async fn j25_a_proof_counts_once_at_the_routes_and_verdicts_of_gates_that_share_a_store() {
    let ([a, b], owner) = (nodes(true).await, Owner::new());
    let access = text(&a.log_in(&owner.for_tokens()).await.1, "access_token");
    let fresh = || owner.for_orders(&access);
    let captured = fresh();
    let (status, _, subject) = a.get("/orders", &access, &captured).await;
    assert_eq!((status, &*subject), (StatusCode::OK, &b"ada"[..]));
    let (status, headers, _) = b.get("/orders", &access, &captured).await;
    let challenge = headers.get("www-authenticate").unwrap().to_str().unwrap().to_owned();
    assert!(status == 401 && challenge.starts_with("DPoP error=\"invalid_dpop_proof\""), "{status} {challenge}");
    assert_eq!([a.status(&access, &captured).await, b.required(&access, &captured).await], [401, 401]);
    assert_eq!([a.verdict(&access, &captured).await, b.verdict(&access, &captured).await], [401, 401]);
    // A use at one place counts at all places.
    let (required, asked) = (fresh(), fresh());
    assert_eq!([a.required(&access, &required).await, b.status(&access, &required).await], [200, 401]);
    assert_eq!([a.verdict(&access, &asked).await, b.verdict(&access, &asked).await], [200, 401]);
    for node in [&a, &b] {
        let served = [node.status(&access, &fresh()).await, node.required(&access, &fresh()).await];
        assert_eq!((served, node.verdict(&access, &fresh()).await), ([200, 200], 200), "proofs of its own");
    }
    // Where a bad credential counts as no credential, a credential whose proof was used elsewhere does, too.
    let captured = owner.proof("GET", "/lenient", Some(&access));
    assert_eq!(&*a.get("/lenient", &access, &captured).await.2, b"ada");
    let (status, _, subject) = b.get("/lenient", &access, &captured).await;
    assert_eq!((status, &*subject), (StatusCode::OK, &b""[..]));
}

#[tokio::test]
async fn j25_a_call_whose_rule_needs_a_caller_is_not_forwarded_without_the_one_whose_proof_was_copied() {
    let ([a, b], owner) = (nodes(true).await, Owner::new());
    let access = text(&a.log_in(&owner.for_tokens()).await.1, "access_token");
    let fresh = || owner.proof("POST", "/_query", Some(&access));
    let (judged, open) = (fresh(), fresh());
    for (controller, proof) in [("document", &judged), ("plugin", &open)] {
        let (status, _, subject) = a.call(controller, &access, proof).await;
        assert_eq!((status, &*subject), (StatusCode::OK, &b"ada"[..]), "{controller}");
    }
    let (status, _, body) = b.call("document", &access, &judged).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body:?}");
    let (status, _, subject) = b.call("plugin", &access, &open).await;
    assert_eq!((status, &*subject), (StatusCode::OK, &b""[..]), "the route takes a bad credential for none");
    assert_eq!(&*b.call("document", &access, &fresh()).await.2, b"ada", "a proof of its own");
}

#[tokio::test]
async fn j25_a_gate_that_counts_for_itself_asks_no_other() {
    let ([a, b], owner) = (nodes(false).await, Owner::new());
    let access = text(&a.log_in(&owner.for_tokens()).await.1, "access_token");
    let captured = owner.for_orders(&access);
    b.store.set_way(Way::Cut);
    assert_eq!([a.status(&access, &captured).await, b.status(&access, &captured).await], [200, 200]);
    assert_eq!([a.status(&access, &captured).await, b.status(&access, &captured).await], [401, 401]);
}

#[tokio::test]
async fn j26_while_the_store_is_away_a_proof_counts_nowhere() {
    let ([a, b], owner) = (nodes(true).await, Owner::new());
    let access = text(&a.log_in(&owner.for_tokens()).await.1, "access_token");
    b.store.set_way(Way::Cut);
    let lost = owner.for_orders(&access);
    let (status, headers, _) = b.get("/orders", &access, &lost).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key("retry-after"), "{status}");
    let fresh = || owner.for_orders(&access);
    assert_eq!([b.required(&access, &fresh()).await, b.verdict(&access, &fresh()).await], [503, 503]);
    assert_eq!(b.log_in(&owner.for_tokens()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let lenient = owner.proof("GET", "/lenient", Some(&access));
    assert_eq!(
        b.get("/lenient", &access, &lenient).await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "it is not known to be bad"
    );
    assert_eq!(a.status(&access, &fresh()).await, 200, "the store is there for the other gate");
    b.store.set_way(Way::Open);
    assert_eq!([b.status(&access, &lost).await, b.status(&access, &fresh()).await], [401, 200]);
}
