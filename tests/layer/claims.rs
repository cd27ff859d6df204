//! Claims of the caller in tokens of other issuers and of the gate, and the demands of `require()`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, Response, StatusCode};
use rotogate::claim::OwnClaims;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{BuildError, Claims, Endpoint, GateBuilder, NewSession, Verdict};
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::{Scope, VouchedBy};
use rotogate::{Gate, Identity, SecretString};
use rotogate_core::claim::Role;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::token::claims::TokenStyle;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, RulesError};
use rotogate_core::token::{MintedClaims, mint};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use crate::client::{Server, send};
use crate::{builder, gate};

#[derive(serde::Deserialize)]
struct Mine {
    sub: String,
    tenant: String,
    #[serde(default)]
    roles: Vec<String>,
}

async fn typed(Claims(mine): Claims<Mine>) -> String {
    format!("{} of {}, {:?}", mine.sub, mine.tenant, mine.roles)
}

async fn maybe(claims: Option<Claims<Mine>>) -> String {
    claims.map_or_else(|| "nobody".to_owned(), |Claims(mine)| mine.tenant)
}

async fn ok(identity: Identity) -> String {
    identity.subject().to_owned()
}

fn session(claims: &[(&str, Value)]) -> NewSession {
    let session = NewSession::new("ada", "web").scope("read").unwrap();
    claims.iter().fold(session, |session, (name, value)| session.claim(*name, value).unwrap())
}

async fn token(gate: &Gate, claims: &[(&str, Value)]) -> String {
    gate.sessions().start(session(claims)).await.unwrap().access_token.expose().to_owned()
}

#[tokio::test]
async fn i42_claims_of_a_session_are_in_its_tokens_before_and_after_refreshes_and_replays() {
    let gate = gate().await;
    let server = Server::axum(Router::new().route("/", get(typed)).layer(gate.layer())).await;
    let issued =
        gate.sessions().start(session(&[("tenant", json!("acme")), ("roles", json!(["boss"]))])).await.unwrap();
    assert_eq!(server.get_with("/", issued.access_token.expose()).await.body, "ada of acme, [\"boss\"]");
    let refresh = issued.refresh_token.unwrap().expose().to_owned();
    let second = server.refresh("/token", &refresh).await;
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!(server.get_with("/", &second.member("access_token")).await.body, "ada of acme, [\"boss\"]");
    let replay = server.refresh("/token", &refresh).await;
    assert_eq!(replay.member("access_token"), second.member("access_token"), "byte for byte");
    let third = server.refresh("/token", &second.member("refresh_token")).await;
    assert_eq!(server.get_with("/", &third.member("access_token")).await.body, "ada of acme, [\"boss\"]");
}

/// A user whose claims change.
#[derive(Debug)]
struct Users(Mutex<OwnClaims>);

impl Users {
    fn user(&self) -> Option<User> {
        Some(User::new("eve").claims(self.0.lock().unwrap().clone()))
    }

    fn has(&self, roles: &[&str]) {
        self.0.lock().unwrap().insert("roles", roles).unwrap();
    }
}

#[async_trait::async_trait]
impl Directory for Users {
    async fn authenticate(&self, _: Option<&str>, _: &str, _: &SecretString) -> Result<Option<User>, DirectoryError> {
        Ok(self.user())
    }

    async fn lookup(&self, _: &str) -> Result<Option<User>, DirectoryError> {
        Ok(self.user())
    }
}

#[tokio::test]
async fn i42_claims_follow_the_directory_at_each_refresh_and_a_replay_is_the_same_while_they_do_not_change() {
    let users = Arc::new(Users(Mutex::default()));
    users.has(&["clerk"]);
    let gate = Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token"))
        .directory(Arc::clone(&users) as Arc<dyn Directory>)
        .build()
        .await
        .unwrap();
    let app = Router::new().route("/", get(ok)).route_layer(gate.require().role("boss")).layer(gate.layer());
    let server = Server::axum(app).await;
    let login = [("grant_type", "password"), ("client_id", "web"), ("username", "eve"), ("password", "x")];
    let first = server.post("/token", &login).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    assert_eq!(server.get_with("/", &first.member("access_token")).await.status, StatusCode::FORBIDDEN);
    users.has(&["boss"]);
    let second = server.refresh("/token", &first.member("refresh_token")).await;
    assert_eq!(server.get_with("/", &second.member("access_token")).await.body, "eve");
    let replay = server.refresh("/token", &first.member("refresh_token")).await;
    for member in ["access_token", "refresh_token"] {
        assert_eq!(replay.member(member), second.member(member));
    }
    users.has(&["clerk"]);
    let replay = server.refresh("/token", &first.member("refresh_token")).await;
    assert_eq!(replay.member("refresh_token"), second.member("refresh_token"));
    assert_eq!(server.get_with("/", &replay.member("access_token")).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn claims_of_another_shape_are_403_with_a_reason_and_never_500() {
    let gate =
        builder().route(Route::new("/maybe", RoutePolicy::optional())).route(Route::catch_all(RoutePolicy::default()));
    let gate = gate.build().await.unwrap();
    let app = Router::new().route("/", get(typed)).route("/maybe", get(maybe)).layer(gate.layer().annotated());
    let server = Server::axum(app.clone()).await;
    let (good, bad) = (token(&gate, &[("tenant", json!("acme"))]).await, token(&gate, &[("tenant", json!(7))]).await);
    assert_eq!(server.get_with("/", &good).await.body, "ada of acme, []");
    assert_eq!(server.get_with("/maybe", &good).await.body, "acme");
    assert_eq!(server.get("/maybe").await.body, "nobody");
    for path in ["/", "/maybe"] {
        let refused = server.get_with(path, &bad).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(refused.challenge(), "Bearer error=\"access_denied\"");
    }
    assert_eq!(server.get("/").await.status, StatusCode::UNAUTHORIZED);
    let request = http::Request::get("/").header("host", "api.test").header("authorization", format!("Bearer {bad}"));
    let response = app.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.extensions().get::<Verdict>().unwrap().reason.word(), "claims_shape");
    // Without a gate it is a mistake of the application.
    let bare = Server::axum(Router::new().route("/", get(typed))).await;
    assert_eq!(bare.get_with("/", &good).await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn i17_require_asks_for_scopes_roles_claims_and_the_application_and_says_why_it_refuses() {
    // `kc` is a known issuer; otherwise `kc:boss` would be a role with that whole name.
    let theirs = IssuerKeys::from_jwks(Keyring::ephemeral().unwrap().jwks().to_string().as_bytes(), None).unwrap();
    let kc = IssuerRules::external("https://kc.test", vec!["https://api.test".into()], theirs).named("kc");
    let gate = builder().trusted_issuer(kc).build().await.unwrap();
    let require = || gate.require();
    let routes = [
        ("/any", require().any_scope(["write", "read"]), ""),
        ("/none", require().any_scope(["write", "admin"]), "insufficient_scope"),
        ("/both", require().scope("read").any_scope(["write", "admin"]), "insufficient_scope"),
        ("/role", require().role("root").role("self:clerk"), ""),
        ("/other-role", require().role("root"), "missing_role"),
        ("/no-such-role", require().role("root").role("kc:boss"), "missing_role"),
        ("/all-roles", require().all_roles(["boss", "self:clerk"]), ""),
        ("/not-all-roles", require().all_roles(["boss", "root"]), "missing_role"),
        ("/all-and-one", require().role("root").role("boss").all_roles(["clerk"]), ""),
        ("/all-and-not-one", require().role("root").all_roles(["clerk"]), "missing_role"),
        ("/one-and-not-all", require().role("boss").all_roles(["clerk"]).all_roles(["root"]), "missing_role"),
        ("/all-of-another-issuer", require().all_roles(["boss", "kc:clerk"]), "missing_role"),
        ("/other-issuer", require().role("kc:boss"), "missing_role"),
        ("/claim", require().claim("org.id", "42").claim("groups", "x").claim("n", 7), ""),
        ("/other-claim", require().claim("org.id", 42), "missing_claim"),
        ("/no-claim", require().claim("org.nothing", "42"), "missing_claim"),
        ("/bad-path", require().claim("org..id", "42"), "missing_claim"),
        ("/check", require().check(|caller, _| caller.claim("n") == Some(json!(7))), ""),
        ("/other-check", require().check(|caller, _| caller.account().is_some()), "predicate"),
        ("/of/ada", require().check(|caller, head| head.uri.path() == format!("/of/{}", caller.subject())), ""),
        (
            "/of/bob",
            require().check(|caller, head| head.uri.path() == format!("/of/{}", caller.subject())),
            "predicate",
        ),
        ("/wrong-issuer", require().issuer("kc"), "wrong_issuer"),
        ("/optional", require().optional().role("root"), "missing_role"),
    ];
    let claims = [
        ("roles", json!(["boss", "clerk"])),
        ("org", json!({"id": "42"})),
        ("groups", json!(["x", "y"])),
        ("n", json!(7)),
    ];
    let access = token(&gate, &claims).await;
    for behind in [true, false] {
        for (path, layer, reason) in &routes {
            let app = Router::new().route(path, get(ok)).route_layer(layer.clone());
            let app = if behind { app.layer(gate.layer().annotated()) } else { app };
            let request = http::Request::get(*path).header("host", "api.test");
            let request = request.header("authorization", format!("Bearer {access}"));
            let response = app.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            let wanted = match *reason {
                "" => StatusCode::OK,
                "wrong_issuer" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::FORBIDDEN,
            };
            assert_eq!(response.status(), wanted, "{path} {behind}");
            if behind {
                let verdict = response.extensions().get::<Verdict>().unwrap();
                assert_eq!(verdict.reason.word(), if reason.is_empty() { "passed" } else { reason }, "{path}");
            }
        }
    }
    let both = Router::new().route("/", get(ok)).route_layer(require().scope("read").any_scope(["write", "admin"]));
    let refused = Server::axum(both).await.get_with("/", &access).await;
    assert_eq!(refused.challenge(), "Bearer error=\"insufficient_scope\", scope=\"read write admin\"");
    let optional = Router::new().route("/", get(async || "any")).route_layer(require().optional().role("root"));
    assert_eq!(
        Server::axum(optional).await.get("/").await.body,
        "any",
        "nothing is asked of a request without a caller"
    );
}

/// A token of another issuer with this key, for `ada`.
pub(crate) fn foreign(keys: &Keyring, issuer: &str, claims: &[(&str, Value)]) -> String {
    let mut own = OwnClaims::new();
    claims.iter().for_each(|(name, value)| own.insert(*name, value).unwrap());
    let now = SystemTime::new().wall();
    let claims = MintedClaims {
        delegation: None,
        bound_to: None,
        certificate: None,
        vouched_by: None,
        issuer,
        subject: "ada",
        audience: &["https://api.test".into()],
        expires: now.plus(Duration::from_secs(600)),
        issued_at: now.minus(Duration::from_secs(5)),
        jti: "one",
        client: "their-client",
        scope: &Scope::parse("read").unwrap(),
        session: None,
        account: None,
        own: Some(&own),
        style: TokenStyle::default(),
    };
    mint(keys.signer(), &claims).unwrap().expose().to_owned()
}

#[tokio::test]
async fn i15_i17_roles_and_revocations_of_two_issuers_with_the_same_subject_are_apart() {
    let keys = Keyring::ephemeral().unwrap();
    let rules = |name: &str| {
        let set = IssuerKeys::from_jwks(keys.jwks().to_string().as_bytes(), None).unwrap();
        let rules = IssuerRules::external(format!("https://{name}.test"), vec!["https://api.test".into()], set);
        rules.named(name).roles(["groups"]).unwrap()
    };
    let mut idp = rules("idp");
    idp.subject_prefix = "idp|".into();
    let gate = builder().trusted_issuer(rules("kc")).trusted_issuer(idp).build().await.unwrap();
    let of_kc = || gate.require().issuer("kc").issuer("idp").role("kc:boss");
    let roles = async |identity: Identity| format!("{} {:?}", identity.subject(), identity.roles().names());
    let app = Router::new()
        .route("/kc", get(ok).route_layer(of_kc()))
        .route("/bare", get(ok).route_layer(gate.require().issuer("idp").role("boss")))
        .route("/any", get(roles).route_layer(gate.require().issuer("kc").issuer("idp")));
    let server = Server::axum(app).await;
    let boss = [("groups", json!(["boss", "clerk"])), ("roles", json!(["root"]))];
    let [kc, idp] = ["https://kc.test", "https://idp.test"].map(|issuer| foreign(&keys, issuer, &boss));
    let status = async |path: &str, token: &str| server.get_with(path, token).await.status;
    assert_eq!(status("/kc", &kc).await, StatusCode::OK);
    assert_eq!(status("/kc", &idp).await, StatusCode::FORBIDDEN);
    assert_eq!([status("/bare", &kc).await, status("/bare", &idp).await], [StatusCode::UNAUTHORIZED, StatusCode::OK]);
    assert_eq!(server.get_with("/any", &kc).await.body, "ada [\"boss\", \"clerk\"]");
    assert_eq!(server.get_with("/any", &idp).await.body, "idp|ada [\"boss\", \"clerk\"]");
    // A revocation names the subject as it is in the token, and its issuer.
    gate.sessions().revoke_foreign_subject("https://idp.test", "ada", Duration::from_secs(3600)).await.unwrap();
    assert_eq!([status("/any", &kc).await, status("/any", &idp).await], [StatusCode::OK, StatusCode::UNAUTHORIZED]);
}

#[tokio::test]
async fn i17_i45_a_route_whose_role_no_token_could_be_judged_by_is_not_built() {
    let keys = Keyring::ephemeral().unwrap();
    let built = async |issuers: &[&str], role: &str, paths: &[&str]| {
        let set = IssuerKeys::from_jwks(keys.jwks().to_string().as_bytes(), None).unwrap();
        let rules = IssuerRules::external("https://kc.test", vec!["api".into()], set).named("kc");
        let policy = RoutePolicy {
            issuers: issuers.iter().map(|name| (*name).to_owned()).collect(),
            roles: vec![Role::parse(role, |issuer| ["self", "kc"].contains(&issuer))],
            ..RoutePolicy::default()
        };
        let rules = rules.roles(paths.iter().copied()).unwrap();
        builder().trusted_issuer(rules).route(Route::catch_all(policy)).build().await.map(drop)
    };
    for (issuers, role) in [(&[][..], "boss"), (&["kc"], "boss"), (&["self", "kc"], "kc:boss"), (&["self"], "urn:boss")]
    {
        assert!(built(issuers, role, &["groups"]).await.is_ok(), "{issuers:?} {role}");
    }
    for (issuers, role, paths) in [
        (&["self", "kc"][..], "boss", &["groups"][..]),
        (&["self"], "kc:boss", &["groups"]),
        (&["kc"], "boss", &[]),
        (&["self", "kc"], "kc:boss", &[]),
    ] {
        let refused = built(issuers, role, paths).await;
        assert!(matches!(refused, Err(BuildError::Role { .. })), "{issuers:?} {role}");
    }
}

#[tokio::test]
async fn t18_require_takes_a_cookie_and_then_asks_where_a_change_comes_from() {
    let gate = gate().await;
    let app = Router::new().route("/", get(ok).post(ok)).route_layer(gate.require().cookie("__Host-access"));
    let server = Server::axum(app).await;
    let access = token(&gate, &[]).await;
    let cookie = format!("a=b; __Host-access={access}");
    let request =
        |method: &str| server.request("/").method(method).header("cookie", &cookie).body(String::new()).unwrap();
    assert_eq!(send(request("GET")).await.body, "ada");
    assert_eq!(send(request("POST")).await.status, StatusCode::FORBIDDEN);
    let mut ours = request("POST");
    ours.headers_mut().insert("origin", HeaderValue::from_static("https://api.test"));
    assert_eq!(send(ours).await.body, "ada");
    let mut both = request("GET");
    both.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {access}")).unwrap());
    assert_eq!(send(both).await.status, StatusCode::BAD_REQUEST, "two credentials");
}

#[tokio::test]
async fn the_application_words_the_refusals_of_the_layer_of_require_and_of_extractors() {
    let builder =
        builder().route(Route::new("/open", RoutePolicy::public())).route(Route::catch_all(RoutePolicy::default()));
    let gate = builder.refusals(|denial, parts| {
        let body = format!("{} at {}", denial.reason(), parts.uri.path());
        let status = if denial.reason() == "no_route" { StatusCode::NOT_FOUND } else { StatusCode::IM_A_TEAPOT };
        (parts.uri.path() != "/plain").then(|| Response::builder().status(status).body(body).unwrap())
    });
    let gate = gate.build().await.unwrap();
    let app = Router::new()
        .route("/role", get(ok).route_layer(gate.require().role("root")))
        .route("/shape", get(typed))
        .route("/open", get(ok))
        .route("/plain", get(ok))
        .layer(gate.layer());
    let alone = Router::new().route("/alone", get(ok)).route_layer(gate.require());
    let (server, alone) = (Server::axum(app).await, Server::axum(alone).await);
    let access = token(&gate, &[]).await;
    assert_eq!(server.get("/role").await.body, "no_credential at /role");
    assert_eq!(server.get_with("/role", &access).await.body, "missing_role at /role");
    assert_eq!(server.get_with("/shape", &access).await.body, "claims_shape at /shape");
    assert_eq!(server.get("/open").await.body, "no_credential at /open");
    let refused = alone.get("/alone").await;
    assert_eq!((refused.status, refused.body.as_str()), (StatusCode::IM_A_TEAPOT, "no_credential at /alone"));
    // The members that a client relies on are present nevertheless.
    assert_eq!(
        (refused.challenge(), &refused.headers["cache-control"]),
        ("Bearer", &HeaderValue::from_static("no-store"))
    );
    let plain = server.get("/plain").await;
    assert_eq!((plain.status, plain.challenge()), (StatusCode::UNAUTHORIZED, "Bearer"));
    // gRPC has its own statuses.
    let request = alone.request("/alone").header("content-type", "application/grpc").body(String::new()).unwrap();
    let refused = send(request).await;
    assert_eq!((refused.status, &refused.headers["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("16")));
    let service = gate.layer().layer(tower::service_fn(async |_: http::Request<axum::body::Body>| {
        Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::empty()))
    }));
    let near = http::Request::get("/Token").header("host", "api.test").body(axum::body::Body::empty()).unwrap();
    assert_eq!(service.oneshot(near).await.unwrap().status(), StatusCode::IM_A_TEAPOT);
}

#[tokio::test]
async fn i67_the_library_builds_no_gate_whose_sources_of_users_can_meet() {
    let keys = Keyring::ephemeral().unwrap();
    let issuer = |name: &str, prefix: &str, logs_in: bool| {
        let set = IssuerKeys::from_jwks(keys.jwks().to_string().as_bytes(), None).unwrap();
        let rules = IssuerRules::external(format!("https://{name}.test"), vec!["https://api.test".into()], set);
        let mut rules = rules.named(name);
        rules.subject_prefix = prefix.into();
        rules.logs_in_browsers = logs_in;
        rules
    };
    let built = async |issuers: &[IssuerRules], has_users: bool| {
        let builder = issuers.iter().cloned().fold(builder(), GateBuilder::trusted_issuer);
        let users = || builder.clone().directory(Arc::new(Users(Mutex::default())) as Arc<dyn Directory>);
        if has_users { users().build().await } else { builder.build().await }
    };
    for (issuers, has_users) in [
        (vec![issuer("a", "", true)], true),
        (vec![issuer("a", "", true), issuer("b", "b|", true)], false),
        (vec![issuer("a", "a|", false), issuer("b", "a|", false)], false),
        (vec![issuer("a", "a|", true), issuer("b", "a|b|", true)], false),
        (vec![issuer("a", "a", true)], true),
        (vec![issuer("a", "client:", true)], false),
    ] {
        let refused = built(&issuers, has_users).await.unwrap_err();
        assert!(matches!(refused, BuildError::Verifier(RulesError::Rule { .. })), "{refused}");
    }
    let gate = built(&[issuer("a", "a|", true), issuer("b", "b|", true), issuer("c", "", false)], true).await.unwrap();
    let keyring = || Keyring::ephemeral().unwrap();
    assert!(gate.set_keys(keyring(), vec![issuer("a", "", true)]).is_err(), "a running gate keeps its rules");
    assert!(gate.set_keys(keyring(), vec![issuer("a", "a|", true)]).is_ok());
    let start = async |gate: &Gate, session: NewSession| gate.sessions().start(session).await.is_ok();
    let (kc, other) = (VouchedBy::new("https://a.test", "ada"), VouchedBy::new("https://c.test", "ada"));
    assert!(start(&gate, NewSession::new("ada", "web")).await);
    assert!(!start(&gate, NewSession::new("a|ada", "web")).await);
    assert!(!start(&gate, NewSession::new("a|ada", "web").vouched_by(other.clone())).await);
    assert!(start(&gate, NewSession::new("a|ada", "web").vouched_by(kc.clone())).await);
    // An issuer without prefix is the only source: the application starts sessions of its users alone.
    let alone = built(&[issuer("a", "", true)], false).await.unwrap();
    assert!(!start(&alone, NewSession::new("ada", "web")).await);
    assert!(!start(&alone, NewSession::new("ada", "web").vouched_by(other)).await);
    assert!(start(&alone, NewSession::new("ada", "web").vouched_by(kc)).await);
}
