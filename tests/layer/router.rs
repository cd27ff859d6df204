//! The layer in and around an axum `Router`.

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode};
use rotogate::Identity;
use rotogate::gate::{BuildError, Endpoint, Verdict};
use rotogate::route::{Auth, Route, RoutePolicy};
use rotogate::session::profile::ProfileOverride;
use rotogate::store::Filter;
use tower::Layer;

use crate::client::{Server, send};
use crate::{builder, gate, tokens};

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

async fn maybe(identity: Option<Identity>) -> String {
    identity.map_or_else(|| "nobody".to_owned(), |identity| identity.subject().to_owned())
}

#[tokio::test]
async fn a_router_behind_the_gate_knows_its_callers_and_serves_the_gates_endpoints() {
    let gate = gate().await;
    let server = Server::axum(Router::new().route("/me", get(me)).layer(gate.layer())).await;
    let (access, refresh) = tokens(&gate, "read").await;

    let refused = server.get("/me").await;
    assert_eq!((refused.status, refused.challenge()), (StatusCode::UNAUTHORIZED, "Bearer"));
    let refused = server.get_with("/me", &format!("{access}x")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.challenge().contains("invalid_token"), "{}", refused.challenge());
    assert_eq!(server.get_with("/me", &access).await.body, "ada");
    // The application answers permitted callers for an unknown path.
    assert_eq!(server.get("/nothing").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get_with("/nothing", &access).await.status, StatusCode::NOT_FOUND);

    assert_eq!(server.get("/.well-known/jwks.json").await.json()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/token").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let near = server.refresh("/Token", &refresh).await;
    assert_eq!(near.status, StatusCode::NOT_FOUND);
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn r9_a_session_of_the_application_is_begun_refreshed_listed_and_revoked() {
    let gate = gate().await;
    let server = Server::axum(Router::new().route("/me", get(me)).layer(gate.layer())).await;
    let (first, refresh) = tokens(&gate, "read").await;
    assert_eq!(server.get_with("/me", &first).await.status, StatusCode::OK);

    let answer = server.refresh("/token", &refresh).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let second = answer.member("access_token");
    assert_eq!(server.get_with("/me", &second).await.body, "ada");

    let sessions = gate.sessions();
    let page = sessions.list(Filter::Subject("ada".into()), None, 10).await.unwrap();
    let [session] = page.sessions.as_slice() else { panic!("{} sessions", page.sessions.len()) };
    assert_eq!((session.current.get(), &*session.client, &*session.dialect), (2, "web", "application"));
    assert!(sessions.list(Filter::Subject("bob".into()), None, 10).await.unwrap().sessions.is_empty());

    assert!(sessions.revoke(session.id).await.unwrap());
    assert!(sessions.revoke(session.id).await.unwrap(), "repeated");
    for access in [&first, &second] {
        assert_eq!(server.get_with("/me", access).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.refresh("/token", &answer.member("refresh_token")).await.member("error"), "invalid_grant");
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_them_refuses_sessions_of_the_application() {
    let gate = builder()
        .endpoint(Endpoint::new(rotogate::dialect::oauth2::OAuth2).path("/other/token"))
        .build()
        .await
        .unwrap();
    let server = Server::axum(Router::new().layer(gate.layer())).await;
    let (_, refresh) = tokens(&gate, "read").await;
    assert_eq!(server.refresh("/other/token", &refresh).await.member("error"), "invalid_grant");
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_with_an_account_is_refreshed_at_an_endpoint_whose_path_names_none() {
    let gate = builder()
        .endpoint(
            Endpoint::new(rotogate::dialect::oauth2::OAuth2).path("/{account}/connect/token").accepts("application"),
        )
        .build()
        .await
        .unwrap();
    let server = Server::axum(Router::new().layer(gate.layer())).await;
    let session = rotogate::gate::NewSession::new("eve", "web").account("acme");
    let issued = gate.sessions().start(session).await.unwrap();
    let refresh = issued.refresh_token.unwrap().expose().to_owned();
    for path in ["/connect/token", "/other/connect/token"] {
        assert_eq!(server.refresh(path, &refresh).await.member("error"), "invalid_grant", "{path}");
    }
    let answer = server.refresh("/acme/connect/token", &refresh).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answer = server.refresh("/token", &answer.member("refresh_token")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

#[tokio::test]
async fn the_extractors_say_401_or_nobody_where_a_gate_lets_nobody_pass_and_500_without_a_gate() {
    let bare = Server::axum(Router::new().route("/me", get(me)).route("/maybe", get(maybe))).await;
    for path in ["/me", "/maybe"] {
        assert_eq!(bare.get_with(path, "anything").await.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }

    let gate = builder()
        .route(Route::new("/maybe", RoutePolicy::optional()))
        .route(Route::new("/public", RoutePolicy::public()))
        .route(Route::new("/public/me", RoutePolicy::public()))
        .build()
        .await
        .unwrap();
    let app = Router::new().route("/maybe", get(maybe)).route("/public", get(maybe)).route("/me", get(me));
    let app = app.route("/public/me", get(me));
    let server = Server::axum(app.layer(gate.layer())).await;
    let (access, _) = tokens(&gate, "read").await;
    assert_eq!(server.get("/maybe").await.body, "nobody");
    assert_eq!(server.get_with("/maybe", &access).await.body, "ada");
    assert_eq!(server.get_with("/maybe", "bad").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get_with("/public", &access).await.body, "nobody", "no token is looked at");
    let refused = server.get_with("/public/me", &access).await;
    assert_eq!((refused.status, refused.challenge()), (StatusCode::UNAUTHORIZED, "Bearer"));
    // With routes of its own, the gate lets nothing else through.
    assert_eq!(server.get_with("/me", &access).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn require_asks_for_scopes_behind_the_gate_and_alone() {
    let gate = gate().await;
    let admin = || {
        Router::new()
            .route("/admin", get(me))
            .route_layer(gate.require().scope("admin"))
            .merge(Router::new().route("/both", get(me)).route_layer(gate.require().scope("read").scope("admin")))
            .merge(Router::new().route("/two", get(me)).route_layer(gate.require().scope("read admin")))
    };
    let behind = Server::axum(admin().route("/me", get(me)).layer(gate.layer())).await;
    let alone = Server::axum(admin().route("/open", get(maybe))).await;
    let (reader, _) = tokens(&gate, "read").await;
    let (root, _) = tokens(&gate, "read admin").await;
    for server in [behind, alone] {
        assert_eq!(server.get("/admin").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(server.get_with("/admin", "bad").await.status, StatusCode::UNAUTHORIZED);
        let refused = server.get_with("/admin", &reader).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_eq!(refused.challenge(), "Bearer error=\"insufficient_scope\", scope=\"admin\"");
        assert_eq!(server.get_with("/both", &reader).await.status, StatusCode::FORBIDDEN);
        assert_eq!(server.get_with("/admin", &root).await.body, "ada");
        assert_eq!(server.get_with("/both", &root).await.body, "ada");
        assert_eq!(server.get_with("/two", &reader).await.status, StatusCode::FORBIDDEN);
        assert_eq!(server.get_with("/two", &root).await.body, "ada");
    }
    assert_eq!(behind.get_with("/me", &reader).await.body, "ada");
    assert_eq!(alone.get("/open").await.status, StatusCode::INTERNAL_SERVER_ERROR, "no gate in front");
    // An impossible scope is a mistake of the application, and admits no caller.
    let misspelt = Router::new().route("/x", get(me)).route_layer(gate.require().scope("ad\"min"));
    assert_eq!(Server::axum(misspelt).await.get_with("/x", &root).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_gate_believes_no_other_gate_in_the_same_stack() {
    let (outer, inner) = (gate().await, gate().await);
    let app = Router::new().route("/x", get(me)).route_layer(inner.require()).layer(outer.layer());
    let (access, _) = tokens(&outer, "read").await;
    assert_eq!(Server::axum(app).await.get_with("/x", &access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn require_asks_for_another_audience_or_leaves_the_caller_open() {
    let gate = gate().await;
    let app = Router::new()
        .route("/elsewhere", get(me))
        .route_layer(gate.require().audience("https://elsewhere.test"))
        .merge(Router::new().route("/here", get(me)).route_layer(gate.require().audience("https://api.test")))
        .merge(Router::new().route("/maybe", get(maybe)).route_layer(gate.require().optional()));
    let server = Server::axum(app).await;
    let (access, _) = tokens(&gate, "read").await;
    assert_eq!(server.get_with("/elsewhere", &access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get_with("/here", &access).await.body, "ada");
    assert_eq!(server.get("/maybe").await.body, "nobody");
    assert_eq!(server.get_with("/maybe", &access).await.body, "ada");
    assert_eq!(server.get_with("/maybe", "bad").await.status, StatusCode::UNAUTHORIZED);
}

/// The identities and credentials that the inner service sees.
async fn seen(headers: HeaderMap) -> String {
    let mut seen: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name.as_str().contains("auth"))
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .collect();
    seen.sort();
    seen.join(" ")
}

#[tokio::test]
async fn t3_no_client_says_who_it_is_by_header_not_even_past_require_alone() {
    let gate = builder()
        .route(Route::new("/public", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let app = || Router::new().route("/seen", get(seen)).route("/public", get(seen));
    let behind = Server::axum(app().layer(gate.layer())).await;
    let alone = Server::axum(app().route_layer(gate.require())).await;
    let (access, _) = tokens(&gate, "read").await;
    for (server, path) in [(behind, "/seen"), (alone, "/seen"), (behind, "/public")] {
        let request = server
            .request(path)
            .header("authorization", format!("Bearer {access}"))
            .header("x-auth-subject", "root")
            .header("X-Auth_Subject", "root")
            .header("x-auth-account", "root");
        let body = send(request.body(String::new()).unwrap()).await.body;
        assert!(!body.contains("root") && !body.contains("Bearer"), "{path}: {body}");
        assert_eq!(body.contains("x-auth-subject=ada"), path == "/seen", "{path}: {body}");
    }
}

async fn named(Path(name): Path<String>) -> String {
    name
}

#[tokio::test]
async fn t12_a_path_spelt_otherwise_is_refused_in_a_router_and_put_right_around_one() {
    let gate = gate().await;
    let app = || Router::new().route("/{name}", get(named)).route("/exact", get(async || "exact"));
    let inside = Server::axum(app().layer(gate.layer())).await;
    let around = Server::axum(Router::new().fallback_service(gate.layer().rewriting().layer(app()))).await;
    let (access, _) = tokens(&gate, "read").await;
    assert_eq!(inside.get_with("/plain", &access).await.body, "plain");
    assert_eq!(around.get_with("/plain", &access).await.body, "plain");
    for path in ["/%70lain", "//plain", "/%65xact"] {
        assert_eq!(inside.get_with(path, &access).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(around.get_with("/%70lain", &access).await.body, "plain");
    assert_eq!(around.get_with("//plain?a=1", &access).await.body, "plain");
    assert_eq!(around.get_with("/%65xact", &access).await.body, "exact");
    // Escapes in lower case, as .NET writes them, lead to the same place.
    for server in [inside, around] {
        assert_eq!(server.get_with("/Zo%c3%ab", &access).await.body, "Zoë");
    }
    for (path, what) in [
        ("/a%2fb", "an encoded slash"),
        ("/%2e%2e/exact", "a dot segment"),
        ("/a%5cb", "backslash"),
        ("/%zz", "an incomplete percent escape"),
        ("/%ff", "UTF-8"),
    ] {
        for server in [inside, around] {
            let refused = server.get_with(path, &access).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
            assert!(refused.member("detail").contains(what), "{path}: {}", refused.body);
        }
    }
    let refused = inside.get_with("/%70lain", &access).await;
    assert!(refused.member("detail").contains("non-canonical spelling"), "{}", refused.body);
}

#[tokio::test]
async fn t12_where_a_pattern_has_an_escape_its_letter_case_decides_nothing() {
    let gate = builder()
        .route(Route::new("/caf%C3%A9", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    // The router sees the path as sent, which is not the gate's public route.
    let app = Router::new().route("/caf%C3%A9", get(async || "open")).route("/{name}", get(async || "closed"));
    let server = Server::axum(app.layer(gate.layer())).await;
    assert_eq!(server.get("/caf%C3%A9").await.body, "open");
    assert_eq!(server.get("/caf%c3%a9").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_gate_is_shared_by_routers_and_bodies_stream_through() {
    let gate = gate().await;
    let app = Router::new().route("/echo", post(async |body: axum::body::Body| body)).layer(gate.layer());
    let server = Server::axum(app.clone()).await;
    let other = Server::axum(app).await;
    let (access, _) = tokens(&gate, "read").await;
    let text = "x".repeat(1 << 20);
    for server in [server, other] {
        let request = server.request("/echo").method("POST").header("authorization", format!("bearer {access}"));
        let answer = send(request.body(text.clone()).unwrap()).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, text.len()));
    }
}

#[tokio::test]
async fn t33_what_cannot_work_is_refused_when_a_gate_is_built_or_a_session_begun() {
    let built = async |builder: rotogate::gate::GateBuilder| builder.build().await.err();
    for issuer in ["my-app", "http://api.test", "https://api.test/?x"] {
        let error = built(builder().issuer(issuer)).await;
        assert!(matches!(error, Some(BuildError::Issuer { .. })), "{issuer}: {error:?}");
    }
    assert!(built(builder().issuer("http://api.test").dangerous_plain_issuer()).await.is_none());
    let twice = built(builder().client(rotogate::client::Client::public("web"))).await;
    assert!(matches!(twice, Some(BuildError::Client { .. })), "{twice:?}");
    let stranger = Endpoint::new(rotogate::dialect::oauth2::OAuth2).path("/other/token").clients(["mobile"]);
    assert!(matches!(built(builder().endpoint(stranger)).await, Some(BuildError::Client { .. })));
    let other = |path: &str| Endpoint::new(rotogate::dialect::oauth2::OAuth2).path(path.to_owned());
    let misspelt = built(builder().endpoint(other("/other/token").accepts("aplication"))).await.map(|e| e.to_string());
    assert!(misspelt.as_ref().is_some_and(|said| said.contains("\"application\"")), "{misspelt:?}");
    assert!(built(builder().endpoint(other("/other/token").accepts("application"))).await.is_none());
    let twice = built(builder().endpoint(other("/a/token")).endpoint(other("/a/token"))).await.map(|e| e.to_string());
    assert!(
        twice.as_ref().is_some_and(|said| said.contains("conflicts with /a/token, which is served already")),
        "{twice:?}"
    );
    assert!(matches!(built(builder().public_url("api.test")).await, Some(BuildError::PublicUrl(_))));
    assert!(matches!(built(builder().allowed_origins(["https://a.test/"])).await, Some(BuildError::Origin(_))));

    let gate = gate().await;
    let refused = gate.sessions().start(rotogate::gate::NewSession::new("ada", "mobile")).await.unwrap_err();
    let said: Box<dyn std::error::Error> = refused.into();
    assert!(said.to_string().contains("invalid_client"), "{said}");
    let server = Server::axum(Router::new().layer(gate.layer())).await;
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["grant_types_supported"], serde_json::json!(["refresh_token"]));
}

#[tokio::test]
async fn rules_that_do_not_hold_together_are_found_when_the_gate_is_built() {
    let grace = Some(std::time::Duration::from_secs(61));
    let bad = ProfileOverride { grace, ..ProfileOverride::default() };
    let endpoint = Endpoint::new(rotogate::dialect::oauth2::OAuth2).path("/other/token").profile(bad);
    let error = builder().endpoint(endpoint).build().await.unwrap_err();
    assert!(matches!(error, BuildError::Endpoint { .. }), "{error}");
    assert!(error.to_string().contains("grace"), "{error}");
    let mut client = rotogate::client::Client::public("slow");
    client.profile.grace = grace;
    assert!(matches!(builder().client(client).build().await.unwrap_err(), BuildError::Endpoint { .. }));
}

/// Adds the layer's verdict to each reply, for the test.
async fn judged(response: axum::response::Response) -> axum::response::Response {
    let word = response.extensions().get::<Verdict>().map_or("none", |verdict| verdict.reason.word());
    let mut response = response;
    response.headers_mut().insert("x-verdict", HeaderValue::from_static(word));
    response
}

#[tokio::test]
async fn o20_the_verdict_tells_of_what_a_part_behind_the_layer_refused() {
    let gate = builder()
        .route(Route::new("/open", RoutePolicy { auth: Auth::Optional, ..RoutePolicy::default() }))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let app = Router::new()
        .route("/seen", get(seen))
        .route("/open", get(async |_: Identity| "somebody"))
        .merge(Router::new().route("/admin", get(seen)).route_layer(gate.require().scope("admin")))
        .layer(gate.layer().annotated())
        .layer(axum::middleware::map_response(judged));
    let server = Server::axum(app).await;
    let (access, _) = tokens(&gate, "read").await;
    for (path, token, status, verdict) in [
        ("/seen", &*access, 200, "passed"),
        ("/nowhere", &*access, 404, "passed"),
        ("/admin", &*access, 403, "insufficient_scope"),
        ("/open", "", 401, "no_credential"),
        ("/seen", "nonsense", 401, "malformed_token"),
    ] {
        let mut request = server.request(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = send(request.body(String::new()).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["x-verdict"].to_str().unwrap()),
            (status, verdict),
            "{path}"
        );
    }
}
