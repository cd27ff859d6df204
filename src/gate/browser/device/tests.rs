//! Device-bound sessions through the layer, with a device made by hand.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use support::device::{Device, challenge};
use tower::{Layer, ServiceExt};

use super::*;
use crate::Gate;
use crate::dialect::browser::device::CHALLENGE;
use crate::dialect::my_sessions::MySessions;
use crate::gate::{Authorizer, Browser, Endpoint, GateBody, Identity, Neighbour, Peer};
use rotogate_core::claim::OwnClaims;
use rotogate_core::client::Client;
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Origin};
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::session::Scope;
use rotogate_core::session::profile::Profile;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::session_cookie;

fn kept(value: &'static str) -> Option<Option<String>> {
    let kept = without_cookies(&HeaderValue::from_static(value))?;
    Some(kept.map(|kept| kept.to_str().unwrap().to_owned()))
}

#[test]
fn b27_no_reply_of_a_service_clears_the_cookies_that_bind_a_session() {
    assert_eq!(kept("\"cache\""), None);
    assert_eq!(kept("\"cookies\""), Some(None));
    assert_eq!(kept("\"cache\",\"cookies\" , \"storage\""), Some(Some("\"cache\", \"storage\"".to_owned())));
    let all = "\"cache\", \"storage\", \"executionContexts\"";
    assert_eq!(kept("\"*\""), Some(Some(all.to_owned())));
}

#[test]
fn b56_each_result_has_a_counter_of_its_own() {
    let devices = BrowserDevices::default();
    let all = [
        DeviceResult::Registered,
        DeviceResult::Refreshed,
        DeviceResult::Refused,
        DeviceResult::Over,
        DeviceResult::Unavailable,
        DeviceResult::Skipped,
    ];
    for (times, result) in all.into_iter().enumerate() {
        (0..times).for_each(|_| devices.count(result));
    }
    let counts: Vec<_> = devices.counts().map(|(_, count)| count).collect();
    assert_eq!(counts, [0, 1, 2, 3, 4, 5]);
}

const OWN: (&str, &str) = ("origin", "https://gate.test");
const MINUTE: Duration = Duration::from_secs(60);

type Answer = Response<GateBody<Full<Bytes>>>;

/// The request that the service received.
#[derive(Clone)]
struct Received(HeaderMap, Option<String>);

struct World {
    gate: Gate,
    time: Arc<ManualTime>,
}

impl World {
    async fn new(mode: Binding) -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let websocket = RoutePolicy { upgrade: true, ..RoutePolicy::default().session() };
        let gate = Gate::builder()
            .issuer("https://gate.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(Client::public("web"))
            .browser(Browser::own("/auth").device_bound(mode))
            .endpoint(Endpoint::new(MySessions::default()).path("/my/sessions"))
            .route(Route::new("/optional", RoutePolicy::optional().session()))
            .route(Route::new("/websocket", websocket))
            .route(Route::catch_all(RoutePolicy::default().session()))
            .time(Arc::<ManualTime>::clone(&time));
        let gate = gate
            .row_store(Arc::new(rotogate_core::store::MemoryStore::new("https://gate.test", Duration::ZERO)))
            .api_keys(rotogate_core::api_key::ApiKeySettings::new("acme").unwrap())
            .endpoint(Endpoint::new(crate::dialect::my_keys::MyKeys::default()).path("/my/keys"));
        Self { gate: gate.build().await.unwrap(), time }
    }

    async fn begin(&self) -> (String, BrowserLogin) {
        let profile = Profile { access_ttl: MINUTE * 30, idle_ttl: MINUTE * 600, ..Profile::default() };
        let start = ApplicationLogin {
            subject: "ada",
            account: None,
            client: "web",
            scope: Scope::parse("read").unwrap(),
            claims: OwnClaims::default(),
            vouched_by: None,
            profile: &profile,
            origin: &Origin::default(),
        };
        let begun = self.gate.0.engine.start_browser(start, None).await.unwrap();
        (format!("{}={}", session_cookie::NAME, *begun.cookie.value()), begun)
    }

    fn request(method: &str, path: &str, pairs: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let peer = Peer::new([192, 0, 2, 7].into(), true);
        let request = Request::builder().method(method).uri(path).header(HOST, "gate.test").extension(peer);
        let request = pairs.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::default()).unwrap()
    }

    /// The service answers with a header that would end the binding.
    async fn send(&self, method: &str, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let service = tower::service_fn(|request: Request<Full<Bytes>>| async move {
            let mut answer = Response::new(Full::default());
            answer.headers_mut().insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cookies\""));
            answer.headers_mut().insert(CHALLENGE, HeaderValue::from_static("\"x\""));
            answer.headers_mut().append(SET_COOKIE, HeaderValue::from_static("__Host-rg-d=rd1_x"));
            let caller = Identity::from_extensions(request.extensions()).map(|caller| caller.subject().to_owned());
            answer.extensions_mut().insert(Received(request.into_parts().0.headers, caller));
            Ok::<_, Infallible>(answer)
        });
        self.gate.layer().layer(service).oneshot(Self::request(method, path, pairs)).await.unwrap()
    }

    async fn register(&self, cookie: &str, begun: &BrowserLogin, device: &Device) -> Answer {
        let challenge = self.gate.0.engine.device_challenge(&begun.cookie).unwrap();
        let proof = device.registration(&challenge);
        self.send("POST", "/auth/device", &[OWN, ("cookie", cookie), ("secure-session-response", &proof)]).await
    }

    /// The status of a refresh, with its challenge and its cookie.
    async fn refresh(&self, cookie: &str, id: &str, proof: Option<&str>) -> (u16, Option<String>, Option<String>) {
        let mut pairs = vec![OWN, ("cookie", cookie), ("sec-secure-session-id", id)];
        pairs.extend(proof.map(|proof| ("secure-session-response", proof)));
        let answer = self.send("POST", "/auth/device", &pairs).await;
        let text = |name: &HeaderName| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), text(&CHALLENGE).map(|text| challenge(&text)), text(&SET_COOKIE))
    }

    /// A session that was bound a minute ago, with its cookies.
    async fn bound(&self) -> (String, String, BrowserLogin, Device) {
        let (cookie, begun) = self.begin().await;
        let device = Device::default();
        let answer = self.register(&cookie, &begun, &device).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let set = answer.headers()[SET_COOKIE].to_str().unwrap();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        let both = format!("{cookie}; {pair}");
        self.time.advance(MINUTE);
        (cookie, both, begun, device)
    }
}

fn caller(answer: &Answer) -> Option<&Received> {
    answer.extensions().get::<Received>()
}

#[tokio::test]
async fn b48_b50_a_bound_session_needs_its_device_wherever_a_session_is_taken() {
    for mode in [Binding::Optional, Binding::Required] {
        let world = World::new(mode).await;
        let (alone, both, _, _) = world.bound().await;
        let (_, foreign, _, _) = world.bound().await;
        let foreign = format!("{alone}; {}", foreign.split("; ").nth(1).unwrap());
        let twice = format!("{both}; {}", both.split("; ").nth(1).unwrap());
        for (method, path) in [("GET", "/x"), ("POST", "/x"), ("GET", "/websocket"), ("HEAD", "/x")] {
            // Attacks 40 and 43.
            for cookies in [&alone, &foreign, &twice] {
                for skipped in ["", "unreachable", "server_error;session_identifier=\"x\""] {
                    let pairs = [OWN, ("cookie", cookies), ("secure-session-skipped", skipped)];
                    let answer = world.send(method, path, &pairs).await;
                    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
                    assert!(caller(&answer).is_none(), "it reached the service");
                    let headers = answer.headers();
                    let set: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
                    assert_eq!(set, ["__Host-rg-d=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"]);
                    assert!(headers.contains_key(CHALLENGE));
                }
            }
            let answer = world.send(method, path, &[OWN, ("cookie", &both)]).await;
            let Received(headers, subject) = caller(&answer).unwrap();
            assert_eq!((subject.as_deref(), headers.contains_key("cookie")), (Some("ada"), false));
            // Nothing from behind the gate ends the binding.
            for name in [&CLEAR_SITE_DATA, &CHALLENGE, &SET_COOKIE] {
                assert!(!answer.headers().contains_key(name), "{name}");
            }
        }
        // The user's own sessions and API keys.
        let own: &[&str] = &["/my/sessions", "/my/keys"];
        for path in own {
            for (cookies, status) in [(&alone, 401), (&foreign, 401), (&twice, 401), (&both, 200)] {
                let answer = world.send("GET", path, &[OWN, ("cookie", cookies)]).await;
                assert_eq!(answer.status().as_u16(), status, "{path}");
            }
        }
        let tab = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("cookie", &*alone)];
        let answer = world.send("GET", "/x", &tab).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert!(answer.headers().contains_key(CHALLENGE));
        // An optional route has no caller then.
        let answer = world.send("GET", "/optional", &[("cookie", &alone)]).await;
        assert_eq!(caller(&answer).unwrap().1, None);
        let answer = world.send("GET", "/optional", &[("cookie", &both)]).await;
        assert_eq!(caller(&answer).unwrap().1.as_deref(), Some("ada"));
        // The verdict on a question of another proxy.
        let authorizer = Authorizer::new(&world.gate, Neighbour::Traefik).trusting_all();
        for (cookies, status) in [(&alone, 401), (&both, 200)] {
            let pairs = [
                ("x-forwarded-method", "GET"),
                ("x-forwarded-host", "gate.test"),
                ("x-forwarded-uri", "/x"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-for", "192.0.2.7"),
                ("cookie", cookies),
            ];
            let (mut question, _) = World::request("GET", "/", &pairs).into_parts();
            let head = authorizer.head(&mut question);
            let verdict = authorizer.decide(head).await;
            assert_eq!(verdict.status().as_u16(), status);
            assert!(!verdict.headers().contains_key(SET_COOKIE));
        }
        // Envoy, over gRPC.
        #[cfg(feature = "grpc")]
        for (cookies, status) in [(&alone, 401), (&both, 200)] {
            use crate::gate::authorizer::tests::grpc::{check, raw};
            let envoy = Authorizer::new(&world.gate, Neighbour::Envoy);
            let question = check(|http| {
                http.path = "/x".into();
                http.header_map = raw(&[("cookie", cookies.as_bytes())]);
            });
            let head = crate::gate::authorizer::grpc::head_of_check(&envoy, question);
            assert_eq!(envoy.decide(head).await.status().as_u16(), status);
        }
        let skipped = world.gate.0.running.browser_devices.counts().find(|(name, _)| *name == "skipped").unwrap().1;
        assert_eq!(skipped, 36);
    }
}

#[tokio::test]
async fn b51_a_browser_without_a_device_loses_nothing_unless_one_is_required() {
    for (mode, status) in [(Binding::Off, 200), (Binding::Optional, 200), (Binding::Required, 401)] {
        let world = World::new(mode).await;
        let (cookie, _) = world.begin().await;
        world.time.advance(MINUTE - Duration::from_secs(1));
        assert_eq!(world.send("GET", "/x", &[("cookie", &cookie)]).await.status(), StatusCode::OK, "{mode:?}");
        world.time.advance(Duration::from_secs(1));
        assert_eq!(world.send("GET", "/x", &[("cookie", &cookie)]).await.status().as_u16(), status, "{mode:?}");
    }
    let off = World::new(Binding::Off).await;
    let (cookie, begun) = off.begin().await;
    assert!(caller(&off.register(&cookie, &begun, &Device::default()).await).is_some(), "a route serves it");
}

#[tokio::test]
async fn b47_b49_a_device_registers_once_and_refreshes_by_its_key() {
    let world = World::new(Binding::Optional).await;
    let (cookie, begun) = world.begin().await;
    let (device, thief) = (Device::default(), Device::default());
    let id = begun.session.id.to_string();
    // A request of another page, or without the session, binds nothing.
    let proof = device.registration(&world.gate.0.engine.device_challenge(&begun.cookie).unwrap());
    for pairs in [
        &[("cookie", &*cookie)][..],
        &[("origin", "https://evil.test"), ("cookie", &cookie)],
        &[OWN],
        &[OWN, ("cookie", "__Host-Http-rg=rc1_x")],
    ] {
        let all = [pairs, &[("secure-session-response", &proof)]].concat();
        let answer = world.send("POST", "/auth/device", &all).await;
        assert!(matches!(answer.status().as_u16(), 401 | 403), "{}", answer.status());
        assert!(!answer.headers().contains_key(SET_COOKIE));
    }
    let (status, _, set) = world.refresh(&cookie, &id, None).await;
    assert_eq!((status, set), (200, None), "not bound: the browser forgets it");
    let answer = world.register(&cookie, &begun, &device).await;
    assert_eq!(answer.status(), StatusCode::OK);
    // Attack 41.
    let second = world.register(&cookie, &begun, &thief).await;
    assert_eq!((second.status(), second.headers().contains_key(SET_COOKIE)), (StatusCode::FORBIDDEN, false));
    assert!(!second.headers().contains_key(CHALLENGE), "nothing to sign");
    // A captured registration brings no further cookie.
    let replayed = world.register(&cookie, &begun, &device).await;
    assert_eq!((replayed.status(), replayed.headers().contains_key(SET_COOKIE)), (StatusCode::FORBIDDEN, false));
    world.time.advance(Duration::from_millis(1));
    let (_, first, _) = world.refresh(&cookie, &id, None).await;
    let first = first.unwrap();
    // Attack 42. Each refusal is 403 with a challenge.
    let good = device.proof(&first);
    let quoted = format!("\"{good}\"");
    assert_eq!(world.refresh(&cookie, &format!("\"{id}\""), Some(&quoted)).await.0, 200, "as the draft writes them");
    for bad in
        [None, Some(&*good), Some(&thief.proof(&first)), Some(""), Some("a.b.c"), Some(&device.registration(&first))]
    {
        let (status, challenge, set) = world.refresh(&cookie, &id, bad).await;
        assert_eq!((status, challenge.is_some(), set), (403, true, None), "{bad:?}");
    }
    // A challenge is of its millisecond.
    world.time.advance(Duration::from_millis(1));
    let (_, next, _) = world.refresh(&cookie, &id, None).await;
    let (status, challenge, set) = world.refresh(&cookie, &id, Some(&device.proof(&next.unwrap()))).await;
    assert_eq!((status, challenge.is_some()), (200, true));
    assert!(set.unwrap().starts_with("__Host-rg-d=rd1_"));
    // After a second login the browser asks about the first session: its cookie stays.
    let (other, _) = world.begin().await;
    let answer = world.send("POST", "/auth/device", &[OWN, ("cookie", &other), ("sec-secure-session-id", &id)]).await;
    assert_eq!((answer.status(), answer.headers().contains_key(SET_COOKIE)), (StatusCode::OK, false));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("{{\"continue\":false,\"session_identifier\":\"{id}\"}}"));
}
