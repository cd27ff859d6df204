//! The application's own refresh, and tokens in cookies.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode};
use rotogate::denial::Denial;
use rotogate::fault::Error;
use rotogate::gate::NewSession;
use rotogate::gate::{ACCESS_COOKIE, REFRESH_COOKIE};
use rotogate::{Gate, Identity};
use rotogate_core::limit::{Rate, Rates};

use crate::client::{Answer, Server, send};
use crate::{builder, gate, tokens};

fn denied(result: Result<rotogate_core::engine::IssuedTokens, Error>) -> Denial {
    match result {
        Err(Error::Denied(denial)) => denial,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn r1_r2_r4_the_application_refreshes_as_an_endpoint_does() {
    let gate = gate().await;
    let (first, refresh) = tokens(&gate, "read").await;
    let second = gate.sessions().refresh(&refresh).await.unwrap();
    assert_ne!(second.access_token.expose(), first);
    let again = gate.sessions().refresh(&refresh).await.unwrap();
    assert_eq!(again.access_token.expose(), second.access_token.expose(), "a replay");
    let third = gate.sessions().refresh(second.refresh_token.as_ref().unwrap().expose()).await.unwrap();
    // The endpoint knows the same session, and the same generations.
    let server = Server::axum(Router::new().layer(gate.layer())).await;
    let fourth = server.refresh("/token", third.refresh_token.unwrap().expose()).await;
    assert_eq!(fourth.status, StatusCode::OK);
    assert!(matches!(denied(gate.sessions().refresh(&refresh).await), Denial::Reuse { .. }));
    let last = fourth.member("refresh_token");
    assert!(matches!(denied(gate.sessions().refresh(&last).await), Denial::SessionRevoked(_)), "the reuse ended it");
    for junk in ["", "x", &format!("{last}x"), &last[..last.len() - 1]] {
        assert_eq!(denied(gate.sessions().refresh(junk).await), Denial::UnknownRefreshToken);
    }
}

#[tokio::test]
async fn a1_the_limits_of_refreshes_count_those_of_the_application() {
    let gate =
        builder().rates(Rates { refresh_per_address: Rate::new(2, Duration::from_secs(60)), ..Rates::default() });
    let gate = gate.build().await.unwrap();
    let (_, refresh) = tokens(&gate, "read").await;
    let sessions = gate.sessions();
    let from = |n| sessions.refresh_from(&refresh, std::net::IpAddr::from([192, 0, 2, n]));
    for _ in 0..2 {
        assert!(from(1).await.is_ok());
    }
    assert!(matches!(denied(from(1).await), Denial::RateLimited("refresh_per_address", _)));
    assert!(from(2).await.is_ok());
}

async fn login(State(gate): State<Gate>, request: Request) -> Response {
    if gate.cookies().admit(request.headers()).is_err() {
        return StatusCode::FORBIDDEN.into_response();
    }
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    (gate.cookies().set(&issued), "in").into_response()
}

async fn refresh(State(gate): State<Gate>, request: Request) -> Response {
    match gate.cookies().refresh(&request.into_parts().0).await {
        Ok(issued) => (gate.cookies().set(&issued), "on").into_response(),
        Err(Error::Denied(Denial::CrossOrigin)) => StatusCode::FORBIDDEN.into_response(),
        Err(_) => (StatusCode::UNAUTHORIZED, gate.cookies().clear()).into_response(),
    }
}

async fn logout(State(gate): State<Gate>, request: Request) -> Response {
    match gate.cookies().log_out(&request.into_parts().0).await {
        Ok(()) => gate.cookies().clear().into_response(),
        Err(_) => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

/// The cookies that a browser keeps, as it sends them.
fn jar(answer: &Answer) -> String {
    let pair = |cookie: &HeaderValue| cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    answer.headers.get_all("set-cookie").iter().map(pair).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn t18_a_single_page_client_logs_in_refreshes_and_logs_out_by_cookies() {
    let gate = gate().await;
    let app = Router::new()
        .route("/me", get(me).route_layer(gate.require().cookie(ACCESS_COOKIE)))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .route("/logout", post(logout))
        .with_state(gate.clone());
    let server = Server::axum(app).await;
    let ask = async |method: &str, path: &str, cookies: &str, origin: &str| {
        let request = server.request(path).method(method).header("cookie", cookies).header("origin", origin);
        send(request.body(String::new()).unwrap()).await
    };
    let (ours, theirs) = ("https://api.test", "https://evil.test");

    assert_eq!(ask("POST", "/login", "", theirs).await.status, StatusCode::FORBIDDEN, "a login for another");
    let first = ask("POST", "/login", "", ours).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.headers["cache-control"], "no-store");
    for (cookie, name) in first.headers.get_all("set-cookie").iter().zip([ACCESS_COOKIE, REFRESH_COOKIE]) {
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.starts_with(&format!("{name}=")), "{name}");
        assert!(cookie.contains("; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age="), "{name}");
    }
    let cookies = jar(&first);
    assert_eq!(ask("GET", "/me", &cookies, ours).await.body, "ada");
    assert_eq!(ask("POST", "/refresh", &cookies, theirs).await.status, StatusCode::FORBIDDEN);
    let second = ask("POST", "/refresh", &cookies, ours).await;
    assert_eq!(second.status, StatusCode::OK);
    let cookies = jar(&second);
    assert_eq!(ask("GET", "/me", &cookies, ours).await.body, "ada");
    assert_eq!(ask("POST", "/logout", &cookies, theirs).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask("GET", "/me", &cookies, ours).await.body, "ada", "another site ends nothing");
    let out = ask("POST", "/logout", &cookies, ours).await;
    assert_eq!(jar(&out), format!("{ACCESS_COOKIE}=; {REFRESH_COOKIE}="));
    assert!(out.headers.get_all("set-cookie").iter().all(|cookie| cookie.to_str().unwrap().contains("Max-Age=0")));
    assert_eq!(ask("GET", "/me", &cookies, ours).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("POST", "/refresh", &cookies, ours).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("POST", "/refresh", "", ours).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("POST", "/logout", "", ours).await.status, StatusCode::OK, "nothing to end");
}

#[tokio::test]
async fn cookies_may_last_until_the_browser_is_closed_and_be_sent_from_elsewhere() {
    let gate = gate().await;
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    let headers = gate.cookies().cross_site().until_closed().set(&issued);
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    for cookie in headers.get_all("set-cookie") {
        assert!(cookie.is_sensitive() && cookie.to_str().unwrap().ends_with("; SameSite=None"));
    }
}
