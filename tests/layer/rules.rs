//! A running gate with other rules.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use rotogate::Gate;
use rotogate::gate::{GateBuilder, GateLayer};
use rotogate::route::{Auth, Route, RoutePolicy};
use rotogate::verify_cache::IdentityField;
use tower::{Layer, ServiceExt, service_fn};

use crate::{builder, tokens};

fn told_in(builder: GateBuilder, header: &'static str, auth: Auth) -> GateBuilder {
    let policy = RoutePolicy { auth, ..RoutePolicy::default() };
    builder
        .identity_headers([(HeaderName::from_static(header), IdentityField::Subject)])
        .route(Route::new("/{*rest}", policy))
}

/// Status, and what the service saw of the two headers.
async fn asked(layer: GateLayer, token: Option<&str>) -> (StatusCode, String) {
    let service = layer.layer(service_fn(async |request: Request<Empty<Bytes>>| {
        let seen = |name: &str| request.headers().get(name).map_or("none", |value| value.to_str().unwrap()).to_owned();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{} {}", seen("x-old"), seen("x-new")))))
    }));
    let mut request = Request::builder().uri("/x").header("host", "api.test");
    request = request.header("x-old", "spoofed").header("x-new", "spoofed");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = service.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    (parts.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn p5_services_of_the_old_rules_pass_on_no_identity_header_of_the_new_ones() {
    let old: Gate = told_in(builder(), "x-old", Auth::Optional).build().await.unwrap();
    let (access, _) = tokens(&old, "read").await;
    assert_eq!(asked(old.layer(), Some(&access)).await, (StatusCode::OK, "ada spoofed".into()));

    let prepared = old.prepare_rules(told_in(builder(), "x-new", Auth::Required)).unwrap();
    assert_eq!(asked(old.layer(), None).await, (StatusCode::OK, "none spoofed".into()), "nothing has changed yet");
    let new = old.use_rules(prepared);
    assert_eq!(asked(old.layer(), None).await, (StatusCode::OK, "none none".into()));
    assert_eq!(asked(old.layer(), Some(&access)).await, (StatusCode::OK, "none ada".into()));
    assert_eq!(asked(new.layer(), Some(&access)).await, (StatusCode::OK, "spoofed ada".into()));
    assert_eq!(asked(new.layer(), None).await.0, StatusCode::UNAUTHORIZED);

    // A header that no rules in force set is the client's.
    let third = new.prepare_rules(told_in(builder(), "x-old", Auth::Required)).unwrap();
    let third = new.use_rules(third);
    assert_eq!(asked(old.layer(), None).await, (StatusCode::OK, "none spoofed".into()));
    assert_eq!(asked(third.layer(), Some(&access)).await, (StatusCode::OK, "ada spoofed".into()));
}

#[tokio::test]
async fn p5_rules_that_cannot_be_used_change_nothing() {
    let gate = told_in(builder(), "x-old", Auth::Optional).build().await.unwrap();
    let twice = told_in(told_in(builder(), "x-new", Auth::Required), "x-new", Auth::Required);
    gate.prepare_rules(twice).unwrap_err();
    assert_eq!(asked(gate.layer(), None).await, (StatusCode::OK, "none spoofed".into()));
}
