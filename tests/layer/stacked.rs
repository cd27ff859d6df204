//! Several layers of a gate, one inside another, and their demands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use http::StatusCode;
use rotogate::Identity;
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::Scope;

use crate::client::{Server, send};
use crate::{builder, gate, tokens};

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

#[tokio::test]
async fn t31_a_layer_inside_a_layer_of_its_own_gate_takes_its_word() {
    let gate = gate().await;
    let inner = Router::new().route("/inner", get(me)).layer(gate.layer());
    let nested = Router::new().route("/me", get(me)).layer(gate.layer());
    let app = Router::new().route("/outer", get(me)).merge(inner).nest("/nested", nested).layer(gate.layer());
    let server = Server::axum(app).await;
    let (access, refresh) = tokens(&gate, "read").await;
    for path in ["/outer", "/inner", "/nested/me"] {
        assert_eq!(server.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(server.get_with(path, &access).await.body, "ada", "{path}");
    }
    assert_eq!(server.refresh("/nested/token", &refresh).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn t31_a_layer_inside_require_asks_what_its_own_route_asks() {
    let admin = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::default() };
    let gate = builder()
        .route(Route::new("/admin", admin))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let app = Router::new().route("/admin", get(me)).route("/me", get(me)).layer(gate.layer());
    let server = Server::axum(app.layer(gate.require())).await;
    let (reader, _) = tokens(&gate, "read").await;
    let (root, _) = tokens(&gate, "admin").await;
    assert_eq!(server.get_with("/me", &reader).await.body, "ada");
    assert_eq!(server.get_with("/admin", &reader).await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.get_with("/admin", &root).await.body, "ada");
    assert_eq!(server.get("/me").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn t31_a_layer_inside_a_nest_judges_the_whole_path() {
    let gate = builder()
        .route(Route::new("/health", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let inside = || Router::new().route("/health", get(async || "well")).layer(gate.layer());
    let app = Router::new().nest("/admin", inside()).nest_service("/service", inside()).merge(inside());
    let server = Server::axum(app).await;
    let (access, refresh) = tokens(&gate, "read").await;
    assert_eq!(server.get("/health").await.body, "well");
    for path in ["/admin/health", "/service/health"] {
        assert_eq!(server.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(server.get_with(path, &access).await.body, "well", "{path}");
    }
    // The endpoints have only their own paths, and are not repeated below each prefix.
    assert_ne!(server.refresh("/admin/token", &refresh).await.status, StatusCode::OK);
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn require_alone_may_leave_the_token_to_the_handler() {
    let gate = gate().await;
    let seen = async |headers: HeaderMap| headers.contains_key("authorization").to_string();
    let app = Router::new().route("/kept", get(seen)).route_layer(gate.require().forward_token());
    let app = app.merge(Router::new().route("/gone", get(seen)).route_layer(gate.require()));
    let server = Server::axum(app).await;
    let (access, _) = tokens(&gate, "read").await;
    assert_eq!(server.get_with("/kept", &access).await.body, "true");
    assert_eq!(server.get_with("/gone", &access).await.body, "false");
}

/// Two gates of one issuer and one keyring: the second mints tokens for another audience.
async fn two() -> (rotogate::Gate, rotogate::Gate, tempfile::TempDir) {
    use rotogate::client::Client;
    use rotogate_core::token::algorithm::Algorithm;
    use rotogate_core::token::keyring::Keyring;

    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let build = async |audience: &str, routes: Vec<Route>| {
        let keyring = Keyring::load_or_create(&keys, Algorithm::EdDsa).unwrap();
        let builder = rotogate::Gate::builder().issuer("https://api.test").keys(keyring).client(Client::public("web"));
        let builder = routes.into_iter().fold(builder.audience([audience]), |builder, route| builder.route(route));
        builder.build().await.unwrap()
    };
    let orders = RoutePolicy { audiences: vec!["orders".into()], ..RoutePolicy::default() };
    let routes = vec![Route::new("/table", orders), Route::catch_all(RoutePolicy::default())];
    (build("api", routes).await, build("orders", Vec::new()).await, dir)
}

#[tokio::test]
async fn t32_an_audience_that_is_asked_for_replaces_the_gates_own() {
    let (gate, other, _dir) = two().await;
    let (api, _) = tokens(&gate, "read").await;
    let (orders, _) = tokens(&other, "read").await;
    let served = Arc::new(AtomicUsize::new(0));
    let app = || {
        let served = Arc::clone(&served);
        let unguarded = async move || {
            served.fetch_add(1, Ordering::Relaxed);
            "unguarded"
        };
        Router::new()
            .route("/orders", get(me))
            .route_layer(gate.require().audience("orders"))
            .merge(
                Router::new().route("/scoped", get(me)).route_layer(gate.require().audience("orders").scope("admin")),
            )
            // By default the inner layer does not repeat the demands of the gate's route.
            .merge(Router::new().route("/table", get(me)).route_layer(gate.require().scope("read")))
            .merge(Router::new().route("/plain", get(me)).route_layer(gate.require()))
            .route("/me", get(me))
            .route("/unguarded", get(unguarded))
    };
    let deferring = Server::axum(app().layer(gate.layer().deferring_audience())).await;
    assert_eq!(deferring.get_with("/orders", &orders).await.body, "ada");
    assert_eq!(deferring.get_with("/scoped", &orders).await.status, StatusCode::FORBIDDEN);
    for path in ["/plain", "/me", "/unguarded", "/nothing"] {
        assert_eq!(deferring.get_with(path, &orders).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let plainly = Server::axum(app().layer(gate.layer())).await;
    served.store(0, Ordering::Relaxed);
    for path in ["/orders", "/plain", "/me", "/unguarded"] {
        assert_eq!(plainly.get_with(path, &orders).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(served.load(Ordering::Relaxed), 0, "no token for another audience gets to a handler");
    for server in [deferring, plainly] {
        assert_eq!(server.get_with("/table", &orders).await.body, "ada");
        assert_eq!(server.get_with("/table", &api).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(server.get_with("/orders", &api).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(server.get("/orders").await.status, StatusCode::UNAUTHORIZED);
        for path in ["/plain", "/me"] {
            assert_eq!(server.get_with(path, &api).await.body, "ada", "{path}");
        }
        assert_eq!(server.get_with("/unguarded", &api).await.body, "unguarded");
    }
    let alone = Server::axum(app()).await;
    assert_eq!(alone.get_with("/orders", &orders).await.body, "ada");
    assert_eq!(alone.get_with("/orders", &api).await.status, StatusCode::UNAUTHORIZED);
}

/// The caller in the headers, and whether the extensions have a caller.
async fn told(headers: HeaderMap, extensions: http::Extensions) -> String {
    let subjects: Vec<_> = headers.get_all("x-auth-subject").iter().map(|value| value.to_str().unwrap()).collect();
    format!("{} {}", subjects.join(","), Identity::from_extensions(&extensions).is_some())
}

#[tokio::test]
async fn a_layer_that_tells_the_caller_in_headers_alone_refuses_whatever_asks_for_more() {
    let gate = builder()
        .route(Route::new("/open", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let app = Router::new()
        .route("/told", get(told))
        .route("/open", get(told))
        .route("/me", get(me))
        .merge(Router::new().route("/required", get(told)).route_layer(gate.require()))
        .layer(gate.layer().headers_only());
    let server = Server::axum(app.clone()).await;
    let (access, _) = tokens(&gate, "read").await;
    assert_eq!(server.get("/told").await.status, StatusCode::UNAUTHORIZED);
    let forged = |path| server.request(path).header("x-auth-subject", "root").header("x_auth_subject", "root");
    let answer = send(forged("/told").header("authorization", format!("Bearer {access}")).body(String::new()).unwrap());
    assert_eq!(answer.await.body, "ada false");
    assert_eq!(send(forged("/open").body(String::new()).unwrap()).await.body, " false");
    assert_eq!(server.get_with("/me", &access).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.get_with("/required", &access).await.status, StatusCode::UNAUTHORIZED);
    // The caller of an outer layer is not forwarded either.
    let server = Server::axum(app.layer(gate.require())).await;
    assert_eq!(server.get_with("/told", &access).await.body, "ada false");
}
