//! A running gate with other rules.

use std::convert::Infallible;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use rotogate::Gate;
use rotogate::gate::{BuildError, GateBuilder, GateLayer};
use rotogate::route::{Auth, Route, RoutePolicy};
use rotogate::token::{Algorithm, Keyring};
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::verify_cache::IdentityField;
use tower::{Layer, ServiceExt, service_fn};

use crate::{builder, tokens};

fn told_in(builder: GateBuilder, header: &'static str, auth: Auth) -> GateBuilder {
    let policy = RoutePolicy { auth, ..RoutePolicy::default() };
    builder
        .identity_headers([(HeaderName::from_static(header), IdentityField::Subject)])
        .route(Route::new("/{*rest}", policy))
}

#[tokio::test]
async fn a_gate_has_at_most_64_identity_headers_from_the_start_and_by_a_reload() {
    let with = |number: usize| {
        let name = |at: usize| HeaderName::try_from(format!("x-c{at}")).unwrap();
        builder().identity_headers((0..number).map(|at| (name(at), IdentityField::Subject)))
    };
    let gate = with(64).build().await.unwrap();
    assert!(matches!(with(65).build().await, Err(BuildError::IdentityHeaders(65))));
    assert!(matches!(gate.prepare_rules(with(65)), Err(BuildError::IdentityHeaders(65))));
    let (access, _) = tokens(&gate, "read").await;
    let service = gate.layer().layer(service_fn(async |request: Request<Empty<Bytes>>| {
        let named =
            request.headers().iter().filter(|(name, value)| name.as_str().starts_with("x-c") && *value == "ada");
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(named.count().to_string())))
    }));
    let request = Request::get("/x").header("host", "api.test").header("authorization", format!("Bearer {access}"));
    let answer = service.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "64", "the last one, too");
}

/// The status, and the two headers at the service.
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

    // A header that no rule in force sets belongs to the client.
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

/// The `jti` and the `exp` of an assertion.
fn assertion_of(header: &str) -> (String, u64) {
    let payload = URL_SAFE_NO_PAD.decode(header.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    (claims["jti"].as_str().unwrap().to_owned(), claims["exp"].as_u64().unwrap())
}

#[tokio::test]
async fn n57_n60_an_assertion_is_renewed_at_half_of_its_time_apart_from_requests() {
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let route = Route { assertion_audience: Some("app".into()), ..Route::new("/{*rest}", RoutePolicy::default()) };
    let gate = builder()
        .time(std::sync::Arc::clone(&time) as _)
        .assertion(HeaderName::from_static("x-new"), Duration::from_secs(60))
        .route(route)
        .build()
        .await
        .unwrap();
    let (access, _) = tokens(&gate, "read").await;
    let get = async || {
        let (status, seen) = asked(gate.layer(), Some(&access)).await;
        assert_eq!(status, StatusCode::OK);
        assertion_of(seen.split_once(' ').unwrap().1)
    };
    let (first, expires) = get().await;
    time.advance(Duration::from_secs(29));
    assert_eq!(get().await.0, first, "before half of its time");
    time.advance(Duration::from_secs(2));
    // One request asks for a new assertion, and continues with the old one, which is valid for another 29 s.
    assert_eq!(get().await, (first.clone(), expires));
    let mut next = get().await;
    while next.0 == first {
        tokio::task::yield_now().await;
        next = get().await;
    }
    assert_eq!(next.1, expires + 31);
    assert_eq!(get().await, next, "one order, one signature");
    // After a time without requests, no request gets an expired decision.
    time.advance(Duration::from_secs(61));
    let (last, until) = get().await;
    assert!(last != next.0 && until > next.1);
    // Keys that are replaced take their assertions with them.
    let old_key = gate.keyring().signer().kid().to_owned();
    let keys = Keyring::generate(Algorithm::EdDsa).unwrap();
    assert!(matches!(
        gate.set_keys(Keyring::generate(Algorithm::Hs256).unwrap(), vec![]),
        Err(BuildError::Assertion(_))
    ));
    gate.set_keys(keys, vec![]).unwrap();
    assert_ne!(gate.keyring().signer().kid(), old_key);
    assert_eq!(asked(gate.layer(), Some(&access)).await.0, StatusCode::UNAUTHORIZED);
}
