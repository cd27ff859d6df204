//! Sessions of browsers that the application begins.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use rotogate::denial::Denial;
use rotogate::fault::Error;
use rotogate::gate::{Browser, NewSession};
use rotogate::route::{Route, RoutePolicy};
use rotogate::{Gate, Identity};

use crate::client::{Answer, Server, send};
use crate::{builder, gate};

const OWN: (&str, &str) = ("origin", "http://127.0.0.1:3000");
const EVIL: (&str, &str) = ("origin", "https://evil.test");

fn answered(result: Result<HeaderMap, Error>) -> Response {
    match result {
        Ok(headers) => headers.into_response(),
        Err(Error::Denied(Denial::CrossOrigin)) => StatusCode::FORBIDDEN.into_response(),
        Err(Error::Denied(Denial::TwoCredentials)) => StatusCode::BAD_REQUEST.into_response(),
        Err(error) => panic!("{error}"),
    }
}

async fn login(State(gate): State<Gate>, request: Request) -> Response {
    answered(gate.browser().begin(&request.into_parts().0, NewSession::new("ada", "browser")).await)
}

async fn logout(State(gate): State<Gate>, request: Request) -> Response {
    answered(gate.browser().revoke(&request.into_parts().0).await)
}

async fn server() -> Server {
    let gate = builder()
        .public_url("http://127.0.0.1:3000")
        .browser(Browser::own("/auth").without_page())
        .route(Route::new("/login", RoutePolicy::public()))
        .route(Route::new("/logout", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default().session()));
    let gate = gate.build().await.unwrap();
    let me = async |identity: Identity| identity.subject().to_owned();
    let app = Router::new().route("/login", post(login)).route("/logout", post(logout)).route("/me", get(me));
    Server::axum(app.with_state(gate.clone()).layer(gate.layer())).await
}

async fn ask(server: Server, line: (&str, &str), headers: &[(&str, &str)]) -> Answer {
    let mut request = server.request(line.1).method(line.0);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(String::new()).unwrap()).await
}

fn cookie(answer: &Answer) -> String {
    answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn b53_begin_and_end_need_proof_of_origin_and_no_session_is_adopted() {
    let server = server().await;
    let (login, logout, me) = (("POST", "/login"), ("POST", "/logout"), ("GET", "/me"));
    for headers in [&[][..], &[EVIL], &[("origin", "null")], &[("sec-fetch-site", "same-site")]] {
        let refused = ask(server, login, headers).await;
        assert_eq!((refused.status, refused.headers.contains_key("set-cookie")), (StatusCode::FORBIDDEN, false));
    }
    let first = ask(server, login, &[OWN]).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.headers["cache-control"], "no-store");
    let held = cookie(&first);
    let by_cookie = |value: &str| [("cookie".to_owned(), value.to_owned())];
    let get = async |value: &str| {
        let pairs = by_cookie(value);
        ask(server, me, &[(&pairs[0].0, &pairs[0].1)]).await
    };
    assert_eq!(get(&held).await.body, "ada");
    // Another login of the same user ends the session that the browser presents, after `grace`.
    let second = cookie(&ask(server, login, &[OWN, ("cookie", &held)]).await);
    assert_ne!(held, second);
    let mut is_over = false;
    for _ in 0..600 {
        is_over = get(&held).await.status == StatusCode::UNAUTHORIZED;
        if is_over {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!((is_over, get(&second).await.body), (true, "ada".to_owned()));
    assert_eq!(
        ask(server, login, &[OWN, ("cookie", &format!("{second}; {second}"))]).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(ask(server, logout, &[EVIL, ("cookie", &second)]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(get(&second).await.body, "ada", "another site ends nothing");
    let out = ask(server, logout, &[OWN, ("cookie", &second)]).await;
    assert_eq!(out.headers["set-cookie"], "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    assert_eq!(get(&second).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(server, logout, &[OWN]).await.status, StatusCode::OK, "nothing to end");
}

/// The service sets this cookie.
async fn set(headers: HeaderMap) -> Response {
    ([("set-cookie", headers["x-set"].clone())], "").into_response()
}

/// The cookies that an answer sets.
fn set_by(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn b27_b53_the_cookies_of_begin_and_end_pass_once_and_no_other_cookie_of_ours_does() {
    let gate = builder()
        .public_url("http://127.0.0.1:3000")
        .browser(Browser::own("/auth").without_page())
        .route(Route::new("/login", RoutePolicy::public()))
        .route(Route::new("/set", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default().session()));
    let gate = gate.build().await.unwrap();
    let app = Router::new()
        .route("/login", post(login))
        .route("/again", post(login))
        .route("/logout", post(logout))
        .route("/set", post(set))
        .route("/required", post(login).layer(gate.require()));
    // A layer within a layer, as when a part of the application has one of its own.
    let app = app.with_state(gate.clone()).layer(gate.layer()).layer(gate.layer());
    let server = Server::axum(app).await;
    let begun = ask(server, ("POST", "/login"), &[OWN]).await;
    let [begun] = set_by(&begun)[..] else { panic!("one cookie") };
    assert!(begun.starts_with("__Host-Http-rg=rc1_"));
    // The service itself sets it again, or clears it.
    let cleared = "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0";
    for value in [begun, cleared, "__Host-Http-rg-tx-AbCd1234=x; Path=/"] {
        assert!(set_by(&ask(server, ("POST", "/set"), &[("x-set", value)]).await).is_empty(), "{value}");
    }
    assert_eq!(set_by(&ask(server, ("POST", "/set"), &[("x-set", "app=1")]).await), ["app=1"]);
    // In a handler whose caller has a session.
    let held = begun.split(';').next().unwrap().to_owned();
    for path in ["/again", "/required"] {
        let again = ask(server, ("POST", path), &[OWN, ("cookie", &held)]).await;
        let [again] = set_by(&again)[..] else { panic!("{path}: one cookie") };
        assert!(again.starts_with("__Host-Http-rg=rc1_") && !again.starts_with(&held), "{path}");
    }
    assert_eq!(set_by(&ask(server, ("POST", "/logout"), &[OWN, ("cookie", &held)]).await), [cleared]);
    // The refusal of a layer clears the cookie.
    let over = ask(server, ("POST", "/required"), &[OWN, ("cookie", &held)]).await;
    assert_eq!((over.status, set_by(&over)), (StatusCode::UNAUTHORIZED, vec![cleared]));
    // Without a layer.
    let alone = Router::new().route("/set", post(set)).layer(gate.require());
    let alone = Server::axum(alone).await;
    let token = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap().access_token;
    let bearer = format!("Bearer {}", token.expose());
    for (value, count) in [(begun, 0), ("app=1", 1)] {
        let answer = ask(alone, ("POST", "/set"), &[("authorization", &bearer), ("x-set", value)]).await;
        assert_eq!((answer.status, set_by(&answer).len()), (StatusCode::OK, count), "{value}");
    }
}

#[tokio::test]
async fn b16_b20_b52_a_single_route_takes_a_session_only_if_it_says_so() {
    let gate = builder().public_url("http://127.0.0.1:3000").browser(Browser::own("/auth").without_page());
    let gate = gate.build().await.unwrap();
    let taken = async |identity: Identity| if identity.uses_session_cookie() { "session" } else { "token" };
    let page = get(taken).post(taken).layer(gate.require().session());
    let app = Router::new().route("/page", page).route("/api", get(taken).layer(gate.require()));
    let server = Server::axum(app).await;
    let (parts, ()) = http::Request::post("/").header(OWN.0, OWN.1).body(()).unwrap().into_parts();
    let begun = gate.browser().begin(&parts, NewSession::new("ada", "browser")).await.unwrap();
    let held = ("cookie", begun["set-cookie"].to_str().unwrap().split(';').next().unwrap());
    let token = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap().access_token;
    let bearer = format!("Bearer {}", token.expose());
    let bearer = ("authorization", bearer.as_str());
    for (line, headers, status, body) in [
        (("GET", "/page"), &[held][..], 200, "session"),
        (("POST", "/page"), &[held, OWN], 200, "session"),
        (("POST", "/page"), &[held, EVIL], 403, ""),
        (("POST", "/page"), &[held], 403, ""),
        (("GET", "/page"), &[held, held], 400, ""),
        (("GET", "/page"), &[held, bearer], 200, "token"),
        (("GET", "/page"), &[held, ("authorization", "Bearer x")], 401, ""),
        (("GET", "/api"), &[held], 401, ""),
        (("GET", "/api"), &[bearer], 200, "token"),
    ] {
        let answer = ask(server, line, headers).await;
        assert_eq!(answer.status.as_u16(), status, "{line:?} {headers:?}: {}", answer.body);
        assert!(status != 200 || answer.body == body, "{line:?} {headers:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn b53_without_an_endpoint_of_browsers_nothing_begins() {
    let gate = Arc::new(gate().await);
    let (parts, ()) = http::Request::post("/").header("origin", "https://api.test").body(()).unwrap().into_parts();
    let begun = gate.browser().begin(&parts, NewSession::new("ada", "web")).await;
    assert!(matches!(begun, Err(Error::Denied(Denial::NoRoute))));
}
