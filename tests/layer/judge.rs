//! The gate in front of a server that is not a tower service, and that asks about the head of each request.

use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::request::{Builder, Parts};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::gate::{Endpoint, Judgement, PermittedRequest, Whose};
use rotogate::route::{Mcp, Resource, Route, RoutePolicy};

fn head(request: Builder) -> Parts {
    request.header(HOST, "api.test").body(()).unwrap().into_parts().0
}

fn with_token(path: &str, token: &str) -> Builder {
    Request::get(path).header(AUTHORIZATION, format!("Bearer {token}"))
}

async fn permitted(gate: &Gate, request: Builder) -> Box<PermittedRequest> {
    match gate.judge(&head(request)).await {
        Judgement::Permitted(permitted) => permitted,
        other => panic!("{other:?}"),
    }
}

async fn gate() -> Gate {
    let builder = crate::builder().route(Route::new("/public/{*rest}", RoutePolicy::public()));
    let live = Route::new("/live", RoutePolicy { upgrade: true, ..RoutePolicy::default() });
    builder.route(live).route(Route::catch_all(RoutePolicy::default())).build().await.unwrap()
}

#[tokio::test]
async fn n74_a_judged_request_has_the_head_that_the_layer_would_pass_on() {
    let gate = gate().await;
    let (token, _) = crate::tokens(&gate, "read").await;
    let request = with_token("/orders?x=1", &token).header("x-auth-subject", "root").header("x-auth-account", "theirs");
    let permitted = permitted(&gate, request.header("accept", "text/plain")).await;
    let caller = permitted.identity().unwrap();
    assert_eq!((caller.subject(), caller.scope().as_str()), ("ada", "read"));
    let removed: Vec<_> = permitted.remove().iter().map(http::HeaderName::as_str).collect();
    assert_eq!(removed, ["authorization", "x-auth-account"], "the token, and what imitates the gate's headers");
    assert_eq!(permitted.set()["x-auth-subject"], "ada");
    assert_eq!(permitted.set()["x-auth-client"], "web");
    assert!(!permitted.set().contains_key("accept"), "it stays as it is");
    let seen = permitted.head();
    assert_eq!(
        (seen.uri.to_string().as_str(), &seen.headers["accept"]),
        ("/orders?x=1", &"text/plain".parse().unwrap())
    );
    assert!(!seen.headers.contains_key(AUTHORIZATION) && !seen.headers.contains_key("x-auth-account"));
}

#[tokio::test]
async fn n74_a_refusal_is_the_reply_of_the_layer() {
    let gate = gate().await;
    let server = crate::client::Server::axum(axum::Router::new().layer(gate.layer())).await;
    for path in ["/orders", "//x", "/oauth//token", "/token/"] {
        let Judgement::Refused(judged) = gate.judge(&head(Request::get(path))).await else { panic!("{path}") };
        let replied = server.get(path).await;
        assert_eq!((judged.status(), &judged.body()[..]), (replied.status, replied.body.as_bytes()), "{path}");
        assert_eq!(judged.headers().get(WWW_AUTHENTICATE), replied.headers.get(WWW_AUTHENTICATE), "{path}");
    }
    assert!(permitted(&gate, Request::get("/public/x")).await.identity().is_none());
}

#[tokio::test]
async fn n74_an_endpoint_is_answered_by_the_gate() {
    let gate = gate().await;
    let (_, refresh) = crate::tokens(&gate, "").await;
    let ask = |path: &str| Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    assert!(matches!(gate.judge(&head(ask("/token"))).await, Judgement::Endpoint));
    assert!(matches!(gate.judge(&head(Request::get("/.well-known/jwks.json"))).await, Judgement::Endpoint));
    let body = Full::new(format!("grant_type=refresh_token&client_id=web&refresh_token={refresh}").into());
    let reply = gate.answer(ask("/token").header(HOST, "api.test").body::<Full<bytes::Bytes>>(body).unwrap()).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["access_token"].is_string());
}

#[tokio::test]
async fn n74_a_permitted_request_ends_with_its_session() {
    let gate = gate().await;
    let (token, _) = crate::tokens(&gate, "").await;
    let upgrade = with_token("/live", &token).header("upgrade", "websocket").header("connection", "upgrade");
    let mut live = permitted(&gate, upgrade).await;
    assert!(live.head().headers.contains_key("upgrade"), "its route allows it");
    let upgrade = with_token("/orders", &token).header("upgrade", "websocket").header("connection", "upgrade");
    let refused = permitted(&gate, upgrade).await;
    assert_eq!(refused.remove(), ["authorization", "upgrade", "connection"]);
    assert!(tokio::time::timeout(Duration::from_millis(50), live.ended()).await.is_err(), "it may go on");
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(live.ended().await, "revoked");
    assert!(matches!(gate.judge(&head(with_token("/orders", &token))).await, Judgement::Refused(_)));
}

#[tokio::test]
async fn n74_a_require_judges_the_head_of_a_permitted_request_or_alone() {
    let gate = gate().await;
    let (token, _) = crate::tokens(&gate, "read").await;
    let first = permitted(&gate, with_token("/orders", &token)).await;
    assert!(matches!(gate.require().scope("read").judge(first.head()).await, Judgement::Permitted(_)));
    match gate.require().scope("write").judge(first.head()).await {
        Judgement::Refused(reply) => {
            assert_eq!(reply.status(), StatusCode::FORBIDDEN);
            assert_eq!(reply.headers()[WWW_AUTHENTICATE].to_str().unwrap().matches("scope=\"write\"").count(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(gate.require().judge(&head(with_token("/x", &token))).await, Judgement::Permitted(_)));
    assert!(matches!(gate.require().judge(&head(Request::get("/x"))).await, Judgement::Refused(_)));
}

#[tokio::test]
async fn n74_a_call_that_its_body_decides_is_refused_with_the_reason() {
    for headers_alone in [false, true] {
        let resource = Resource { mcp: Some(Mcp { headers_alone, ..Mcp::default() }), ..Resource::new("/mcp") };
        let policy = || RoutePolicy {
            audiences: vec!["https://api.test".into()],
            resource: Some("/mcp".into()),
            ..RoutePolicy::default()
        };
        let builder = crate::builder().resource(resource).route(Route::new("/mcp", policy()));
        let gate = builder.route(Route::mcp_rule(["*"], policy()).unwrap()).build().await.unwrap();
        let (token, _) = crate::tokens(&gate, "").await;
        let call = with_token("/mcp", &token).method("POST").header("content-type", "application/json");
        let call = call.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list");
        match gate.judge(&head(call)).await {
            Judgement::Permitted(_) => assert!(headers_alone),
            Judgement::Refused(reply) => {
                let said = String::from_utf8(reply.body().to_vec()).unwrap();
                assert_eq!((headers_alone, reply.status()), (false, StatusCode::FORBIDDEN), "{said}");
                assert!(said.contains("received only the head of the request"), "{said}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn n74_a_call_in_an_envelope_has_no_service_to_go_to() {
    let gate = crate::builder().endpoint(Endpoint::new(Kuzzle::default())).build().await.unwrap();
    let (token, _) = crate::tokens(&gate, "").await;
    let query = || with_token("/_query", &token).method("POST").header(HOST, "api.test");
    assert!(matches!(gate.judge(&query().body(()).unwrap().into_parts().0).await, Judgement::Endpoint));
    let body = Full::new(bytes::Bytes::from_static(br#"{"controller":"document","action":"get"}"#));
    let reply = gate.answer(query().body(body).unwrap()).await;
    assert_eq!(reply.status(), StatusCode::NOT_IMPLEMENTED);
    let said = reply.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8(said.to_vec()).unwrap().contains("`gate.layer().forward_buffered()`"));
}
