//! Verdicts on requests by session cookie: what the neighbour gets of the session, and its renewal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{AUTHORIZATION, RETRY_AFTER, SET_COOKIE};

use super::*;
use crate::gate::{Browser, NewSession};
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::engine::BrowserLogin;
use rotogate_core::session::Session;

/// The life of an access token of a browser session.
const ACCESS: Duration = Duration::from_secs(600);

struct World {
    gate: Gate,
    time: Arc<ManualTime>,
    suspended: Arc<AtomicBool>,
    begun: BrowserLogin,
}

impl World {
    async fn new() -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let forwards = RoutePolicy { forward_token: true, ..RoutePolicy::default().session() };
        let gate = Gate::builder()
            .issuer("https://gate.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(rotogate_core::client::Client::public("web"))
            .browser(Browser::own("/auth"))
            .route(Route::new("/forwards/{*rest}", forwards))
            .route(Route::catch_all(RoutePolicy::default().session()))
            .trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()])
            .time(Arc::<ManualTime>::clone(&time));
        let gate = gate.build().await.unwrap();
        let suspended = Arc::new(AtomicBool::new(false));
        gate.0.engine.suspend_grants_while(Arc::clone(&suspended));
        let new = NewSession::new("ada", "web");
        let start = rotogate_core::engine::ApplicationLogin {
            subject: &new.subject,
            account: None,
            client: "web",
            scope: rotogate_core::session::Scope::default(),
            claims: rotogate_core::claim::OwnClaims::default(),
            vouched_by: None,
            profile: gate.0.endpoints.browser_profile().unwrap(),
            origin: &rotogate_core::engine::Origin::default(),
        };
        let begun = gate.0.engine.start_browser(start, None).await.unwrap();
        Self { gate, time, suspended, begun }
    }

    fn cookie(&self) -> String {
        format!("a=1; {}={}", rotogate_core::token::session_cookie::NAME, *self.begun.cookie.value())
    }

    async fn ask(&self, neighbour: Neighbour, path: &str) -> Reply {
        let cookie = self.cookie();
        let changes = [("x-forwarded-uri", path), ("cookie", &*cookie), ("sec-fetch-site", "same-origin")];
        let mut asked = question(neighbour, &changes);
        if neighbour == Neighbour::Envoy {
            asked.uri = path.parse().unwrap();
            asked.headers.remove("x-forwarded-uri");
        }
        let authorizer = Authorizer::new(&self.gate, neighbour);
        authorizer.decide(authorizer.head(&mut asked)).await
    }

    async fn record(&self) -> Session {
        self.gate.sessions().get(self.begun.session.id).await.unwrap().unwrap()
    }
}

/// The generation of a forwarded token.
fn generation(token: &str) -> u64 {
    let payload = token.split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims["gen"].as_u64().unwrap()
}

#[tokio::test]
async fn b45_a_verdict_has_the_token_of_the_session_only_where_its_route_forwards_it() {
    let world = World::new().await;
    for neighbour in Neighbour::ALL {
        let reply = world.ask(neighbour, "/forwards/a").await;
        assert_eq!(reply.status(), StatusCode::OK, "{neighbour:?}");
        let token = reply.headers()[AUTHORIZATION].to_str().unwrap();
        assert!(token.starts_with("Bearer ey") && reply.headers()[AUTHORIZATION].is_sensitive(), "{neighbour:?}");
        assert_eq!(reply.headers()["x-auth-subject"], "ada");
        assert!(!reply.headers().values().any(|value| value.as_bytes().windows(4).any(|part| part == b"rc1_")));
        let reply = world.ask(neighbour, "/a").await;
        let token = reply.headers().get(AUTHORIZATION).is_some_and(|token| !token.is_empty());
        assert_eq!((reply.status(), token), (StatusCode::OK, false), "{neighbour:?}");
    }
}

#[tokio::test]
async fn b45_b9_a_verdict_renews_the_session_once_and_sets_no_cookie() {
    let world = World::new().await;
    for (round, neighbour) in (2..).zip(Neighbour::ALL) {
        world.time.advance(ACCESS + Duration::from_secs(1));
        let asked = (0..20).map(|_| world.ask(neighbour, "/forwards/a"));
        for reply in futures_util::future::join_all(asked).await {
            assert_eq!(reply.status(), StatusCode::OK, "{neighbour:?}");
            assert_eq!(generation(reply.headers()[AUTHORIZATION].to_str().unwrap()), round, "a fresh token");
            assert!(!reply.headers().contains_key(SET_COOKIE));
        }
        assert_eq!(world.record().await.current.get(), round, "one renewal");
    }
    // A fault at the renewal decides nothing, and no proxy takes it for a verdict that permits.
    world.time.advance(ACCESS + Duration::from_secs(1));
    world.suspended.store(true, Ordering::SeqCst);
    for neighbour in Neighbour::ALL {
        let reply = world.ask(neighbour, "/a").await;
        let (status, headers) = (reply.status(), reply.headers());
        assert!(!status.is_success() && status != StatusCode::UNAUTHORIZED, "{neighbour:?}: {status}");
        assert!(status == StatusCode::SERVICE_UNAVAILABLE || headers["x-auth-status"] == "503", "{neighbour:?}");
        assert!(!headers.contains_key(SET_COOKIE) && headers.contains_key(RETRY_AFTER), "{neighbour:?}");
    }
    world.suspended.store(false, Ordering::SeqCst);
    assert_eq!(world.ask(Neighbour::Nginx, "/a").await.status(), StatusCode::OK);
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn b45_b9_a_check_over_grpc_forwards_the_token_and_renews_like_the_others() {
    use super::grpc::{check, raw, verdict};
    use crate::gate::authorizer::grpc::proto::envoy::service::auth::v3::check_response::HttpResponse;
    let world = World::new().await;
    let authorizer = Authorizer::new(&world.gate, Neighbour::Envoy);
    let cookie = world.cookie();
    for round in 1..4 {
        for (path, forwards) in [("/forwards/a", true), ("/a", false)] {
            let question = check(|http| {
                http.path = path.into();
                http.header_map = raw(&[("cookie", cookie.as_bytes()), ("sec-fetch-site", b"same-origin")]);
            });
            let Some(HttpResponse::OkResponse(ok)) = verdict(&authorizer, &question).await.http_response else {
                panic!("denied")
            };
            let set: Vec<_> = ok.headers.into_iter().filter_map(|option| option.header).collect();
            let one = |name: &str| set.iter().find(|header| header.key == name).map(|header| header.value.clone());
            assert_eq!(one("cookie").unwrap(), "a=1");
            let token = one(AUTHORIZATION.as_str());
            assert_eq!(token.is_some(), forwards, "{path}");
            if let Some(token) = token {
                assert_eq!(generation(std::str::from_utf8(&token).unwrap()), round, "a kept answer is not repeated");
            }
        }
        world.time.advance(ACCESS + Duration::from_secs(1));
    }
}
