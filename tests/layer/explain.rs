//! The answer of `explain` about a request, compared with the request's own result.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::my_sessions::MySessions;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{
    Browser, Conclusion, Endpoint, Explanation, NewSession, Peer, Rate, Rates, Rule, RuleResult, Verdict, Whose,
};
use rotogate::route::{Auth, Condition, Route, RoutePolicy, StepUp};
use rotogate::session::Scope;
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::introspection::{Introspection, IntrospectionFault, Introspector};
use rotogate_core::store::conformance::nodes::{MemoryNode, Way};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::live_keys::{FetchRules, LiveKeys};
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Keys};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::issuer::{self, Issuer, claims, header};

const HOST: &str = "api.test";
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

type Head = Request<()>;

/// A `GET` of a path with these headers.
fn get(path: &str, headers: &[(&str, &str)]) -> Head {
    let mut request = Request::get(path).header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    request.extensions_mut().insert(Peer::new(FROM, true));
    request
}

fn with(path: &str, token: &str) -> Head {
    get(path, &[("authorization", &format!("Bearer {token}"))])
}

fn method(method: Method, request: Head) -> Head {
    let (mut parts, ()) = request.into_parts();
    parts.method = method;
    Request::from_parts(parts, ())
}

/// Asks for an explanation, then sends the request, and compares. An explanation changes nothing, so a second one gives
/// the same answer.
async fn agree(gate: &Gate, request: &Head) -> Explanation {
    let layer = gate.layer().rewriting();
    let before = gate.counts();
    let explained = layer.explain(request.clone().into_parts().0).await;
    let again = layer.explain(request.clone().into_parts().0).await;
    assert_eq!((explained.outcome, explained.status), (again.outcome, again.status), "{request:?}");
    assert_eq!(gate.counts(), before, "{request:?}: something was kept");
    let inner =
        service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
    let service = layer.annotated().layer(inner);
    let reply = service.oneshot(request.clone().map(|()| Full::default())).await.unwrap();
    let verdict = reply.extensions().get::<Verdict>().unwrap();
    let (outcome, detail) = (verdict.reason.word(), verdict.reason.detail());
    assert_eq!((explained.outcome, explained.detail), (outcome, detail), "{request:?}");
    assert_eq!(explained.route.as_ref().map(|r| &r.id), verdict.route.as_ref().map(|r| &r.id), "{request:?}");
    if explained.denial.is_some() {
        assert_eq!(explained.status, Some(reply.status().as_u16()), "{request:?}");
        let challenge = reply.headers().get("www-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(explained.challenge.as_deref(), challenge, "{request:?}");
    } else {
        assert_eq!((explained.decision, explained.status), (Conclusion::Passed, None), "{request:?}");
    }
    coherent(&explained, request);
    explained
}

/// The refusing rule is the failed one, each rule is listed once, a permitted request has no failed rule, and the token
/// does not occur.
fn coherent(explained: &Explanation, request: &Head) {
    let result = |rule| explained.rules.iter().find(|verdict| verdict.rule == rule).map(|verdict| verdict.result);
    match explained.denial {
        Some(denial) => {
            assert_eq!(result(denial.rule()), Some(RuleResult::Fail), "{request:?}: {explained:?}");
        }
        None => assert!(explained.rules.iter().all(|verdict| verdict.result != RuleResult::Fail), "{explained:?}"),
    }
    assert_eq!(explained.rules.len(), 18, "{explained:?}");
    assert!(explained.rules.iter().all(|verdict| !verdict.detail.is_empty()), "{explained:?}");
    let shown = format!("{explained:?}");
    for value in request.headers().get_all("authorization") {
        let token = value.to_str().unwrap().split(' ').next_back().unwrap();
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.len() < 20 || !shown.contains(signature), "{shown}");
    }
}

/// An introspected issuer whose tokens are all inactive.
#[derive(Debug, Default)]
struct Inactive(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Introspector for Inactive {
    async fn introspect(&self, _: &str) -> Result<Bytes, IntrospectionFault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::from_static(br#"{"active":false}"#))
    }

    fn identity(&self) -> Box<[u8]> {
        (*b"inactive").into()
    }
}

struct World {
    gate: Gate,
    idp: Issuer,
    /// The keys of an issuer that are not fetched yet.
    live: Arc<LiveKeys>,
    asked: Arc<AtomicUsize>,
}

fn named(id: &str, path: &str, policy: RoutePolicy) -> Route {
    Route { id: id.into(), ..Route::new(path, policy) }
}

async fn world() -> World {
    let idp = Issuer::new(1);
    let keys = IssuerKeys::from_jwks(json!({ "keys": [idp.jwk("k1")] }).to_string().as_bytes(), None).unwrap();
    let audience = || vec!["api".into()];
    let trusted = IssuerRules::external(issuer::URL, audience(), keys).named("idp").roles(["groups"]).unwrap();
    let live = LiveKeys::fetched(FetchRules { cooldown: Duration::from_secs(60), timeout: Duration::from_secs(1) });
    let mut fetched = IssuerRules::external("https://far.test", audience(), IssuerKeys::unknown()).named("far");
    fetched.keys = Keys::Live(Arc::clone(&live));
    let asked = Arc::new(AtomicUsize::new(0));
    let introspection = Introspection::by(Inactive(Arc::clone(&asked)));
    let opaque = IssuerRules::introspected("https://opaque.test", audience(), introspection).named("opaque");
    let strict = RoutePolicy::default;
    let gold = StepUp { acr: vec!["gold".into()], max_age: None };
    let gate = Gate::builder()
        .issuer("https://api.test")
        .audience(["api"])
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
        .endpoint(Endpoint::new(MySessions::default()))
        .endpoint(Endpoint::new(MySessions { needs_scope: true, ..MySessions::default() }).path("/scoped"))
        .browser(Browser::own("/auth"))
        .hosts([HOST])
        .rates(Rates { forged_per_address: Rate::new(100, Duration::from_secs(60)), ..Rates::default() })
        .trusted_issuer(trusted.everywhere())
        .trusted_issuer(fetched.everywhere())
        .trusted_issuer(opaque)
        .route(named("open", "/open", RoutePolicy::public()))
        .route(named("maybe", "/maybe", RoutePolicy::optional()))
        .route(named("lenient", "/lenient", RoutePolicy { ignores_bad_credential: true, ..RoutePolicy::optional() }))
        .route(named("admin", "/admin/{*rest}", RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..strict() }))
        .route(named("any", "/any", RoutePolicy { any_scope: Scope::parse("a b").unwrap(), ..strict() }))
        .route(named("theirs", "/theirs", RoutePolicy { issuers: vec!["idp".into()], ..strict() }))
        .route(named("asked", "/asked", RoutePolicy { issuers: vec!["opaque".into()], ..strict() }))
        .route(named("reports", "/reports", RoutePolicy { audiences: vec!["reports".into()], ..strict() }))
        .route(named(
            "board",
            "/board",
            RoutePolicy { issuers: vec!["idp".into()], ..strict() }.role("staff").all_roles(["chair", "member"]),
        ))
        .route(named("staff", "/staff", RoutePolicy { issuers: vec!["idp".into()], ..strict() }.role("staff")))
        .route(named(
            "payroll",
            "/payroll",
            RoutePolicy { issuers: vec!["idp".into()], step_up: Some(gold.clone()), ..strict() }.role("staff"),
        ))
        .route(named("orgs", "/orgs/{org}/{*rest}", conditioned()))
        .route(named("pay", "/pay", RoutePolicy { step_up: Some(gold), ..strict() }))
        .route(named("browser", "/browser", RoutePolicy { cookie: Some("token".into()), ..strict() }))
        .route(named("page", "/page", strict().session()))
        .route(Route { methods: vec![Method::GET], ..named("read", "/read", strict()) })
        .route(named("rest", "/{*rest}", RoutePolicy { auth: Auth::Required, ..strict() }))
        .build()
        .await
        .unwrap();
    World { gate, idp, live, asked }
}

impl World {
    async fn access(&self, subject: &str, scope: &str) -> String {
        let session = NewSession::new(subject, "web").scope(scope).unwrap();
        self.gate.sessions().start(session).await.unwrap().access_token.expose().to_owned()
    }

    /// `Cookie` of a browser in which this user has logged in.
    async fn session(&self, subject: &str) -> String {
        let login = get("/login", &[("origin", "https://api.test")]).into_parts().0;
        let headers = self.gate.browser().begin(&login, NewSession::new(subject, "web")).await.unwrap();
        headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn theirs(&self, changes: &Value) -> String {
        self.idp.token(changes)
    }

    fn headed(&self, changes: &Value) -> String {
        let mut head = header();
        for (name, value) in changes.as_object().unwrap() {
            head[name] = value.clone();
        }
        self.idp.sign(&head, &claims(&json!({})))
    }
}

/// Refused requests, each with the outcome, and then permitted ones.
async fn table(world: &World) -> Vec<(&'static str, Head)> {
    let own = world.access("ada", "read").await;
    let ended = world.access("bob", "read").await;
    let (session, over) = (world.session("ada").await, world.session("bob").await);
    let unknown = format!("{}AAAA", &session[..session.len() - 4]);
    world.gate.sessions().revoke_all(Whose::Subject("bob")).await.unwrap();
    let forged = format!("{}.{}", own.rsplit_once('.').unwrap().0, "A".repeat(86));
    let bare = |path: &str| get(path, &[]);
    let hostless = {
        let mut request = bare("/rest");
        request.headers_mut().remove("host");
        request
    };
    let elsewhere = {
        let mut request = with("/rest", &own);
        request.headers_mut().insert("host", "other.test".parse().unwrap());
        request
    };
    let cookie = format!("token={own}");
    let access_cookie = format!("{}={own}", MySessions::default().cookie);
    let post = |request| method(Method::POST, request);
    let far = |path: &str| with(path, &world.theirs(&json!({ "iss": "https://far.test" })));
    vec![
        ("tunnel", method(Method::CONNECT, bare("/rest"))),
        ("bad_framing", get("/rest", &[("content-length", "1"), ("content-length", "2")])),
        ("bad_host", hostless),
        ("bad_target", bare("*")),
        ("bad_query", bare("/rest?q=\u{e9}")),
        ("target_too_long", bare(&format!("/{}", "a".repeat(9000)))),
        ("unknown_host", elsewhere),
        ("bad_path", with("/a%00b", &own)),
        ("near_miss", bare("/Token")),
        ("ambiguous_path", with("/ADMIN/x", &own)),
        ("method_not_allowed", post(with("/read", &own))),
        ("no_credential", bare("/rest")),
        ("unusable_credential", get("/rest", &[("authorization", "Basic YTpi")])),
        ("unusable_credential", bare("/rest?access_token=x")),
        ("two_credentials", get("/rest", &[("authorization", "Bearer a"), ("authorization", "Bearer b")])),
        ("two_credentials", get("/open", &[("authorization", "Bearer a"), ("authorization", "Bearer b")])),
        ("malformed_token", with("/rest", "junk")),
        ("cross_origin", post(get("/browser", &[("cookie", &cookie), ("origin", "https://evil.test")]))),
        ("unknown_issuer", with("/rest", &world.theirs(&json!({ "iss": "https://nobody.test" })))),
        ("unknown_key", with("/rest", &world.headed(&json!({ "kid": "k9" })))),
        ("wrong_algorithm", with("/rest", &world.headed(&json!({ "alg": "RS256" })))),
        ("wrong_type", with("/rest", &world.headed(&json!({ "typ": "logout+jwt" })))),
        ("bad_signature", with("/rest", &forged)),
        ("bad_signature", with("/maybe", &forged)),
        ("bad_claim", with("/rest", &world.theirs(&json!({ "exp": null })))),
        ("unproved_binding", with("/rest", &world.theirs(&json!({ "cnf": { "jkt": "x" } })))),
        ("token_expired", with("/rest", &world.theirs(&json!({ "exp": 1_000_000_000 })))),
        (
            "token_not_yet_valid",
            with("/rest", &world.theirs(&json!({ "nbf": 9_000_000_000_u64, "exp": 9_000_000_600_u64 }))),
        ),
        ("token_revoked", with("/rest", &ended)),
        ("token_revoked", with("/admin/x", &ended)),
        ("session_over", get("/page", &[("cookie", &over)])),
        ("unknown_session_cookie", get("/page", &[("cookie", &unknown)])),
        ("no_credential", get("/rest", &[("cookie", &session)])),
        ("two_credentials", get("/page", &[("cookie", &session), ("cookie", &session)])),
        ("cross_origin", post(get("/page", &[("cookie", &session), ("origin", "https://evil.test")]))),
        ("keys_unavailable", far("/rest")),
        ("introspection_unavailable", with("/asked", "opaque-text")),
        ("wrong_issuer", with("/theirs", &own)),
        ("wrong_audience", with("/reports", &own)),
        ("insufficient_scope", with("/admin/x", &own)),
        ("insufficient_scope", with("/any", &own)),
        ("insufficient_authentication", with("/pay", &own)),
        ("condition", with("/orgs/acme/a", &own)),
        ("condition", with("/orgs/other/a", &world.theirs(&json!({ "org_id": "acme", "plan": "pro" })))),
        ("condition", with("/orgs/acme/a", &world.theirs(&json!({ "org_id": "acme", "plan": "free" })))),
        ("condition", with("/orgs/acme/a", &world.theirs(&json!({ "org_id": "acme" })))),
        ("passed", with("/orgs/acme/a", &world.theirs(&json!({ "org_id": "acme", "plan": "pro" })))),
        ("passed", with("/orgs/%61cme/a", &world.theirs(&json!({ "org_id": "acme", "plan": "pro" })))),
        ("missing_role", with("/staff", &world.theirs(&json!({ "groups": ["guests"] })))),
        ("missing_role", with("/board", &world.theirs(&json!({ "groups": ["staff", "chair"] })))),
        ("missing_role", with("/board", &world.theirs(&json!({ "groups": ["chair", "member"] })))),
        ("passed", with("/board", &world.theirs(&json!({ "groups": ["staff", "chair", "member"] })))),
        ("roles_overage", with("/staff", &world.theirs(&json!({ "_claim_names": { "groups": "src1" } })))),
        ("passed", with("/rest", &own)),
        ("passed", with("/rest", &world.theirs(&json!({})))),
        ("passed", with("/theirs", &world.theirs(&json!({})))),
        ("passed", with("/staff", &world.theirs(&json!({ "groups": ["staff"] })))),
        ("passed", get("/page", &[("cookie", &session)])),
        ("passed", bare("/open")),
        ("passed", bare("/maybe")),
        ("passed", with("/lenient", &forged)),
        ("passed", get("/browser", &[("cookie", &cookie)])),
        ("passed", post(get("/browser", &[("cookie", &cookie), ("sec-fetch-site", "same-origin")]))),
        ("passed", with("/%72est", &own)),
        // Endpoints, as far as the head decides.
        ("method_not_allowed", bare("/token")),
        ("method_not_allowed", method(Method::PUT, bare("/auth/login"))),
        ("method_not_allowed", post(bare("/.well-known/jwks.json"))),
        ("method_not_allowed", post(bare("/.well-known/oauth-authorization-server"))),
        ("method_not_allowed", post(with("/sessions", &own))),
        ("cross_origin", post(get("/auth/login", &[("origin", "https://evil.test")]))),
        ("cross_origin", method(Method::DELETE, get("/sessions?others", &[("cookie", &access_cookie)]))),
        ("no_credential", bare("/sessions")),
        ("two_credentials", get("/sessions", &[("authorization", "Bearer a"), ("authorization", "Bearer b")])),
        ("malformed_token", with("/sessions", "opaque-text")),
        ("bad_signature", with("/sessions", &forged)),
        ("unknown_issuer", with("/sessions", &world.theirs(&json!({ "iss": "https://nobody.test" })))),
        ("token_expired", with("/sessions", &world.theirs(&json!({ "exp": 1_000_000_000 })))),
        ("wrong_issuer", with("/sessions", &world.theirs(&json!({})))),
        ("keys_unavailable", far("/sessions")),
        ("token_revoked", with("/sessions", &ended)),
        ("session_over", get("/sessions", &[("cookie", &over), ("sec-fetch-site", "same-origin")])),
        ("insufficient_scope", with("/scoped", &own)),
        ("malformed_request", with("/sessions?all", &own)),
        ("unknown_session", method(Method::DELETE, with("/sessions/x", &own))),
        ("answered", with("/sessions", &own)),
        ("answered", get("/sessions", &[("cookie", &session), ("sec-fetch-site", "same-origin")])),
        ("answered", bare("/.well-known/jwks.json")),
        ("answered", bare("/.well-known/oauth-authorization-server")),
    ]
}

/// The words of denials that no request to a route of the layer can have.
const ELSEWHERE: &[&str] = &[
    // A gate whose routes serve every path has none; see the test of them.
    "no_route",
    // Needs an endpoint with `csrf_header`; see `b54_the_refusal_names_a_missing_header`.
    "csrf_header_missing",
    // Needs an issuer with five keys of one algorithm; see `j30_`.
    "too_many_keys",
    // Answers of an endpoint, which an explanation does not cover.
    "body_too_large",
    "unknown_refresh_token",
    "other_client",
    "other_account",
    "other_dialect",
    "session_revoked",
    "session_revoked_by_list",
    "session_not_before",
    "session_ended_elsewhere",
    "user_inactive",
    "session_before_valid_from",
    "session_expired",
    "session_idle",
    "ahead_of_store",
    "reuse",
    "mismatched_pair",
    "relay_refused",
    "provider_login",
    "device_refused",
    "delegated_token",
    // Of a gate with API keys: src/gate/api_keys/tests.rs.
    "api_key_refused",
    "api_key_unavailable",
    "not_exchangeable",
    // Of a gate whose sessions are bound to devices: src/gate/browser/device/tests.rs.
    "device_proof_missing",
    // Of a gate that exchanges tokens towards upstreams, which an explanation does not do: tests/edge/upstream_exchange.rs.
    "exchange_claims",
    "exchange_refused",
    "exchange_unavailable",
    // Calls of a resource: see the test in tests/layer/mcp.rs.
    "bad_call",
    // Replies to other issuers and other proxies, whose requests are for no route of the layer.
    "refused_event",
    "bad_fact",
    "disguised_header",
    "endpoint_elsewhere",
    "untrusted_neighbour",
    // Of a key that cannot sign: an explanation signs nothing.
    "assertion_unavailable",
    // Of a gate that uses proofs: tests/dpop.
    "proof_missing",
    "proof_malformed",
    "proof_wrong_type",
    "proof_wrong_algorithm",
    "proof_bad_key",
    "proof_bad_signature",
    "proof_wrong_method",
    "proof_wrong_url",
    "proof_wrong_time",
    "proof_before_start",
    "proof_wrong_nonce",
    "proof_wrong_token",
    "proof_bad_id",
    "proof_replayed",
    "proofs_full",
    "proofs_unavailable",
    "other_session_key",
    "other_session_certificate",
    "unbound_token",
    "other_key",
    "no_certificate",
    "other_certificate",
    "ttl_exceeded",
    "invalid_scope",
    "invalid_target",
    "wrong_password",
    "no_account",
    "invalid_client",
    "client_assertion",
    "grant_assertion",
    "unauthorized_client",
    "unsupported_grant_type",
    "too_many_sessions",
    "token_too_old",
    "unknown_api_key",
    // Of `require()`.
    "missing_claim",
    "predicate",
    "claims_shape",
    // Of a session that must be renewed first: src/gate/browser_request.
    "session_not_renewed",
    "session_unavailable",
    // Of a session whose provider's token is forwarded: an explanation opens no vault. tests/edge/browser_vault.rs.
    "provider_token_over",
    // Of a limit that is used up: tests/layer/limits.rs.
    "quota_exceeded",
    // Separate tests are below.
    "too_many_requests",
    "revocations_unavailable",
    "token_inactive",
];

/// The words of all denials.
fn words() -> BTreeSet<String> {
    let sources =
        [include_str!("../../crates/core/src/denial/table.rs"), include_str!("../../crates/core/src/denial/proof.rs")];
    let body = |source: &'static str| source.split("fn reason").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let of = |source| body(source).split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    sources.into_iter().flat_map(of).collect()
}

#[tokio::test]
async fn p58_an_explanation_agrees_with_what_the_request_gets_for_every_denial_that_a_request_can_have() {
    let world = world().await;
    let mut seen = BTreeSet::new();
    for (outcome, request) in table(&world).await {
        // The second time the gate has seen the token.
        for _ in 0..2 {
            let explained = agree_but_for_waits(&world, &request).await;
            assert_eq!(explained.outcome, outcome, "{request:?}: {explained:?}");
        }
        seen.insert(outcome.to_owned());
    }
    let all: BTreeSet<_> = words();
    assert!(all.len() > 50, "{all:?}");
    let told: BTreeSet<_> = seen.iter().cloned().chain(ELSEWHERE.iter().map(|word| (*word).to_owned())).collect();
    let gone: Vec<_> = told.difference(&all).filter(|word| !["passed", "answered"].contains(&word.as_str())).collect();
    assert!(gone.is_empty(), "these are no words of denials: {gone:?}");
    let unknown: Vec<_> = all.difference(&told).collect();
    assert!(unknown.is_empty(), "no request of the table is refused for {unknown:?}");
}

#[tokio::test]
async fn b54_an_explanation_says_why_a_request_by_session_is_refused() {
    let world = world().await;
    let cookie = world.session("bob").await;
    let request = get("/page", &[("cookie", &cookie)]);
    let explained = world.gate.layer().explain(request.clone().into_parts().0).await;
    assert_eq!((explained.outcome, explained.decision), ("passed", Conclusion::Passed));
    assert_eq!(world.gate.counts().0, 0, "it caches nothing");
    world.gate.sessions().revoke_all(Whose::Subject("bob")).await.unwrap();
    let explained = world.gate.layer().explain(request.into_parts().0).await;
    assert_eq!((explained.outcome, explained.status), ("session_over", Some(401)));
    assert_eq!(explained.detail, Some("all sessions of the user, of the client or of the gate were ended"));
}

/// An explanation neither asks an issuer nor waits, so a request that does may have another result.
async fn agree_but_for_waits(world: &World, request: &Head) -> Explanation {
    let layer = world.gate.layer();
    let explained = layer.explain(request.clone().into_parts().0).await;
    match explained.outcome {
        "keys_unavailable" | "introspection_unavailable" => {
            assert_eq!((explained.decision, explained.status), (Conclusion::Unavailable, Some(503)));
            assert_eq!(world.live.unknown_kids(), 0, "the missing key was noted");
            assert_eq!(world.asked.load(Ordering::SeqCst), 0, "the issuer was asked");
            coherent(&explained, request);
            explained
        }
        _ => agree(&world.gate, request).await,
    }
}

#[tokio::test]
async fn p58_a_request_without_a_route_and_one_to_an_endpoint_are_explained() {
    let gate = Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token"))
        .route(named("one", "/one", RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    assert_eq!(agree(&gate, &get("/other", &[])).await.outcome, "no_route");
    let layer = gate.layer();
    let explained = layer.explain(method(Method::POST, get("/token", &[])).into_parts().0).await;
    assert_eq!((explained.outcome, explained.decision), ("answered", Conclusion::Undecided));
    let explained = agree(&gate, &get("/token", &[])).await;
    let route = explained.rules.iter().find(|verdict| verdict.rule == Rule::Route).unwrap();
    assert!(route.detail.starts_with("the gate itself responds: oauth2.token serves POST, not GET"), "{route:?}");
    // Of the other protocol: no `Host`, and the authority in the target.
    let mut request = Request::get("http://api.test/one").version(Version::HTTP_2).body(()).unwrap();
    request.extensions_mut().insert(Peer::new(FROM, true));
    assert_eq!(agree(&gate, &request).await.outcome, "no_credential");
}

#[tokio::test]
async fn p58_an_inactive_token_is_explained_once_its_issuer_said_so() {
    let world = world().await;
    let request = with("/asked", "opaque-text");
    let service = world.gate.layer().layer(service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let reply = service.oneshot(request.clone().map(|()| Full::default())).await.unwrap();
    assert_eq!((reply.status().as_u16(), world.asked.load(Ordering::SeqCst)), (401, 1));
    assert_eq!(agree(&world.gate, &request).await.outcome, "token_inactive");
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn p58_explanations_count_for_no_limit_and_a_limit_is_explained() {
    let gate = Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .rates(Rates { forged_per_address: Rate::new(2, Duration::from_secs(600)), ..Rates::default() });
    let gate = gate.route(Route::catch_all(RoutePolicy::default())).build().await.unwrap();
    let session = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    let good = session.access_token.expose().to_owned();
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, "A".repeat(86));
    let layer = gate.layer();
    for _ in 0..20 {
        let explained = layer.explain(with("/x", &forged).into_parts().0).await;
        assert_eq!(explained.outcome, "bad_signature", "{explained:?}");
    }
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        outcomes.push(agree(&gate, &with("/x", &forged)).await.outcome);
    }
    assert_eq!(outcomes.first(), Some(&"bad_signature"));
    assert_eq!(outcomes.last(), Some(&"too_many_requests"), "{outcomes:?}");
}

#[tokio::test]
async fn p58_an_explanation_confirms_no_token_and_shows_what_the_service_would_get() {
    let gate = Gate::builder().issuer("https://api.test").keys(Keyring::ephemeral().unwrap());
    let gate =
        gate.client(Client::public("web")).route(Route::catch_all(RoutePolicy::default())).build().await.unwrap();
    let first = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    // No event for the first pair, because it replaces no pair.
    let issued = gate.sessions().refresh(first.refresh_token.unwrap().expose()).await.unwrap();
    let request = with("/x", issued.access_token.expose());
    let explained = gate.layer().explain(request.clone().into_parts().0).await;
    let identity: Vec<_> =
        explained.identity.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert!(identity.contains(&("x-auth-subject", "ada")), "{identity:?}");
    let id = first.session.unwrap();
    let is_confirmed = async || {
        gate.flush().await.unwrap();
        gate.sessions().get(id).await.unwrap().unwrap().confirmed
    };
    assert!(!is_confirmed().await);
    let revocation = explained.rules.iter().find(|verdict| verdict.rule == Rule::Revocation).unwrap();
    assert!(revocation.detail.starts_with(&format!("session {id} live, generation 2 of 2")), "{revocation:?}");
    agree(&gate, &request).await;
    assert!(is_confirmed().await, "the request itself confirms it");
    // The token is now in the cache of verified tokens.
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(agree(&gate, &request).await.outcome, "token_revoked");
}

#[tokio::test]
async fn p58_rules_after_the_one_that_refuses_are_judged_and_unproved_claims_are_marked() {
    let world = world().await;
    let own = world.access("ada", "read").await;
    let forged = format!("{}.{}", own.rsplit_once('.').unwrap().0, "A".repeat(86));
    let explained = agree(&world.gate, &with("/admin/x", &forged)).await;
    let of = |rule| explained.rules.iter().find(|verdict| verdict.rule == rule).unwrap();
    assert_eq!(explained.outcome, "bad_signature");
    assert_eq!([of(Rule::Key).result, of(Rule::Signature).result], [RuleResult::Ok, RuleResult::Fail]);
    assert_eq!([of(Rule::Revocation).result, of(Rule::Scope).result], [RuleResult::Ok, RuleResult::Fail]);
    assert_eq!(of(Rule::Scope).detail, "the route requires admin; the token has read");
    assert!(of(Rule::Claims).detail.ends_with("(unverified)"), "{:?}", of(Rule::Claims));
    assert!(!explained.token.as_ref().unwrap().is_proved);
    assert_eq!(explained.also_matched.iter().map(ToString::to_string).collect::<Vec<_>>(), ["rest"]);
}

#[tokio::test]
async fn n46_p58_the_login_is_explained_after_the_roles_as_it_is_judged() {
    let world = world().await;
    for (claims, outcome, role, login) in [
        (json!({}), "missing_role", RuleResult::Fail, RuleResult::Fail),
        (json!({ "acr": "gold" }), "missing_role", RuleResult::Fail, RuleResult::Ok),
        (json!({ "groups": ["staff"] }), "insufficient_authentication", RuleResult::Ok, RuleResult::Fail),
        (json!({ "groups": ["staff"], "acr": 7 }), "insufficient_authentication", RuleResult::Ok, RuleResult::Fail),
    ] {
        let explained = agree(&world.gate, &with("/payroll", &world.theirs(&claims))).await;
        let of = |rule| explained.rules.iter().find(|verdict| verdict.rule == rule).unwrap().result;
        assert_eq!((explained.outcome, of(Rule::Role), of(Rule::StepUp)), (outcome, role, login), "{claims}");
    }
    let good =
        agree(&world.gate, &with("/payroll", &world.theirs(&json!({ "groups": ["staff"], "acr": "gold" })))).await;
    assert_eq!(good.denial, None, "{good:?}");
    assert_eq!(good.rules.iter().map(|verdict| verdict.rule).next_back(), Some(Rule::Quota));
}

/// The tenant of the path, and a plan that is paid.
fn conditioned() -> RoutePolicy {
    let conditions = [Condition::param("org_id", "org"), Condition::not("plan", ["free"])];
    RoutePolicy::default().when(conditions.map(Result::unwrap)).unwrap()
}

#[tokio::test]
async fn k24_an_explanation_names_claim_and_operator_and_no_value() {
    let world = world().await;
    let token = world.theirs(&json!({ "org_id": "acme", "plan": "free" }));
    for (path, unmet) in [("/orgs/acme/a", "not met: plan not"), ("/orgs/other/a", "not met: org_id param")] {
        let explained = agree(&world.gate, &with(path, &token)).await;
        let verdict = explained.rules.iter().find(|verdict| verdict.rule == Rule::Condition).unwrap();
        assert_eq!((verdict.result, &*verdict.detail), (RuleResult::Fail, unmet));
        assert_eq!((explained.status, explained.outcome), (Some(403), "condition"));
        let challenge = explained.challenge.clone().unwrap_or_default();
        assert!(!challenge.contains("scope="), "{challenge}");
        let rules = format!("{:?}", explained.rules);
        assert!(!rules.contains("free"), "{rules}");
    }
    let good = world.theirs(&json!({ "org_id": "acme", "plan": "pro" }));
    let explained = agree(&world.gate, &with("/orgs/acme/a", &good)).await;
    let verdict = explained.rules.iter().find(|verdict| verdict.rule == Rule::Condition).unwrap();
    assert_eq!((verdict.result, &*verdict.detail), (RuleResult::Ok, "org_id param, plan not"));
}

#[tokio::test]
async fn p58_a_stale_store_is_explained_as_unavailable() {
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), rotogate::token::Algorithm::EdDsa).unwrap());
    let store_time = Arc::clone(&time) as Arc<dyn TimeSource>;
    let store = Arc::new(MemoryNode::first("https://api.test", rotogate::Gate::DEFAULT_LEEWAY, store_time));
    let gate = crate::builder_with(Keyring::load(folder.path()).unwrap())
        .route(Route::catch_all(RoutePolicy::default()))
        .shared_store(Arc::clone(&store) as Arc<dyn rotogate::store::Store>)
        .time(Arc::clone(&time) as Arc<dyn TimeSource>)
        .build()
        .await
        .unwrap();
    let (token, _) = crate::tokens(&gate, "read").await;
    assert_eq!(agree(&gate, &with("/x", &token)).await.outcome, "passed");
    store.set_way(Way::Cut);
    time.advance(Duration::from_secs(5));
    let explained = agree(&gate, &with("/x", &token)).await;
    assert_eq!((explained.outcome, explained.decision), ("revocations_unavailable", Conclusion::Unavailable));
}

#[tokio::test]
async fn p58_a_refresh_token_is_explained_by_the_row_that_decides_and_is_not_consumed() {
    let gate = crate::gate().await;
    let (_, first) = crate::tokens(&gate, "read").await;
    let row = async |token: &str, client| {
        let explained = gate.explain_refresh(token, client).await;
        let failed =
            explained.rules.iter().find(|verdict| verdict.result == RuleResult::Fail).map(|verdict| verdict.rule);
        assert_eq!(failed.is_some(), explained.decision != Conclusion::Passed, "{explained:?}");
        assert!(!format!("{explained:?}").contains(token), "the token is repeated");
        (explained.outcome, explained.rules.last().unwrap().detail.clone())
    };
    let refresh = async |token: &str| {
        let issued = gate.sessions().refresh(token).await.unwrap();
        issued.refresh_token.unwrap().expose().to_owned()
    };
    for _ in 0..3 {
        let (outcome, detail) = row(&first, None).await;
        assert_eq!(
            (outcome, detail.as_str()),
            ("answered", "the token has the current generation, so the request would get a new pair of tokens")
        );
    }
    assert_eq!(row(&first, Some("ios")).await.0, "other_client");
    assert_eq!(row(&first, Some("nope")).await.0, "invalid_client");
    assert_eq!(row("rt_junk", Some("nope")).await.0, "invalid_client");
    assert_eq!(row("rt_junk", None).await.0, "unknown_refresh_token");
    let second = refresh(&first).await;
    assert_eq!(
        row(&first, None).await.1,
        "the token has the previous generation and the grace period has not ended, so the request would get the current \
         pair again"
    );
    let third = refresh(&second).await;
    // Neither explanation ended the session.
    for _ in 0..2 {
        let (outcome, detail) = row(&first, None).await;
        assert_eq!(outcome, "reuse");
        assert!(detail.contains("2 generations old"), "{detail}");
    }
    assert_eq!(row(&third, None).await.0, "answered");
    assert!(gate.sessions().refresh(&first).await.is_err());
    assert_eq!(row(&third, None).await.0, "session_revoked", "the reuse itself ended it");
    let events = gate.explain_refresh(&third, None).await;
    assert_eq!(events.denial.map(|denial| denial.rule()), Some(Rule::Rotation));
}
