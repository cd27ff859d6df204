//! Limits of routes by their callers, through the layer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::gate::{Authorizer, BuildError, Conclusion, GateBuilder, Neighbour, NewSession, Peer, Rule};
use rotogate::route::{LimitPer, Mcp, RateLimit, Resource, Route, RoutePolicy};
use rotogate::store::Store;
use rotogate::token::Algorithm;
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::store::conformance::nodes::{MemoryNode, Way};
use rotogate_core::token::keyring::Keyring;
use serde_json::json;
use support::events::Events;
use tower::{Layer, ServiceExt, service_fn};

use crate::client::{Server, send};
use crate::{builder, tokens};

const MINUTE: Duration = Duration::from_secs(60);

fn per_subject(requests: u32) -> RateLimit {
    RateLimit::new(LimitPer::Subject, requests, MINUTE).named("mine")
}

fn limited(policy: RoutePolicy, limits: &[RateLimit]) -> Route {
    Route::new("/{*rest}", limits.iter().cloned().fold(policy, RoutePolicy::limit))
}

/// The number of requests at the service behind the gate.
#[derive(Clone, Default)]
struct Served(Arc<AtomicUsize>);

impl Served {
    fn number(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn ask(gate: &Gate, served: &Served, token: Option<&str>, more: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri("/x").header("host", "api.test");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in more {
        request = match *name {
            "method" => request.method(*value),
            name => request.header(name, *value),
        };
    }
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Peer::new("192.0.2.1".parse().unwrap(), false));
    let served = served.clone();
    let service = gate.layer().layer(service_fn(move |_: Request<Empty<Bytes>>| {
        served.0.fetch_add(1, Ordering::Relaxed);
        async {
            Ok::<_, Infallible>(
                Response::builder().header("ratelimit", "\"app\";r=1").body(Full::<Bytes>::default()).unwrap(),
            )
        }
    }));
    let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

async fn token_of(gate: &Gate, subject: &str) -> String {
    gate.sessions().start(NewSession::new(subject, "web")).await.unwrap().access_token.expose().to_owned()
}

#[tokio::test]
async fn k18_k19_k20_a_request_beyond_a_limit_is_refused_with_its_name_and_reaches_no_service() {
    let gate = builder().route(limited(RoutePolicy::optional(), &[per_subject(2)])).build().await.unwrap();
    let served = Served::default();
    let (ada, ben) = (token_of(&gate, "ada").await, token_of(&gate, "ben").await);
    let events = Events::collect(|metadata| metadata.target() == "rotogate::audit");
    for _ in 0..2 {
        let passed = ask(&gate, &served, Some(&ada), &[]).await;
        assert_eq!(
            (passed.status, passed.header("ratelimit"), passed.header("ratelimit-policy")),
            (200, "\"app\";r=1", "")
        );
    }
    let refused = ask(&gate, &served, Some(&ada), &[]).await;
    assert_eq!((refused.status, served.number()), (429, 2));
    assert_eq!(refused.header("retry-after"), "30");
    assert_eq!(refused.header("ratelimit-policy"), "\"mine\";q=2;w=60");
    assert_eq!(refused.header("ratelimit"), "\"mine\";r=0;t=30");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let problem = refused.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&problem["status"], &problem["violated-policies"]), (&json!(429), &json!(["mine"])));
    // The trail names limit and caller, once.
    ask(&gate, &served, Some(&ada), &[]).await;
    let lines = events.taken();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let said = |name: &str| line[name].as_str();
    assert_eq!((said("event"), said("limit"), said("user.id")), ("rate_limited", "mine", "ada"));
    assert_eq!((said("rotogate.client.id"), said("client.address")), ("web", "192.0.2.1"));
    // gRPC has its own words.
    let grpc = ask(&gate, &served, Some(&ada), &[("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, "8"));
    // Other callers have their own counts, and callers without a token share one.
    assert_eq!(ask(&gate, &served, Some(&ben), &[]).await.status, 200);
    let anonymous = [ask(&gate, &served, None, &[]).await, ask(&gate, &served, None, &[]).await];
    assert_eq!(anonymous.map(|answer| answer.status), [200, 200]);
    assert_eq!(ask(&gate, &served, None, &[]).await.status, 429);
    // A forged token of Ben's does not count.
    let forged = format!("{}AAAA", &ben[..ben.len() - 4]);
    for _ in 0..5 {
        assert_eq!(ask(&gate, &served, Some(&forged), &[]).await.status, 401);
    }
    assert_eq!(ask(&gate, &served, Some(&ben), &[]).await.status, 200);
    assert_eq!(gate.refused_requests(), [("mine", 4)]);
}

#[tokio::test]
async fn k15_an_address_that_a_client_makes_up_has_no_count_of_its_own() {
    let limit = RateLimit::new(LimitPer::Address, 1, MINUTE);
    let gate = builder().route(limited(RoutePolicy::optional(), &[limit])).build().await.unwrap();
    let statuses = async |header: &str| {
        let made_up = [(header, "203.0.113.9")];
        ask(&gate, &Served::default(), None, &made_up).await.status
    };
    assert_eq!([statuses("x-forwarded-for").await, statuses("x-forwarded-for").await], [200, 429]);
    assert_eq!(statuses("x-real-ip").await, 429);
}

#[tokio::test]
async fn k18_preflights_are_free() {
    let policy = RoutePolicy { preflight_to_upstream: true, ..RoutePolicy::default() };
    let gate = builder().route(limited(policy, &[RateLimit::new(LimitPer::Route, 1, MINUTE)])).build().await.unwrap();
    let (served, ada) = (Served::default(), token_of(&gate, "ada").await);
    let preflight = [("method", "OPTIONS"), ("origin", "https://app.test"), ("access-control-request-method", "GET")];
    for _ in 0..3 {
        assert_eq!(ask(&gate, &served, None, &preflight).await.status, 200);
    }
    assert_eq!(ask(&gate, &served, Some(&ada), &[]).await.status, 200);
    assert_eq!(ask(&gate, &served, Some(&ada), &[]).await.status, 429);
}

#[tokio::test]
async fn k19_a_gate_says_always_or_never_what_is_left() {
    let limits = [per_subject(3), RateLimit::new(LimitPer::Route, 100, MINUTE).named("all")];
    let with = async |headers| {
        let gate =
            builder().rate_headers(headers).route(limited(RoutePolicy::default(), &limits)).build().await.unwrap();
        let ada = token_of(&gate, "ada").await;
        (gate, ada)
    };
    let served = Served::default();
    let (gate, ada) = with(true).await;
    let passed = ask(&gate, &served, Some(&ada), &[]).await;
    assert_eq!(passed.header("ratelimit-policy"), "\"mine\";q=3;w=60, \"all\";q=100;w=60");
    let said: Vec<_> = passed.headers.get_all("ratelimit").iter().collect();
    assert_eq!(said, ["\"app\";r=1", "\"mine\";r=2;t=20, \"all\";r=99;t=1"], "the service's own stay");
    let (gate, ada) = with(false).await;
    for status in [200, 200, 200, 429] {
        let answer = ask(&gate, &served, Some(&ada), &[]).await;
        assert_eq!((answer.status, answer.header("ratelimit-policy")), (status, ""));
    }
}

#[tokio::test]
async fn k20_a_proxy_that_asks_is_told_429() {
    let gate = builder().route(limited(RoutePolicy::default(), &[per_subject(1)])).build().await.unwrap();
    let ada = token_of(&gate, "ada").await;
    let mut said = Vec::new();
    for neighbour in [Neighbour::Nginx, Neighbour::Envoy] {
        let authorizer = Authorizer::new(&gate, neighbour).trusting_all();
        for _ in 0..2 {
            let head = Request::get("/x").header("host", "api.test").header("authorization", format!("Bearer {ada}"));
            let reply = authorizer.decide(Ok(head.body(()).unwrap().into_parts().0)).await;
            let limit = reply.headers().get("ratelimit").map_or("", |value| value.to_str().unwrap()).to_owned();
            said.push((reply.status().as_u16(), limit));
        }
    }
    assert_eq!(said[0], (200, String::new()));
    assert!(said[1..].iter().all(|(status, limit)| *status == 429 && limit.starts_with("\"mine\";r=0")), "{said:?}");
}

#[tokio::test]
async fn k20_calls_in_an_envelope_count_with_the_routes_that_govern_them() {
    let rule = |calls, limit| Route::kuzzle_rule([calls], RoutePolicy::default().limit(limit)).unwrap();
    let gate = builder()
        .endpoint(rotogate::gate::Endpoint::new(rotogate::dialect::kuzzle::Kuzzle::default()))
        .route(limited(RoutePolicy::default(), &[per_subject(4)]))
        .route(rule("document:*", RateLimit::new(LimitPer::Subject, 2, MINUTE).named("documents")))
        .build()
        .await
        .unwrap();
    let (ada, _) = tokens(&gate, "read").await;
    let app = Router::new().fallback(any(async || "passed")).layer(gate.layer().forward_buffered());
    let server = Server::axum(app).await;
    let call = async |controller: &str| {
        let body = json!({"controller": controller, "action": "get"}).to_string();
        let request = server.request("/_query").method(Method::POST).header("authorization", format!("Bearer {ada}"));
        send(request.body(body).unwrap()).await
    };
    assert_eq!([call("document").await.status, call("document").await.status], [StatusCode::OK; 2]);
    let refused = call("document").await;
    assert_eq!((refused.status, &refused.json()["error"]["status"]), (StatusCode::TOO_MANY_REQUESTS, &json!(429)));
    assert_eq!([call("plugin").await.status, call("plugin").await.status], [StatusCode::OK; 2], "it counted nowhere");
    assert_eq!(call("plugin").await.status, StatusCode::TOO_MANY_REQUESTS, "the envelope's route has four");
}

#[tokio::test]
async fn k20_calls_of_tools_count_with_their_rule_and_their_route() {
    for check in [false, true] {
        let policy = || RoutePolicy {
            audiences: vec!["https://api.test".into()],
            resource: Some("/mcp".into()),
            ..RoutePolicy::default()
        };
        let rule = |calls, policy| Route::mcp_rule([calls], policy).unwrap();
        let dear = RateLimit::new(LimitPer::Subject, 1, MINUTE).named("dear");
        let gate = builder()
            .resource(Resource { mcp: Some(Mcp { headers_alone: check, ..Mcp::default() }), ..Resource::new("/mcp") })
            .route(Route::new("/mcp", policy().limit(per_subject(3))))
            .route(rule("tools/call:pay", policy().limit(dear)))
            .route(rule("*", policy()))
            .build()
            .await
            .unwrap();
        let (ada, _) = tokens(&gate, "read").await;
        let app = Router::new().route("/mcp", any(async || "passed")).layer(gate.layer().forward_buffered());
        let server = Server::axum(app).await;
        let call = async |name: &str| {
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}).to_string();
            let request = server.request("/mcp").method(Method::POST).header("authorization", format!("Bearer {ada}"));
            let request =
                request.header("mcp-protocol-version", "2026-07-28").header("content-type", "application/json");
            let request = request.header("mcp-method", "tools/call").header("mcp-name", name);
            send(request.body(body).unwrap()).await
        };
        assert_eq!(call("pay").await.status, StatusCode::OK);
        let refused = call("pay").await;
        assert_eq!(
            (refused.status, &refused.json()["violated-policies"]),
            (StatusCode::TOO_MANY_REQUESTS, &json!(["dear"]))
        );
        assert_eq!([call("look").await.status, call("look").await.status], [StatusCode::OK; 2], "it counted nowhere");
        assert_eq!(call("look").await.json()["violated-policies"], json!(["mine"]));
    }
}

#[tokio::test]
async fn k21_k23_new_rules_keep_the_counts_and_unusable_ones_change_nothing() {
    let with = |limits: &[RateLimit]| builder().route(limited(RoutePolicy::default(), limits));
    let (gate, served) = (with(&[per_subject(2)]).build().await.unwrap(), Served::default());
    let ada = token_of(&gate, "ada").await;
    for status in [200, 200, 429] {
        assert_eq!(ask(&gate, &served, Some(&ada), &[]).await.status, status);
    }
    let unusable = || with(&[per_subject(9), per_subject(5)]);
    assert!(matches!(unusable().build().await, Err(BuildError::Limit { .. })));
    assert!(matches!(gate.prepare_rules(unusable()), Err(BuildError::Limit { .. })));
    assert_eq!(ask(&gate, &served, Some(&ada), &[]).await.header("ratelimit-policy"), "\"mine\";q=2;w=60");
    let gate = gate.use_rules(gate.prepare_rules(with(&[per_subject(4)])).unwrap());
    let refused = ask(&gate, &served, Some(&ada), &[]).await;
    assert_eq!((refused.status, refused.header("ratelimit-policy")), (429, "\"mine\";q=4;w=60"), "it is still used up");
    let ben = token_of(&gate, "ben").await;
    for status in [200, 200, 200, 200, 429] {
        assert_eq!(ask(&gate, &served, Some(&ben), &[]).await.status, status);
    }
    assert_eq!(gate.refused_requests(), [("mine", 4)]);
    let alone = || with(&[per_subject(2).over_gates()]).limits_per_node();
    assert!(matches!(alone().build().await, Err(BuildError::Limit { .. })), "gates that count alone share no limit");
}

#[tokio::test]
async fn k24_an_explanation_names_the_limit_and_counts_nothing() {
    let gate = builder().route(limited(RoutePolicy::default(), &[per_subject(1)])).build().await.unwrap();
    let (ada, served) = (token_of(&gate, "ada").await, Served::default());
    let explained = async || {
        let request = Request::get("/x").header("host", "api.test").header("authorization", format!("Bearer {ada}"));
        let explanation = gate.layer().explain(request.body(()).unwrap().into_parts().0).await;
        let rule = explanation.rules.iter().find(|verdict| verdict.rule == Rule::Quota).unwrap().detail.clone();
        (explanation.decision, explanation.status, rule)
    };
    for _ in 0..3 {
        assert_eq!(explained().await, (Conclusion::Passed, None, "within mine".to_owned()));
    }
    assert_eq!(ask(&gate, &served, Some(&ada), &[]).await.status, 200);
    let (decision, status, rule) = explained().await;
    assert_eq!((decision, status), (Conclusion::Refused, Some(429)));
    assert!(rule.starts_with("mine: the next request is admitted in "), "{rule}");
    assert_eq!(gate.refused_requests(), [("mine", 0)]);
}

/// Gates of one store, with this limit.
async fn gates(number: usize, limit: RateLimit) -> Vec<(Arc<MemoryNode>, Gate)> {
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let first = MemoryNode::first("https://api.test", Gate::DEFAULT_LEEWAY, Arc::clone(&time) as Arc<dyn TimeSource>);
    let mut gates = Vec::new();
    for _ in 0..number {
        let store = Arc::new(first.another());
        let builder: GateBuilder = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::load(folder.path()).unwrap())
            .client(Client::public("web"))
            .route(limited(RoutePolicy::default(), std::slice::from_ref(&limit)))
            .shared_store(Arc::clone(&store) as Arc<dyn Store>)
            .time(Arc::clone(&time) as Arc<dyn TimeSource>);
        gates.push((store, builder.build().await.unwrap()));
    }
    gates
}

/// The number of passed requests, of this many requests at all gates in turn.
async fn passed(gates: &[(Arc<MemoryNode>, Gate)], number: usize) -> usize {
    let token = token_of(&gates[0].1, "ada").await;
    passed_with(gates, number, &token).await
}

async fn passed_with(gates: &[(Arc<MemoryNode>, Gate)], number: usize, token: &str) -> usize {
    let (served, mut passed) = (Served::default(), 0);
    for n in 0..number {
        passed += usize::from(ask(&gates[n % gates.len()].1, &served, Some(token), &[]).await.status == 200);
    }
    assert_eq!(passed, served.number());
    passed
}

#[tokio::test]
async fn k16_gates_of_one_store_admit_a_limit_together() {
    let small = gates(5, per_subject(10).over_gates()).await;
    assert_eq!(passed(&small, 100).await, 10);
    let alone = gates(5, per_subject(10)).await;
    assert_eq!(passed(&alone, 100).await, 50, "where each gate counts for itself");
    // Gates that take requests in advance: only the held requests can be missing.
    let large = gates(3, RateLimit::new(LimitPer::Subject, 600, MINUTE).over_gates()).await;
    let admitted = passed(&large, 900).await;
    assert!((595..=600).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn k17_a_gate_without_its_store_goes_on_with_its_share() {
    let limit = RateLimit::new(LimitPer::Subject, 60, MINUTE).over_gates();
    let gates = gates(3, limit).await;
    let token = token_of(&gates[0].1, "ada").await;
    for (store, _) in &gates {
        store.set_way(Way::Cut);
    }
    let admitted = passed_with(&gates[2..], 100, &token).await;
    assert!((20..=60).contains(&admitted), "{admitted}: neither open nor closed");
}
