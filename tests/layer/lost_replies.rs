//! A lost reply costs no login where the access token is its own refresh credential (Kuzzle), with a clock that the test
//! moves.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::gate::{Endpoint, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::profile::{OnReuse, ProfileOverride};
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::token::keyring::Keyring;
use serde_json::{Value, json};
use support::events::Events;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt, service_fn};

use crate::client::Server;
use crate::node_limits::Users;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How a client presents its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In `Authorization`.
    Header,
    /// In an envelope, as the SDK for the JVM does.
    Envelope,
    /// In a cookie.
    Cookie,
    /// In the URL.
    Query,
}

const FORMS: [Form; 3] = [Form::Header, Form::Envelope, Form::Cookie];

struct World {
    gate: Gate,
    time: Arc<ManualTime>,
}

impl World {
    async fn new() -> Self {
        Self::with(ProfileOverride::default()).await
    }

    async fn with(profile: ProfileOverride) -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let gate = Gate::builder()
            .issuer("https://api.test")
            .keys(Keyring::ephemeral().unwrap())
            .client(Client::public("kuzzle"))
            .endpoint(Endpoint::new(Kuzzle::default()).profile(profile))
            .directory(Arc::new(Users))
            .route(Route::catch_all(RoutePolicy { dialect: Some("kuzzle".to_owned()), ..RoutePolicy::default() }))
            .time(Arc::clone(&time) as Arc<dyn TimeSource>)
            .build();
        Self { gate: gate.await.unwrap(), time }
    }

    /// The `result` of the answer, or the answer of a refusal.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Value, String> {
        let request = Request::builder().method(method).uri(path).header("host", "api.test");
        let request = request.header("content-type", "application/json").header("sec-fetch-site", "same-origin");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut request = request.body(Full::from(body.to_string())).unwrap();
        request.extensions_mut().insert(Peer::new("192.0.2.1".parse().unwrap(), false));
        let service = self.gate.layer().layer(service_fn(async |_: Request<Full<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(r#"{"result":{}}"#)))
        }));
        let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
        let mut answer: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        if parts.status.is_success() { Ok(answer["result"].take()) } else { Err(answer.to_string()) }
    }

    async fn log_in(&self) -> String {
        let credentials = json!({ "username": "ada", "password": "right" });
        jwt(self.ask("POST", "/_login/local", &[], &credentials).await)
    }

    /// An action with a token.
    async fn act(&self, form: Form, action: &str, token: &str) -> Result<Value, String> {
        let (path, nothing) = (format!("/_{action}"), json!({}));
        match form {
            Form::Header => self.ask("POST", &path, &[("authorization", &format!("Bearer {token}"))], &nothing).await,
            Form::Cookie => self.ask("POST", &path, &[("cookie", &format!("authToken={token}"))], &nothing).await,
            Form::Query => self.ask("POST", &format!("{path}?jwt={token}"), &[], &nothing).await,
            Form::Envelope => {
                let envelope = json!({
                    "controller": "auth", "action": action, "jwt": token, "volatile": { "sdkName": "jvm@1" },
                });
                self.ask("POST", "/_query", &[], &envelope).await
            }
        }
    }

    /// The exchange of a token. A token in a cookie is returned in a cookie, so the next step asks for it by header.
    async fn refresh(&self, form: Form, token: &str) -> Result<String, String> {
        let issued = self.act(form, "refreshToken", token).await?;
        match form {
            // Within `grace` the pair comes again.
            Form::Cookie => Ok(jwt(self.act(Form::Header, "refreshToken", token).await)),
            Form::Header | Form::Envelope | Form::Query => Ok(jwt(Ok(issued))),
        }
    }

    async fn is_valid(&self, token: &str) -> bool {
        let checked = self.ask("POST", "/_checkToken", &[], &json!({ "token": token })).await.unwrap();
        checked["valid"].as_bool().unwrap()
    }

    async fn passes(&self, token: &str) -> bool {
        self.ask("GET", "/hello", &[("authorization", &format!("Bearer {token}"))], &json!({})).await.is_ok()
    }
}

fn jwt(issued: Result<Value, String>) -> String {
    issued.unwrap()["jwt"].as_str().unwrap().to_owned()
}

fn is_audited(events: &Events, event: &str) -> bool {
    events.taken().iter().any(|fields| fields.get("event").is_some_and(|said| said == event))
}

/// The exchange and `checkToken` refuse the token alike.
async fn is_refused(world: &World, form: Form, token: &str) -> bool {
    let refused = world.refresh(form, token).await.is_err();
    assert_eq!(refused, !world.is_valid(token).await, "{form:?}");
    refused
}

#[tokio::test]
async fn r35_the_previous_token_brings_a_pair_while_its_successor_is_unused_also_once_it_has_expired() {
    for form in FORMS {
        for later in [MINUTE, 2 * HOUR, 23 * HOUR] {
            let world = World::new().await;
            let first = world.log_in().await;
            let lost = world.refresh(Form::Header, &first).await.unwrap();
            world.time.advance(later);
            assert!(world.is_valid(&first).await, "{form:?} {later:?}");
            assert!(!world.passes(&first).await, "a route refuses it at once");
            let events = Events::collect(|metadata| metadata.target() == "rotogate::audit");
            let found = world.refresh(form, &first).await.unwrap();
            assert_ne!(found, lost);
            assert!(is_audited(&events, "reissue"), "{form:?} {later:?}");
            drop(events);
            assert!(!world.passes(&lost).await, "the abandoned one");
            // Its use closes the window.
            world.time.advance(MINUTE);
            assert!(world.is_valid(&first).await && world.passes(&found).await);
            assert!(!world.is_valid(&first).await, "{form:?} {later:?}");
            assert!(world.refresh(form, &first).await.is_err() && world.refresh(form, &lost).await.is_err());
            assert!(world.passes(&found).await, "a reuse ends nothing");
        }
    }
}

#[tokio::test]
async fn r35_no_other_expired_token_brings_a_pair() {
    for form in FORMS {
        let world = World::new().await;
        // The current one.
        let unused = world.log_in().await;
        world.time.advance(HOUR + MINUTE);
        assert!(is_refused(&world, form, &unused).await, "{form:?}");
        // Two generations back, with each successor unused.
        let first = world.log_in().await;
        let second = world.refresh(form, &first).await.unwrap();
        world.refresh(form, &second).await.unwrap();
        assert!(is_refused(&world, form, &first).await, "{form:?}");
        world.time.advance(2 * HOUR);
        assert!(is_refused(&world, form, &first).await, "{form:?}");
        assert!(!is_refused(&world, form, &second).await, "{form:?}");
        // Of an ended session.
        let first = world.log_in().await;
        let second = world.refresh(form, &first).await.unwrap();
        world.act(Form::Header, "logout", &second).await.unwrap();
        assert!(is_refused(&world, form, &first).await, "{form:?}");
        world.time.advance(2 * HOUR);
        assert!(is_refused(&world, form, &first).await, "{form:?}");
        // After the window.
        let first = world.log_in().await;
        world.refresh(form, &first).await.unwrap();
        world.time.advance(24 * HOUR);
        assert!(is_refused(&world, form, &first).await, "{form:?}");
    }
}

#[tokio::test]
async fn r35_each_use_of_the_new_token_closes_the_window_and_a_reuse_is_audited() {
    for is_expired in [false, true] {
        for used in ["route", "getCurrentUser", "checkToken"] {
            let world = World::new().await;
            let first = world.log_in().await;
            let second = world.refresh(Form::Header, &first).await.unwrap();
            match used {
                "route" => assert!(world.passes(&second).await),
                "checkToken" => assert!(world.is_valid(&second).await),
                _ => {
                    let bearer = format!("Bearer {second}");
                    world.ask("GET", "/_me", &[("authorization", &bearer)], &json!({})).await.unwrap();
                }
            }
            world.time.advance(if is_expired { 2 * HOUR } else { MINUTE });
            let events = Events::collect(|metadata| metadata.target() == "rotogate::audit");
            assert!(is_refused(&world, Form::Header, &first).await, "{used}");
            assert!(is_audited(&events, "reuse"), "{used}");
        }
    }
}

/// Within `grace` a used pair comes again, but not for an expired token.
#[tokio::test]
async fn r35_an_expired_token_is_repeated_within_grace_only_while_its_successor_is_unused() {
    for is_used in [false, true] {
        let world = World::new().await;
        let first = world.log_in().await;
        world.time.advance(HOUR - Duration::from_secs(5));
        let second = world.refresh(Form::Header, &first).await.unwrap();
        assert_eq!(world.refresh(Form::Header, &first).await.unwrap(), second);
        assert!(!is_used || world.passes(&second).await);
        assert_eq!(world.refresh(Form::Header, &first).await.unwrap(), second, "it has not expired yet");
        world.time.advance(Duration::from_secs(9));
        let events = Events::collect(|metadata| metadata.target() == "rotogate::audit");
        assert_eq!(is_refused(&world, Form::Header, &first).await, is_used);
        assert_eq!(is_audited(&events, "reissue"), !is_used);
        assert!(world.passes(&second).await);
    }
}

/// The SDK for the JVM makes an event of this id alone.
#[tokio::test]
async fn r35_an_expired_token_is_called_expired_and_ends_nothing() {
    let world = World::with(ProfileOverride { on_reuse: Some(OnReuse::RevokeSession), ..Default::default() }).await;
    let first = world.log_in().await;
    let second = world.refresh(Form::Envelope, &first).await.unwrap();
    assert!(world.passes(&second).await);
    let third = world.refresh(Form::Envelope, &second).await.unwrap();
    world.time.advance(2 * HOUR);
    for old in [&first, &third] {
        let refused = world.act(Form::Envelope, "refreshToken", old).await.unwrap_err();
        assert!(refused.contains("security.token.expired"), "{refused}");
    }
    let fourth = world.refresh(Form::Envelope, &second).await.unwrap();
    assert!(world.passes(&fourth).await);
    // One that has not expired ends the session.
    world.refresh(Form::Envelope, &third).await.unwrap_err();
    assert!(world.passes(&fourth).await, "it has expired");
    let fifth = world.refresh(Form::Envelope, &fourth).await.unwrap();
    assert!(world.passes(&fifth).await);
    world.time.advance(MINUTE);
    world.refresh(Form::Envelope, &fourth).await.unwrap_err();
    assert!(!world.passes(&fifth).await);
}

/// Logs and histories keep URLs for long.
#[tokio::test]
async fn r35_an_expired_token_in_a_url_brings_nothing() {
    let world = World::new().await;
    let first = world.log_in().await;
    world.refresh(Form::Query, &first).await.unwrap();
    world.time.advance(MINUTE);
    world.refresh(Form::Query, &first).await.unwrap();
    world.time.advance(2 * HOUR);
    world.refresh(Form::Query, &first).await.unwrap_err();
    let by_flag = format!("/_checkToken?cookieAuth&jwt={first}");
    assert_eq!(world.ask("POST", &by_flag, &[], &json!({})).await.unwrap()["valid"], false);
    world.refresh(Form::Header, &first).await.unwrap();
}

/// A server that passes bytes on, and cuts the connection on which the reply of an exchange comes, if it shall be lost.
async fn cutting(gate: Server, lose: Arc<AtomicBool>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let lose = Arc::clone(&lose);
            tokio::spawn(async move {
                let gate = TcpStream::connect(gate.0).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_gate, mut to_gate)) =
                    (client.into_split(), gate.into_split());
                let replies = async {
                    let mut bytes = [0; 64 * 1024];
                    loop {
                        let read = from_gate.read(&mut bytes).await.unwrap_or_default();
                        let reply = &bytes[..read];
                        let is_exchange = String::from_utf8_lossy(reply).contains("\"action\":\"refreshToken\"");
                        if read == 0 || is_exchange && lose.swap(false, Ordering::SeqCst) {
                            return;
                        }
                        if to_client.write_all(reply).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = replies => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_gate) => {}
                }
            });
        }
    });
    Server(address)
}

/// Kuzzle's own SDK for JavaScript.
#[cfg(feature = "kuzzle")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r35_kuzzle_sdk_loses_a_reply_and_is_logged_in_an_hour_later() {
    let scripts = ["common.js", "lost_reply.js"];
    let folder = support::clients::installed_with("interop/kuzzle", &scripts);
    for transport in ["websocket", "http"] {
        let world = World::new().await;
        let found = json!({ "status": 200, "error": null, "result": { "_id": "1", "_source": {} } });
        let service = Router::new().fallback(async move || axum::Json(found.clone()));
        let service = service.layer(world.gate.layer().forward_buffered());
        let lose = Arc::<AtomicBool>::default();
        let (time, losing) = (Arc::clone(&world.time), Arc::clone(&lose));
        let order = move |what: axum::extract::Path<String>| {
            match what.as_str() {
                "lose" => losing.store(true, Ordering::SeqCst),
                "hour" => time.advance(HOUR + MINUTE),
                "minute" => time.advance(MINUTE),
                other => panic!("the script asks for {other}"),
            }
            std::future::ready(())
        };
        let gate = Server::axum(Router::new().route("/test/{what}", any(order)).merge(service)).await;
        let node = tokio::process::Command::new("node")
            .args(["--no-experimental-websocket", "--no-warnings", "lost_reply.js", transport])
            .current_dir(&folder)
            .env("GATE_PORT", cutting(gate, lose).await.0.port().to_string())
            .env("USER_NAME", "ada")
            .env("PASSWORD", "right")
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .await
            .expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
        let why = String::from_utf8_lossy(&node.stderr);
        assert_eq!(String::from_utf8_lossy(&node.stdout).trim(), "the SDK is content", "{transport}: {why}");
    }
}
