//! Requests by session cookie through the layer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};

use super::*;
use crate::Gate;
use crate::gate::{Browser, GateBody, Identity, NewSession, Peer};
use rotogate_core::claim::OwnClaims;
use rotogate_core::client::Client;
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Origin};
use rotogate_core::route::{Credentials, Route, RoutePolicy};
use rotogate_core::session::profile::Profile;
use rotogate_core::session::{RevokedBecause, Scope, Session};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::session_cookie::NAME;

mod idle;

const ACCESS: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(8 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const CLEARED: &str = "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0";

fn profile() -> Profile {
    let session_ttl = Duration::from_secs(7 * 86_400);
    let lost_response_window = Duration::from_secs(3600);
    Profile { access_ttl: ACCESS, idle_ttl: IDLE, session_ttl, lost_response_window, ..Profile::default() }
}

struct World {
    gate: Gate,
    time: Arc<ManualTime>,
    /// While it is set, nothing is renewed: a fault.
    suspended: Arc<AtomicBool>,
}

/// The request that the service behind the gate received.
#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    caller: Option<Identity>,
}

type Reply = Response<GateBody<Full<Bytes>>>;

impl World {
    async fn new() -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let optional = RoutePolicy::optional().session();
        let lax = RoutePolicy { ignores_bad_credential: true, ..optional.clone() };
        let alone = RoutePolicy {
            credentials: Credentials { token: false, session: true, key: false },
            ..RoutePolicy::default()
        };
        let forwards = RoutePolicy { forward_token: true, ..RoutePolicy::default().session() };
        let needs = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::default().session() };
        let routes = [
            ("/public", RoutePolicy::public()),
            ("/token", RoutePolicy::default()),
            ("/optional", optional),
            ("/lax", lax),
            ("/alone", alone),
            ("/forwards", forwards),
            ("/needs", needs),
            ("/both", RoutePolicy::default().session()),
        ];
        let mut gate = Gate::builder()
            .issuer("https://gate.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(Client::public("web"))
            .browser(Browser::own("/auth"))
            .time(Arc::<ManualTime>::clone(&time));
        for (path, policy) in routes {
            gate = gate.route(Route::new(path, policy));
        }
        let gate = gate.build().await.unwrap();
        let suspended = Arc::new(AtomicBool::new(false));
        gate.0.engine.suspend_grants_while(Arc::clone(&suspended));
        Self { gate, time, suspended }
    }

    async fn begin(&self, subject: &str) -> BrowserLogin {
        let start = ApplicationLogin {
            subject,
            account: None,
            client: "web",
            scope: Scope::parse("read").unwrap(),
            claims: OwnClaims::default(),
            vouched_by: None,
            profile: &profile(),
            origin: &Origin::default(),
        };
        self.gate.0.engine.start_browser(start, None).await.unwrap()
    }

    /// `Cookie` of a new session.
    async fn cookie(&self) -> (String, BrowserLogin) {
        let begun = self.begin("ada").await;
        (format!("{NAME}={}", *begun.cookie.value()), begun)
    }

    async fn bearer(&self, subject: &str) -> String {
        let issued = self.gate.sessions().start(NewSession::new(subject, "web")).await.unwrap();
        format!("Bearer {}", issued.access_token.expose())
    }

    async fn send(&self, method: &str, path: &str, pairs: &[(&str, &str)]) -> Reply {
        self.answered(method, path, pairs, &[]).await
    }

    /// Sends a request. The service answers with these headers.
    async fn answered(
        &self,
        method: &str,
        path: &str,
        pairs: &[(&str, &str)],
        with: &[(&'static str, &'static str)],
    ) -> Reply {
        let with = with.to_vec();
        let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let caller = Identity::from_extensions(request.extensions());
            let mut response = Response::new(Full::default());
            for (name, value) in &with {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            response.extensions_mut().insert(Received { headers: request.into_parts().0.headers, caller });
            async move { Ok::<_, Infallible>(response) }
        });
        let peer = Peer::new([192, 0, 2, 7].into(), true);
        let mut request = Request::builder().method(method).uri(path).header(HOST, "gate.test").extension(peer);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        self.gate.layer().layer(service).oneshot(request.body(Full::default()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Reply {
        self.send("GET", path, pairs).await
    }

    async fn record(&self, begun: &BrowserLogin) -> Session {
        self.gate.sessions().get(begun.session.id).await.unwrap().unwrap()
    }
}

fn received(reply: &Reply) -> &Received {
    reply.extensions().get::<Received>().expect("the service answered")
}

fn subject(reply: &Reply) -> Option<String> {
    received(reply).caller.as_ref().map(|caller| caller.subject().to_owned())
}

#[tokio::test]
async fn b6_a_session_is_a_caller_like_one_with_a_token_and_no_reply_sets_a_cookie() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    for path in ["/both", "/alone", "/optional", "/lax"] {
        let reply = world.get(path, &[("cookie", &cookie)]).await;
        assert_eq!((reply.status(), subject(&reply).as_deref()), (StatusCode::OK, Some("ada")), "{path}");
        let caller = received(&reply).caller.clone().unwrap();
        assert!(caller.uses_session_cookie() && !caller.uses_api_key());
        assert_eq!((caller.session(), caller.scope().as_str()), (Some(begun.session.id), "read"));
        assert!(!reply.headers().contains_key(SET_COOKIE), "{path}");
    }
    assert_eq!(
        world.get("/token", &[("cookie", &cookie)]).await.status(),
        StatusCode::UNAUTHORIZED,
        "takes tokens alone"
    );
    assert_eq!(world.get("/needs", &[("cookie", &cookie)]).await.status(), StatusCode::FORBIDDEN, "lacks a scope");
    let reply = world.get("/both", &[("authorization", &world.bearer("bob").await)]).await;
    let reply = received(&reply);
    let caller = reply.caller.as_ref().unwrap();
    assert!(!caller.uses_session_cookie() && !caller.uses_api_key());
}

#[tokio::test]
async fn b15_no_route_forwards_the_cookie_and_other_cookies_pass_byte_for_byte() {
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    let bearer = world.bearer("bob").await;
    let bytes = format!("a=1;{cookie}; b=\"x y\"=z");
    for path in ["/public", "/token", "/optional", "/lax", "/both", "/forwards"] {
        let reply = world.get(path, &[("cookie", &bytes), ("authorization", &bearer)]).await;
        let forwarded: Vec<_> = received(&reply).headers.get_all(COOKIE).iter().collect();
        assert_eq!(forwarded, ["a=1; b=\"x y\"=z"], "{path}");
    }
    for path in ["/public", "/optional", "/both", "/forwards"] {
        let reply = world.get(path, &[("cookie", &cookie)]).await;
        assert!(!received(&reply).headers.contains_key(COOKIE), "{path}");
    }
    let garbage = format!("{NAME}=garbage; c=3");
    let reply = world.get("/public", &[("cookie", &garbage)]).await;
    assert_eq!(received(&reply).headers[COOKIE], "c=3");
}

#[tokio::test]
async fn b15_an_upstream_gets_the_access_token_of_the_session_only_if_the_route_forwards_it() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    let reply = world.get("/both", &[("cookie", &cookie)]).await;
    assert!(!received(&reply).headers.contains_key(AUTHORIZATION));
    let reply = world.get("/forwards", &[("cookie", &cookie)]).await;
    let forwarded = &received(&reply).headers[AUTHORIZATION];
    assert!(forwarded.is_sensitive());
    // The upstream may call others with it.
    let again = world.get("/token", &[("authorization", forwarded.to_str().unwrap())]).await;
    assert_eq!(received(&again).caller.as_ref().unwrap().session(), Some(begun.session.id));
}

#[tokio::test]
async fn b16_a_bearer_token_decides_alone_and_a_bad_one_never_falls_back_to_the_cookie() {
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    let good = world.bearer("bob").await;
    let reply = world.get("/both", &[("cookie", &cookie), ("authorization", &good)]).await;
    assert_eq!(subject(&reply).as_deref(), Some("bob"));
    let forged = format!("{}x", &good[..good.len() - 1]);
    for bad in [&*forged, "Bearer x", "Bearer ", "Basic YTpi", "Bearer null", "DPoP x", ""] {
        for path in ["/both", "/optional"] {
            let reply = world.get(path, &[("cookie", &cookie), ("authorization", bad)]).await;
            assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{path} {bad}");
            assert!(!reply.headers().contains_key(SET_COOKIE), "{path} {bad}: the cookie was not judged");
        }
        let reply = world.get("/lax", &[("cookie", &cookie), ("authorization", bad)]).await;
        assert_eq!(subject(&reply), None, "{bad}: nobody, and not the session's");
    }
    let reply = world.get("/both?access_token=x", &[("cookie", &cookie)]).await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    // A route that takes sessions alone takes no token, with or without a cookie beside it.
    for pairs in [&[("authorization", &*good)][..], &[("authorization", &*good), ("cookie", &*cookie)]] {
        assert_eq!(world.get("/alone", pairs).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn b17_two_session_cookies_are_a_bad_request() {
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    let bearer = world.bearer("bob").await;
    let two = format!("{cookie}; {cookie}");
    for path in ["/both", "/optional", "/lax", "/alone"] {
        assert_eq!(world.get(path, &[("cookie", &two)]).await.status(), StatusCode::BAD_REQUEST, "{path}");
        let lines = [("cookie", &*cookie), ("cookie", &*cookie), ("authorization", &*bearer)];
        assert_eq!(world.get(path, &lines).await.status(), StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn b12_b18_an_ended_session_is_401_at_the_next_request_and_its_cookie_is_cleared() {
    for is_known in [true, false] {
        let world = World::new().await;
        let (cookie, begun) = world.cookie().await;
        if is_known {
            assert_eq!(world.get("/both", &[("cookie", &cookie)]).await.status(), StatusCode::OK);
        }
        world.gate.0.engine.end_browser(&begun.cookie, &Origin::default()).await.unwrap();
        for _ in 0..2 {
            let reply = world.get("/both", &[("cookie", &cookie)]).await;
            assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(reply.headers().get_all(SET_COOKIE).iter().collect::<Vec<_>>(), [CLEARED]);
            assert_eq!(reply.headers()[WWW_AUTHENTICATE], "Bearer");
        }
        // An optional route ignores such a cookie, whatever the route says about bad tokens.
        for path in ["/optional", "/lax"] {
            assert_eq!(subject(&world.get(path, &[("cookie", &cookie)]).await), None);
        }
    }
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    assert_eq!(world.get("/both", &[("cookie", &cookie)]).await.status(), StatusCode::OK);
    world.gate.0.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    assert_eq!(world.get("/both", &[("cookie", &cookie)]).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn b18_a_fault_is_503_and_clears_nothing() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    world.time.advance(ACCESS + SECOND);
    world.suspended.store(true, Ordering::SeqCst);
    for path in ["/both", "/optional", "/lax"] {
        let reply = world.get(path, &[("cookie", &cookie)]).await;
        assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(reply.headers().contains_key(RETRY_AFTER) && !reply.headers().contains_key(SET_COOKIE));
    }
    world.suspended.store(false, Ordering::SeqCst);
    assert_eq!(world.get("/both", &[("cookie", &cookie)]).await.status(), StatusCode::OK);
    assert_eq!(world.record(&begun).await.current.get(), 2);
}

#[tokio::test]
async fn b3_a_cookie_that_is_none_of_ours_is_none() {
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    let other = if cookie.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{other}", &cookie[..cookie.len() - 1]);
    let jwt = format!("{NAME}={}", world.bearer("bob").await.replace("Bearer ", ""));
    for cookie in [&*forged, &*jwt, "__Host-Http-rg=x"] {
        let reply = world.get("/both", &[("cookie", cookie)]).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        assert!(!reply.headers().contains_key(SET_COOKIE), "as if none was sent");
        for path in ["/optional", "/lax"] {
            assert_eq!(subject(&world.get(path, &[("cookie", cookie)]).await), None);
        }
    }
    // The session cookie is no token either.
    let as_token = format!("Bearer {}", cookie.replace(&format!("{NAME}="), ""));
    let _ = world.get("/both", &[("cookie", &cookie)]).await;
    for path in ["/both", "/token"] {
        let reply = world.get(path, &[("authorization", &as_token)]).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn b9_parallel_requests_renew_once_and_none_is_refused() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    for round in 2..5 {
        world.time.advance(ACCESS + SECOND);
        let pairs = [("cookie", &*cookie)];
        let replies = futures_util::future::join_all((0..30).map(|_| world.get("/both", &pairs))).await;
        assert!(replies.iter().all(|reply| reply.status() == StatusCode::OK));
        let record = world.record(&begun).await;
        assert_eq!((record.current.get(), record.revision), (round, round));
    }
}

#[tokio::test]
async fn b9_a_session_is_renewed_ahead_without_a_request_that_waits() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    let _ = world.get("/both", &[("cookie", &cookie)]).await;
    world.time.advance(ACCESS * 4 / 5 + SECOND);
    // Refused by the rules for other pages: no activity.
    let foreign = [("cookie", &*cookie), ("origin", "https://evil.test")];
    assert_eq!(world.send("POST", "/both", &foreign).await.status(), StatusCode::FORBIDDEN);
    let ahead = [("cookie", &*cookie), ("sec-purpose", "prefetch"), ("sec-fetch-site", "same-origin")];
    assert_eq!(world.get("/both", &ahead).await.status(), StatusCode::OK);
    tokio::task::yield_now().await;
    assert_eq!(world.record(&begun).await.current.get(), 1);
    let reply = world.get("/both", &[("cookie", &cookie)]).await;
    assert_eq!(received(&reply).caller.as_ref().unwrap().generation().unwrap().get(), 1, "it did not wait");
    while world.record(&begun).await.current.get() == 1 {
        tokio::task::yield_now().await;
    }
    let reply = world.get("/both", &[("cookie", &cookie)]).await;
    assert_eq!(received(&reply).caller.as_ref().unwrap().generation().unwrap().get(), 2);
    assert_eq!(world.record(&begun).await.revision, 2);
}

#[tokio::test]
async fn b11_what_is_no_activity_renews_nothing() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    world.time.advance(ACCESS + SECOND);
    let ahead = [("cookie", &*cookie), ("sec-purpose", "prefetch;prerender"), ("sec-fetch-site", "none")];
    for path in ["/both", "/optional", "/lax"] {
        let reply = world.get(path, &ahead).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(!reply.headers().contains_key(SET_COOKIE), "the session lives");
    }
    assert_eq!(world.record(&begun).await.revision, 1);
    assert_eq!(world.get("/both", &[("cookie", &cookie)]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn b21_a_request_of_another_page_is_refused_before_anything_is_looked_up() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    world.time.advance(ACCESS + SECOND);
    for value in [&*cookie, "__Host-Http-rg=garbage"] {
        let foreign = [("cookie", value), ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
        for (method, path) in [("POST", "/both"), ("GET", "/both"), ("POST", "/optional"), ("DELETE", "/alone")] {
            assert_eq!(world.send(method, path, &foreign).await.status(), StatusCode::FORBIDDEN, "{method} {path}");
        }
        // A bad credential counts as missing here. The page could have sent the request without the cookie.
        assert_eq!(subject(&world.send("DELETE", "/lax", &foreign).await), None);
    }
    assert_eq!(world.record(&begun).await.revision, 1);
    let checks: u64 = world.gate.0.checker.results().iter().sum();
    assert_eq!(checks, 0, "no cookie was examined");
    // A token is no cookie: no page can send it.
    let bearer = world.bearer("bob").await;
    let both = [("cookie", &*cookie), ("origin", "https://evil.test"), ("authorization", &*bearer)];
    assert_eq!(subject(&world.send("POST", "/both", &both).await).as_deref(), Some("bob"));
}

#[tokio::test]
async fn b27_replies_to_a_session_are_private_and_set_no_session_cookie() {
    let world = World::new().await;
    let (cookie, _) = world.cookie().await;
    let with = [("set-cookie", "__Host-Http-rg=rc1_x; Path=/"), ("set-cookie", "a=1")];
    let reply = world.answered("GET", "/both", &[("cookie", &cookie)], &with).await;
    assert_eq!(reply.headers()[CACHE_CONTROL], "private");
    assert_eq!(reply.headers()[VARY], "Cookie");
    assert_eq!(reply.headers().get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1"]);
    let bearer = world.bearer("bob").await;
    let reply = world.answered("GET", "/both", &[("authorization", &bearer)], &[]).await;
    assert!(!reply.headers().contains_key(CACHE_CONTROL), "as it was");
}

#[tokio::test]
async fn b27_no_reply_of_a_service_sets_a_cookie_of_ours_whoever_the_caller_is() {
    let world = World::new().await;
    let bearer = world.bearer("bob").await;
    let evil = "__Host-Http-rg=rc1_x; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=1";
    let with = [("set-cookie", evil), ("set-cookie", "__Host-rg-d=rd1_x"), ("set-cookie", "a=1"), ("x-own", "y")];
    for (path, pairs) in [
        ("/public", &[][..]),
        ("/optional", &[]),
        ("/lax", &[]),
        ("/token", &[("authorization", &*bearer)]),
        ("/both", &[("authorization", &*bearer)]),
    ] {
        let reply = world.answered("GET", path, pairs, &with).await;
        assert_eq!(reply.headers().get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1"], "{path}");
        assert_eq!((reply.headers().len(), &reply.headers()["x-own"]), (2, &"y".parse().unwrap()), "{path}");
    }
}

/// The caller of a request by this cookie.
async fn caller(world: &World, cookie: &BrowserLogin) -> Arc<Verified> {
    let value: Arc<str> = cookie.cookie.value().as_str().into();
    world.gate.0.loaded_session(value, RenewWhen::Over).await.outcome.unwrap()
}

#[tokio::test]
async fn b11_a_stream_ends_when_its_session_was_idle_for_too_long_and_a_renewal_prolongs_it() {
    let world = World::new().await;
    let begun = world.begin("ada").await;
    let verified = caller(&world, &begun).await;
    let stream = Lease::for_caller(&world.gate.0.leases, Some(&verified), OnExpiry::Close);
    world.time.advance(ACCESS * 2);
    assert!(stream.check().is_ok(), "it does not end with an access token");
    stream.note_activity();
    tokio::task::yield_now().await;
    assert_eq!(world.record(&begun).await.revision, 1, "an open stream is no activity");
    // A request of another page of the browser.
    let _ = caller(&world, &begun).await;
    world.time.advance(IDLE - SECOND);
    assert!(stream.check().is_ok());
    world.time.advance(SECOND);
    assert!(stream.check().is_err());
}

#[tokio::test]
async fn b11_what_the_client_of_a_websocket_sends_is_activity() {
    let world = World::new().await;
    let begun = world.begin("ada").await;
    let verified = caller(&world, &begun).await;
    let tunnel = world.gate.0.tunnel_lease(Some(&verified), OnExpiry::Close);
    for round in 2..6 {
        world.time.advance(ACCESS / 2);
        tunnel.note_activity();
        tokio::task::yield_now().await;
        assert_eq!(world.record(&begun).await.current.get(), round - 1, "before four fifths");
        world.time.advance(IDLE - ACCESS);
        tunnel.note_activity();
        while world.record(&begun).await.current.get() < round {
            tokio::task::yield_now().await;
        }
        assert!(tunnel.check().is_ok());
    }
}

#[tokio::test]
async fn b12_a_revocation_ends_the_streams_of_a_session() {
    let world = World::new().await;
    let begun = world.begin("ada").await;
    let verified = caller(&world, &begun).await;
    let stream = Lease::for_caller(&world.gate.0.leases, Some(&verified), OnExpiry::Keep);
    world.time.advance(ACCESS * 3);
    assert!(stream.check().is_ok());
    world.gate.0.engine.end_browser(&begun.cookie, &Origin::default()).await.unwrap();
    assert_eq!(stream.check(), Err(Denial::TokenRevoked));
}

#[test]
fn b17_two_session_cookies_are_refused_wherever_they_are() {
    let with = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        session_cookie(&headers).map(|found| found.map(<[u8]>::to_vec))
    };
    assert_eq!(with(&["a=1; b=2"]), Ok(None));
    assert_eq!(with(&["a=1; __Host-Http-rg=x; b=2"]), Ok(Some(b"x".to_vec())));
    assert_eq!(with(&["__Host-Http-rg-tx-1=x; __host-http-rg=y"]), Ok(None));
    for two in [&["__Host-Http-rg=x; __Host-Http-rg=x"][..], &["__Host-Http-rg=x", "__Host-Http-rg=y"]] {
        assert_eq!(with(two), Err(Denial::TwoCredentials));
    }
}

fn adapted(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    adapt_reply(&mut headers);
    strip_set_cookie(&mut headers, |_| false);
    headers
}

#[test]
fn b27_a_reply_to_a_session_is_private_and_varies_by_cookie() {
    let headers = adapted(&[]);
    assert_eq!((&headers[CACHE_CONTROL], &headers[VARY]), (&"private".parse().unwrap(), &"Cookie".parse().unwrap()));
    let headers = adapted(&[("cache-control", "public, max-age=60"), ("vary", "Accept")]);
    assert_eq!(headers[CACHE_CONTROL], "public, max-age=60", "the upstream's own");
    assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Cookie"]);
    for none in
        [&[("cache-control", "no-store")][..], &[("cache-control", "private"), ("cache-control", "x, No-Store")]]
    {
        assert!(!adapted(none).contains_key(VARY), "{none:?}");
    }
    assert!(adapted(&[("cache-control", "no-storex")]).contains_key(VARY));
}

#[test]
fn b27_no_session_cookie_comes_from_behind_the_gate() {
    let headers = adapted(&[
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "__Host-Http-rg=rc1_x; Path=/; Secure"),
        ("set-cookie", " __host-http-RG =; Max-Age=0"),
        ("set-cookie", "__Host-Http-rg-tx-AbCd1234=x; Path=/; Secure"),
        ("set-cookie", "__Host-Http-rgx=1"),
        ("set-cookie", "b=__Host-Http-rg"),
    ]);
    assert_eq!(
        headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(),
        ["a=1; Path=/", "__Host-Http-rgx=1", "b=__Host-Http-rg"]
    );
}
