//! Tests of handlers, as an application writes them: `rotogate::test`.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{Request, StatusCode};
use rotogate::Identity;
use rotogate::gate::Claims;
use rotogate::test::{TestIdentity, TestLayer};
use tower::ServiceExt;

use crate::gate;

#[derive(serde::Deserialize)]
struct Mine {
    tenant: String,
}

async fn shown(identity: Identity, Claims(mine): Claims<Mine>) -> String {
    let roles = identity.has_role("editor");
    format!("{} {:?} {:?} {} {roles}", identity.subject(), identity.scope(), identity.account(), mine.tenant)
}

async fn maybe(identity: Option<Identity>) -> String {
    format!("{:?}", identity.and_then(|identity| identity.session()).is_some())
}

async fn get_at(app: Router, path: &str) -> (StatusCode, String) {
    let response = app.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), 10_000).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_handler_is_tested_with_a_caller_of_the_tests_choice_or_none() {
    let app = || Router::new().route("/", get(shown)).route("/maybe", get(maybe));
    let ada = TestIdentity::new("ada").scope("read").scope("write").account("acme").role("clerk").role("editor");
    let (status, body) = get_at(app().layer(ada.clone().claim("tenant", "t1").layer()), "/").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ada \"read write\" Some(\"acme\") t1 true"));
    assert_eq!(get_at(app().layer(ada.layer()), "/").await.0, StatusCode::FORBIDDEN, "no tenant");
    assert_eq!(get_at(app().layer(ada.layer()), "/maybe").await.1, "true");
    assert_eq!(get_at(app().layer(ada.without_session().layer()), "/maybe").await.1, "false");
    assert_eq!(get_at(app().layer(TestLayer::anonymous()), "/maybe").await.1, "false");
    assert_eq!(get_at(app().layer(TestLayer::anonymous()), "/").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_gate_does_not_believe_a_test_caller() {
    let gate = gate().await;
    let app = Router::new().route("/", get(maybe)).route_layer(gate.require()).layer(TestIdentity::new("ada").layer());
    let request = Request::get("/").header("host", "api.test").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
