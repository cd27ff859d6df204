//! A gate with a stand-in for a provider.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rotogate_core::clock::ManualTime;
use rotogate_core::exchange::TokenExchanger;
use rotogate_core::route::{Mcp, Resource, Route, RoutePolicy};
use rotogate_core::session::Scope;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::OWN;
use tower::{Layer, ServiceExt};

use super::ask::REFUSED_FOR;
use super::*;
use crate::Gate;
use crate::gate::NewSession;
use rotogate_core::client::Client;

/// Answers all questions alike, each with a token that names the caller's. A token that expires in 0 s is one without `expires_in`.
#[derive(Debug)]
struct StandIn {
    answer: Mutex<Result<u64, ExchangeFault>>,
    asked: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Provider(Arc<StandIn>);

#[async_trait]
impl TokenExchanger for Provider {
    async fn exchange(&self, token: &str) -> Result<ExchangedToken, ExchangeFault> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let expires_in = self.0.answer.lock().clone()?;
        let expires_in = (expires_in > 0).then(|| Duration::from_secs(expires_in));
        Ok(ExchangedToken { token: Zeroizing::new(format!("exchanged-for-{token}")), expires_in })
    }

    fn identity(&self) -> Box<[u8]> {
        Box::default()
    }
}

struct World {
    gate: Gate,
    provider: Provider,
    time: Arc<ManualTime>,
    reached: Arc<AtomicUsize>,
    /// The body of the last reply.
    last: Mutex<String>,
}

impl World {
    async fn new() -> Self {
        let provider = Provider(Arc::new(StandIn { answer: Mutex::new(Ok(310)), asked: AtomicUsize::new(0) }));
        let exchange =
            UpstreamExchange::new(["p", "u", OWN].map(Into::into), REFUSED_FOR * 60, Arc::new(provider.clone()));
        let exchange = Some(Arc::new(exchange));
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let of_mcp = |scopes| RoutePolicy {
            scopes: Scope::parse(scopes).unwrap(),
            resource: Some("/mcp".into()),
            audiences: vec!["https://api.test".into()],
            ..RoutePolicy::default()
        };
        let gate = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(Client::public("web"))
            .resource(Resource { mcp: Some(Mcp::default()), ..Resource::new("/mcp") })
            .route(Route { exchange: exchange.clone(), ..Route::new("/x", RoutePolicy::default()) })
            .route(Route { exchange, ..Route::new("/mcp", of_mcp("")) })
            .route(Route::mcp_rule(["tools/call:delete_*"], of_mcp("write")).unwrap())
            .route(Route::mcp_rule(["*"], of_mcp("")).unwrap())
            .time(Arc::<ManualTime>::clone(&time))
            .build()
            .await
            .unwrap();
        Self { gate, provider, time, reached: Arc::default(), last: Mutex::default() }
    }

    async fn token(&self) -> String {
        self.token_of("ada").await
    }

    async fn token_of(&self, subject: &str) -> String {
        let session = NewSession::new(subject, "web").scope("read").unwrap();
        self.gate.sessions().start(session).await.unwrap().access_token.expose().to_owned()
    }

    /// The status of a request, and its `Retry-After`.
    async fn send<B>(&self, token: &str, request: http::request::Builder, body: B) -> (u16, Option<u64>)
    where
        B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let reached = Arc::clone(&self.reached);
        let exchanged = format!("Bearer exchanged-for-{token}");
        let service = tower::service_fn(move |request: Request<B>| {
            assert_eq!(request.headers()[AUTHORIZATION], exchanged, "the token of this caller and of no other");
            reached.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let request = request.header(HOST, "api.test").header(AUTHORIZATION, format!("Bearer {token}"));
        let service = self.gate.layer().forward_buffered().layer(service);
        let reply = service.oneshot(request.body(body).unwrap()).await.unwrap();
        let wait = reply.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse().unwrap());
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        *self.last.lock() = String::from_utf8(body.to_vec()).unwrap();
        (status, wait)
    }

    async fn get(&self, token: &str) -> (u16, Option<u64>) {
        self.send(token, Request::get("/x"), Full::<Bytes>::default()).await
    }

    async fn call<B>(&self, token: &str, name: &str, body: B) -> (u16, Option<u64>)
    where
        B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = Request::post("/mcp").header("content-type", "application/json");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
        self.send(token, request.header("mcp-name", name), body).await
    }

    fn answers(&self, answer: Result<u64, ExchangeFault>) {
        *self.provider.0.answer.lock() = answer;
    }

    /// The exchanged tokens in memory.
    fn kept(&self) -> usize {
        self.gate.0.running.exchanges.state.lock().table.len()
    }

    fn asked(&self) -> usize {
        self.provider.0.asked.load(Ordering::SeqCst)
    }
}

fn message(name: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#).into()
}

fn later(wait: Option<u64>) -> Result<u64, ExchangeFault> {
    Err(ExchangeFault::Unavailable(wait.map(Duration::from_secs), "it answered 503".into()))
}

fn later_for_one(wait: u64) -> Result<u64, ExchangeFault> {
    Err(ExchangeFault::TooMany(Duration::from_secs(wait), "it answered 429".into()))
}

#[tokio::test]
async fn d12_a_wait_that_the_provider_names_holds_for_all_tokens_and_no_longer() {
    let world = World::new().await;
    let (token, other) = (world.token().await, world.token_of("bob").await);
    world.answers(later(Some(30)));
    assert_eq!(world.get(&token).await, (503, Some(30)));
    world.time.advance(Duration::from_secs(10));
    world.answers(Ok(310));
    for token in [&token, &other, &world.token_of("carol").await] {
        assert_eq!((world.get(token).await, world.asked()), ((503, Some(20)), 1));
    }
    world.time.advance(Duration::from_secs(20));
    assert_eq!((world.get(&other).await, world.get(&token).await, world.asked()), ((200, None), (200, None), 3));
    // A provider that names no wait is asked again.
    let world = World::new().await;
    let token = world.token().await;
    world.answers(later(None));
    assert_eq!([world.get(&token).await, world.get(&token).await], [(503, Some(1)); 2]);
    assert_eq!(world.asked(), 2);
    // The wait has a bound.
    world.answers(later(Some(86_400)));
    assert_eq!(world.get(&token).await, (503, Some(60)));
}

#[tokio::test]
async fn d12_a_wait_for_one_caller_is_for_all_its_tokens_and_holds_up_nobody_else() {
    let world = World::new().await;
    let (token, next, other) = (world.token().await, world.token().await, world.token_of("bob").await);
    world.answers(later_for_one(30));
    assert_eq!(world.get(&token).await, (503, Some(30)));
    world.answers(Ok(310));
    world.time.advance(Duration::from_secs(10));
    assert_eq!((world.get(&next).await, world.asked()), ((503, Some(20)), 1), "of the same caller");
    assert_eq!((world.get(&other).await, world.asked()), ((200, None), 2));
    // Two callers in a row: one question a second finds out that the provider answers others.
    let world = World::new().await;
    world.answers(later_for_one(30));
    for subject in ["eve", "mallory"] {
        assert_eq!(world.get(&world.token_of(subject).await).await, (503, Some(30)));
    }
    world.answers(Ok(310));
    let others = [world.token_of("bob").await, world.token_of("carol").await];
    assert_eq!((world.get(&others[0]).await, world.asked()), ((503, Some(30)), 2));
    world.time.advance(Duration::from_secs(1));
    assert_eq!((world.get(&others[0]).await, world.get(&others[1]).await), ((200, None), (200, None)));
}

#[tokio::test]
async fn d12_a_refusal_is_kept_for_five_seconds_and_one_of_the_gate_for_a_second() {
    for (fault, status, millis) in [
        (ExchangeFault::Refused, 403, 5_000),
        (ExchangeFault::StepUp("Bearer error=\"insufficient_claims\"".into()), 401, 5_000),
        (ExchangeFault::NotGranted("invalid_scope".into()), 503, 5_000),
        (ExchangeFault::Ours("invalid_client".into()), 503, 1_000),
    ] {
        let world = World::new().await;
        let token = world.token().await;
        world.answers(Err(fault.clone()));
        assert_eq!((world.get(&token).await.0, world.asked()), (status, 1), "{fault:?}");
        world.answers(Ok(310));
        world.time.advance(Duration::from_millis(millis - 1));
        assert_eq!((world.get(&token).await.0, world.asked()), (status, 1), "{fault:?}");
        world.time.advance(Duration::from_millis(1));
        assert_eq!((world.get(&token).await.0, world.asked()), (200, 2), "{fault:?}");
    }
}

#[tokio::test]
async fn d14_an_exchanged_token_is_kept_until_the_first_of_its_ends() {
    // The provider's `expires_in` less 10 s, 60 s without one, `max_age`, and the end of the caller's token.
    for (age_of_caller, expires_in, kept) in [(0, 110, 100), (0, 0, 60), (0, 100_000, 300), (550, 310, 50)] {
        let world = World::new().await;
        let token = world.token().await;
        world.time.advance(Duration::from_secs(age_of_caller));
        world.answers(Ok(expires_in));
        assert_eq!((world.get(&token).await.0, world.asked()), (200, 1));
        world.time.advance(Duration::from_secs(kept) - Duration::from_millis(1));
        world.gate.0.sweep_exchanges();
        assert_eq!(world.kept(), 1, "{expires_in}");
        world.time.advance(Duration::from_millis(1));
        world.gate.0.sweep_exchanges();
        assert_eq!(world.kept(), 0, "{expires_in}");
    }
}

#[tokio::test]
async fn d11_each_token_has_its_own_one_for_the_upstream_and_so_do_two_of_one_user() {
    let world = World::new().await;
    let tokens = [world.token().await, world.token().await, world.token_of("bob").await];
    for _ in 0..3 {
        for token in &tokens {
            // The service asserts for whom the token is.
            assert_eq!(world.get(token).await, (200, None));
        }
    }
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn d13_a_provider_has_a_bound_for_all_callers_together() {
    let world = World::new().await;
    let token = world.token().await;
    let gate = &world.gate.0;
    let provider: Arc<str> = "p".into();
    let of = |number: u32| Holder::address(std::net::Ipv4Addr::from_bits(number).into());
    let take = |number: u32| gate.running.exchanges.state.lock().take_place(gate, &provider, of(number));
    let mut places: Vec<_> = (0..256).map(|number| take(number).unwrap()).collect();
    assert_eq!(take(1_000).err(), Some(UNAVAILABLE), "a caller without a place of its own");
    assert_eq!((world.get(&token).await, world.asked()), ((503, Some(1)), 0));
    places.pop();
    assert_eq!((world.get(&token).await, world.asked()), ((200, None), 1));
}

#[tokio::test]
async fn d12_an_explanation_says_that_the_provider_was_not_asked() {
    let world = World::new().await;
    let token = world.token().await;
    let explained = async |token: &str| {
        let request = Request::get("/x").header(HOST, "api.test").header(AUTHORIZATION, format!("Bearer {token}"));
        world.gate.layer().explain(request.body(()).unwrap().into_parts().0).await
    };
    let passed = explained(&token).await;
    assert_eq!((passed.outcome, world.asked()), ("passed", 0));
    assert!(passed.advice.is_some_and(|advice| advice.contains("was not asked")), "{:?}", passed.advice);
    assert_eq!(explained("x").await.advice, None, "a refused request has no exchange");
}

#[tokio::test]
async fn d15_a_revocation_drops_the_exchanged_tokens_of_an_idle_gate() {
    let world = World::new().await;
    let (gone, other) = (world.token().await, world.token_of("bob").await);
    assert_eq!((world.get(&gone).await.0, world.get(&other).await.0, world.kept()), (200, 200, 2));
    world.gate.sessions().revoke_all(crate::gate::Whose::Subject("ada")).await.unwrap();
    world.gate.0.sweep_exchanges();
    assert_eq!((world.kept(), world.get(&other).await.0, world.asked()), (1, 200, 2));
}

#[tokio::test]
async fn d14_a_renewal_that_fails_pauses_and_the_live_token_serves_on() {
    for (named, paused) in [(Some(20), 20), (None, 1)] {
        let world = World::new().await;
        let token = world.token().await;
        assert_eq!((world.get(&token).await, world.asked()), ((200, None), 1));
        world.time.advance(Duration::from_secs(245));
        world.answers(later(named));
        for (asked, pause) in [(2, 0), (2, paused - 1), (3, 1)] {
            world.time.advance(Duration::from_secs(pause));
            for _ in 0..3 {
                assert_eq!(world.get(&token).await, (200, None));
                // The renewal is in flight; it ends with its entry among the flights.
                while !world.gate.0.running.exchanges.flights.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(world.asked(), asked, "{named:?} {pause}");
        }
    }
}

#[tokio::test]
async fn d15_a_call_that_its_body_refuses_makes_no_exchange() {
    let world = World::new().await;
    let token = world.token().await;
    for (name, said) in [("delete_all", "delete_all"), ("list", "delete_all"), ("list", "\"")] {
        let (status, _) = world.call(&token, name, Full::from(message(said))).await;
        assert!((400..404).contains(&status), "{name} {said} {status}");
    }
    assert_eq!((world.asked(), world.reached.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(world.call(&token, "list", Full::from(message("list"))).await, (200, None));
    assert_eq!((world.asked(), world.reached.load(Ordering::SeqCst)), (1, 1));
}

/// A body that arrives after its first poll, or breaks off.
struct LateBody {
    polled: Option<tokio::sync::oneshot::Sender<()>>,
    body: Option<tokio::sync::oneshot::Receiver<Bytes>>,
    whole: Option<Bytes>,
}

impl From<Bytes> for LateBody {
    fn from(whole: Bytes) -> Self {
        Self { polled: None, body: None, whole: Some(whole) }
    }
}

impl http_body::Body for LateBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<http_body::Frame<Bytes>>>> {
        if let Some(polled) = self.polled.take() {
            polled.send(()).unwrap();
        }
        if let Some(body) = &mut self.body {
            let arrived = std::task::ready!(std::pin::Pin::new(body).poll(cx));
            self.body = None;
            match arrived {
                Ok(whole) => self.whole = Some(whole),
                Err(_) => return std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            }
        }
        std::task::Poll::Ready(self.whole.take().map(|whole| Ok(http_body::Frame::data(whole))))
    }
}

impl LateBody {
    fn new() -> (Self, tokio::sync::oneshot::Receiver<()>, tokio::sync::oneshot::Sender<Bytes>) {
        let ((polled, is_polled), (arrives, body)) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
        (Self { polled: Some(polled), body: Some(body), whole: None }, is_polled, arrives)
    }
}

#[tokio::test]
async fn s28_d15_a_caller_who_is_revoked_or_expires_while_the_body_arrives_is_refused() {
    for (revoked, expired, status) in [(false, false, 200), (true, false, 401), (false, true, 401)] {
        let world = World::new().await;
        let token = world.token().await;
        let (body, polled, arrives) = LateBody::new();
        let meanwhile = async {
            polled.await.unwrap();
            if revoked {
                world.gate.sessions().revoke_all(crate::gate::Whose::Subject("ada")).await.unwrap();
            }
            world.time.advance(Duration::from_secs(if expired { 86_400 } else { 0 }));
            arrives.send(message("list")).unwrap();
        };
        let ((found, _), ()) = tokio::join!(world.call(&token, "list", body), meanwhile);
        let forwarded = usize::from(status == 200);
        assert_eq!((found, world.asked(), world.reached.load(Ordering::SeqCst)), (status, forwarded, forwarded));
    }
}

#[tokio::test(start_paused = true)]
async fn m1_a_body_that_comes_too_slowly_is_408_and_one_that_breaks_off_is_no_json() {
    let world = World::new().await;
    let token = world.token().await;
    let (body, _polled, _arrives) = LateBody::new();
    assert_eq!(world.call(&token, "list", body).await, (408, None));
    let (body, _polled, arrives) = LateBody::new();
    drop(arrives);
    assert_eq!(world.call(&token, "list", body).await, (400, None));
    assert_eq!(
        *world.last.lock(),
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error: the body is not JSON"}}"#
    );
    assert_eq!(world.reached.load(Ordering::SeqCst), 0);
}
