//! A service that accepts tokens of another issuer, and issues no tokens.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{BuildError, GateBuilder, Readiness, Whose};
use rotogate::route::{Resource, Route, RoutePolicy};
use rotogate::token::Preset;
use rotogate::{Gate, Identity, ResourceServer, SecretString};
use rotogate_core::store::{MemoryStore, Store};
use rotogate_core::token::keyring::Keyring;
use tokio::net::TcpListener;

use crate::client::Server;
use crate::provider::Provider;

fn server_of(provider: &Provider) -> ResourceServer {
    ResourceServer::discover(&provider.issuer).audience("api").preset(Preset::Keycloak)
}

async fn serve(gate: &Gate) -> Server {
    let app = Router::new()
        .route("/health", get(async || "ok"))
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/write", get(async || "written").route_layer(gate.require().scope("write")))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("boss")))
        .fallback(async || (StatusCode::NOT_FOUND, "the application's"))
        .layer(gate.layer());
    Server::axum(app).await
}

#[tokio::test]
async fn i65_a_resource_server_takes_the_tokens_of_its_issuers_alone_and_issues_none() {
    let [one, two, foreign] = [Provider::start(1).await, Provider::start(2).await, Provider::start(3).await];
    let both = server_of(&one).and(server_of(&two)).public("/health");
    let server = serve(&both.build().await.unwrap()).await;
    for provider in [&one, &two] {
        let boss = provider.token("ada", "read write", "boss");
        assert_eq!(server.get_with("/me", &boss).await.body, "ada");
        assert_eq!(server.get_with("/write", &boss).await.body, "written");
        // A role without issuer could belong to either issuer, and another issuer's `boss` is not ours.
        assert_eq!(server.get_with("/admin", &boss).await.status, StatusCode::FORBIDDEN);
        let clerk = provider.token("bob", "", "clerk");
        assert_eq!(server.get_with("/write", &clerk).await.status, StatusCode::FORBIDDEN);
    }
    let unknown = foreign.token("ada", "write", "boss");
    let refused = server.get_with("/me", &unknown).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.challenge().starts_with("Bearer error=\"invalid_token\""), "{}", refused.challenge());
    assert_eq!(server.get("/me").await.challenge(), "Bearer");
    assert_eq!(server.get("/health").await.body, "ok");
    // Paths that only an issuer serves belong to the application.
    let own = one.token("ada", "", "clerk");
    for path in ["/.well-known/jwks.json", "/.well-known/openid-configuration", "/token"] {
        assert_eq!(server.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(server.get_with(path, &own).await.body, "the application's", "{path}");
    }
}

#[tokio::test]
async fn i65_a_bare_role_is_of_the_only_issuer() {
    let provider = Provider::start(1).await;
    let by_route = |gate: GateBuilder| {
        let policy = RoutePolicy::default().role("boss");
        gate.route(Route::new("/admin", policy)).route(Route::catch_all(RoutePolicy::public()))
    };
    let [boss, clerk] = ["boss", "clerk"].map(|role| provider.token("ada", "", role));
    for gate in [server_of(&provider), server_of(&provider).with(by_route)] {
        let gate = gate.build().await.unwrap();
        let server = serve(&gate).await;
        assert_eq!(server.get_with("/admin", &boss).await.body, "the office");
        assert_eq!(server.get_with("/admin", &clerk).await.status, StatusCode::FORBIDDEN);
    }
    // Both names of the host are the same.
    let two = server_of(&provider).and(server_of(&Provider::start(2).await)).with(by_route).build().await.unwrap_err();
    assert!(matches!(two, BuildError::Role { .. }), "{two}");
}

#[tokio::test]
async fn i65_every_path_needs_a_token_whatever_routes_there_are() {
    let provider = Provider::start(1).await;
    let admin = |gate: GateBuilder| gate.route(Route::new("/admin", RoutePolicy::default().role("boss")));
    let clerk = provider.token("ada", "", "clerk");
    for (server, health) in [
        (server_of(&provider), StatusCode::UNAUTHORIZED),
        (server_of(&provider).with(admin), StatusCode::UNAUTHORIZED),
        (server_of(&provider).public("/health"), StatusCode::OK),
        (server_of(&provider).public("/health").with(admin), StatusCode::OK),
        (server_of(&provider).with(admin).public("/health"), StatusCode::OK),
    ] {
        let server = serve(&server.build().await.unwrap()).await;
        assert_eq!(server.get("/health").await.status, health);
        assert_eq!(server.get("/me").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(server.get_with("/me", &clerk).await.body, "ada");
        assert_eq!(server.get_with("/admin", &clerk).await.status, StatusCode::FORBIDDEN);
    }
    // A catch-all of the application takes the place of ours, whatever its parameter is called.
    for path in ["/{*rest}", "/{*path}"] {
        let own = |gate: GateBuilder| gate.route(Route::new(path, RoutePolicy::public()));
        let server = server_of(&provider).public("/health").with(own).build().await.unwrap();
        assert_eq!(serve(&server).await.get("/other").await.status, StatusCode::NOT_FOUND);
    }
    let twice = server_of(&provider).public("/health").public("/health").build().await.unwrap_err().to_string();
    let said = "route \"/health\": it serves the same host, path and method as another route, \"/health\"";
    assert!(twice.contains(said), "{twice}");
}

#[tokio::test]
async fn i65_a_token_of_another_audience_or_kind_is_refused() {
    let provider = Provider::start(1).await;
    let token = provider.token("ada", "", "clerk");
    let other = ResourceServer::discover(&provider.issuer).audience("other").preset(Preset::Keycloak);
    assert_eq!(
        serve(&other.build().await.unwrap()).await.get_with("/me", &token).await.status,
        StatusCode::UNAUTHORIZED
    );
    let strict = server_of(&provider).rules(|rules| rules.require("azp", ["another-app"])).unwrap();
    let refused = serve(&strict.build().await.unwrap()).await.get_with("/me", &token).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn i65_a_revocation_at_a_resource_server_acts_on_the_next_request() {
    let provider = Provider::start(1).await;
    let gate = server_of(&provider).build().await.unwrap();
    let server = serve(&gate).await;
    let token = provider.token("ada", "", "clerk");
    assert_eq!(server.get_with("/me", &token).await.status, StatusCode::OK);
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(server.get_with("/me", &token).await.status, StatusCode::UNAUTHORIZED);
    let bob = provider.token("bob", "", "clerk");
    assert_eq!(server.get_with("/me", &bob).await.status, StatusCode::OK);
}

#[tokio::test]
async fn i65_an_issuer_that_does_not_answer_is_a_fault_and_no_refusal() {
    let provider = Provider::start(1).await;
    let token = provider.token("ada", "", "clerk");
    // No server listens at the address.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let away = rotogate::remote_keys::RemoteIssuer::new("idp", &provider.issuer);
    let away = away.jwks_url(format!("http://{free}/keys"));
    let gate = ResourceServer::trusting(away).audience("api").preset(Preset::Keycloak).build().await.unwrap();
    let refused = serve(&gate).await.get_with("/me", &token).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    // The same is said to an orchestrator, until the keys are known.
    let Readiness::Degraded(why) = gate.readiness().await else { panic!("no keys, and ready") };
    assert!(why.starts_with("the signing keys of 127.0.0.1 are not known"), "{why}");
    let known =
        rotogate::token::IssuerKeys::from_jwks(Keyring::ephemeral().unwrap().jwks().to_string().as_bytes(), None);
    gate.set_trusted("127.0.0.1", known.unwrap()).unwrap();
    assert_eq!(gate.readiness().await, Readiness::Ready);
}

#[tokio::test]
async fn i65_what_a_resource_server_lacks_is_said_when_it_is_built() {
    let url = "https://idp.example.com";
    let said = async |server: ResourceServer| server.build().await.unwrap_err().to_string();
    let no_audience = said(ResourceServer::discover(url)).await;
    assert!(no_audience.contains("call `.audience(…)`"), "{no_audience}");
    let plain = said(ResourceServer::discover("http://idp.example.com").audience("api")).await;
    assert!(plain.starts_with("the issuer \"http://idp.example.com\": url: "), "{plain}");
    let provider = Provider::start(1).await;
    let described = server_of(&provider).with(|gate| gate.resource(Resource::new("/mcp")));
    let no_url = said(described).await;
    assert!(no_url.contains("call `.public_url("), "{no_url}");
    let google = server_of(&provider).preset(Preset::Google);
    assert!(matches!(google.build().await.unwrap_err(), BuildError::Verifier(_)), "everybody at Google");
    // Users and clients need an issuer, at a reload, too: a resource server has no keys to sign with.
    let running = server_of(&provider).build().await.unwrap();
    let with_clients = Gate::builder().client(rotogate::client::Client::public("web"));
    assert!(matches!(running.prepare_rules(with_clients).unwrap_err(), BuildError::NoIssuer));
    let with_users = server_of(&provider).with(|gate| gate.directory(std::sync::Arc::new(Nobody)));
    assert!(matches!(with_users.build().await.unwrap_err(), BuildError::NoIssuer));
    assert!(matches!(Gate::builder().build().await.unwrap_err(), BuildError::NoIssuer));
}

#[tokio::test]
async fn i65_a_resource_server_grows_into_a_gate_with_tokens_of_its_own() {
    let provider = Provider::start(1).await;
    let store = MemoryStore::new("https://api.test", rotogate::Gate::DEFAULT_LEEWAY);
    assert!(store.shared().is_none());
    let builder = server_of(&provider).with(|gate| gate.store(store)).into_builder().await.unwrap();
    let builder = builder.issuer("https://api.test").keys(Keyring::ephemeral().unwrap());
    let gate = builder.client(rotogate::client::Client::public("web")).build().await.unwrap();
    let server = serve(&gate).await;
    let (own, _) = crate::tokens(&gate, "").await;
    for token in [own, provider.token("ada", "", "clerk")] {
        assert_eq!(server.get_with("/me", &token).await.body, "ada");
    }
    assert_eq!(server.get("/.well-known/jwks.json").await.status, StatusCode::OK);
    // A rotation of its own keys leaves the provider's tokens good, and they stay in the cache.
    let theirs = provider.token("ada", "", "clerk");
    assert_eq!(server.get_with("/me", &theirs).await.body, "ada");
    let (old, _) = crate::tokens(&gate, "").await;
    gate.set_keyring(Keyring::ephemeral().unwrap()).unwrap();
    let (new, _) = crate::tokens(&gate, "").await;
    assert_eq!(server.get_with("/me", &theirs).await.body, "ada");
    assert_eq!(server.get_with("/me", &new).await.body, "ada");
    assert_eq!(server.get_with("/me", &old).await.status, StatusCode::UNAUTHORIZED, "its key is gone");
}

#[derive(Debug)]
struct Nobody;

#[async_trait::async_trait]
impl Directory for Nobody {
    async fn authenticate(&self, _: Option<&str>, _: &str, _: &SecretString) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }

    async fn lookup(&self, _: &str) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }
}
