//! Handlers that use the access token of the provider where the user of a browser's session logged in.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use rotogate::Identity;
use rotogate::gate::{Browser, LoginProvider, ProviderToken};
use rotogate::remote_keys::{RemoteIssuer, RemoteKeys};
use rotogate::route::{Route, RoutePolicy};
use rotogate_core::store::MemoryStore;
use serde_json::{Value, json};
use support::documents::Documents;

use crate::builder;
use crate::client::{Answer, Server, send};
use crate::issuer::{Issuer, claims};

const HOST: (&str, &str) = ("host", "127.0.0.1:3000");

struct World {
    provider: Documents,
    key: Issuer,
    server: Server,
    /// Reads the provider's keys while it lives.
    _remote: RemoteKeys,
}

/// The cookies that an answer sets, as a browser sends them.
fn cookies(answer: &Answer) -> Vec<&str> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|value| value.to_str().unwrap().split(';').next().unwrap()).collect()
}

impl World {
    async fn new() -> Self {
        let (provider, key) = (Documents::start(), Issuer::new(21));
        let document = json!({
            "issuer": provider.url(), "jwks_uri": provider.at("/keys"), "token_endpoint": provider.at("/token"),
            "authorization_endpoint": provider.at("/authorize"),
        });
        provider.document("/.well-known/openid-configuration", &document);
        provider.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
        let remote = RemoteKeys::start(RemoteIssuer::new("kc", provider.url())).unwrap();
        remote.first_attempt().await;
        let login = LoginProvider::new(&remote, "web").secret("secret-of-the-client".into());
        let gate = builder()
            .public_url("http://127.0.0.1:3000")
            .trusted_issuer(remote.rules(["api"]))
            .row_store(Arc::new(MemoryStore::new("https://api.test", rotogate::Gate::DEFAULT_LEEWAY)))
            .browser(Browser::provider("/auth", login))
            .route(Route::new("/open", RoutePolicy::optional().session()))
            .route(Route::catch_all(RoutePolicy::default().session()));
        let gate = gate.build().await.unwrap();
        let mail = async |token: ProviderToken| token.expose().to_owned();
        let app = Router::new()
            .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
            .route("/mail", get(mail))
            .route("/open", get(mail))
            .layer(gate.layer());
        Self { provider, key, server: Server::axum(app).await, _remote: remote }
    }

    async fn ask(&self, path: &str, cookie: Option<&str>) -> Answer {
        let mut request = self.server.request(path).header(HOST.0, HOST.1);
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        send(request.body(String::new()).unwrap()).await
    }

    /// The cookie of a session that begins with these tokens of the provider, besides the ID token.
    async fn log_in(&self, tokens: Value) -> String {
        let begun = self.ask("/auth/login?to=/me", None).await;
        let url = begun.headers["location"].to_str().unwrap();
        let asked: HashMap<_, _> =
            form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect();
        let id = json!({ "iss": self.provider.url(), "aud": "web", "sub": "ada", "nonce": asked["nonce"],
            "client_id": null, "scope": null });
        let id = self.key.sign(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k1" }), &claims(&id));
        let mut answer = json!({ "token_type": "Bearer", "id_token": id });
        answer.as_object_mut().unwrap().extend(tokens.as_object().unwrap().clone());
        self.provider.document("/token", &answer);
        let [transaction] = cookies(&begun)[..] else { panic!("one cookie") };
        let back = self.ask(&format!("/auth/callback?code=c&state={}", asked["state"]), Some(transaction)).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.body);
        let session = cookies(&back).into_iter().find(|cookie| cookie.starts_with("__Host-Http-rg=rc1_"));
        session.unwrap().to_owned()
    }

    async fn mail(&self, cookie: &str) -> (u16, String) {
        let answer = self.ask("/mail", Some(cookie)).await;
        (answer.status.as_u16(), answer.body)
    }

    /// A session goes on although its provider's token is away.
    async fn is_refused(&self, cookie: &str, status: u16) {
        let refused = self.ask("/mail", Some(cookie)).await;
        assert_eq!(refused.status.as_u16(), status, "{}", refused.body);
        assert_eq!(refused.headers.contains_key("retry-after"), status == 503);
        assert!(!refused.headers.contains_key("set-cookie") && !refused.body.contains("-access"), "{}", refused.body);
        assert_eq!(self.ask("/me", Some(cookie)).await.body, "ada");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b40_b52_a_handler_gets_the_token_of_the_provider_or_is_not_called() {
    let world = World::new().await;
    let good = world.log_in(json!({ "access_token": "good-access", "expires_in": 3600 })).await;
    assert_eq!(world.ask("/me", Some(&good)).await.body, "ada");
    assert_eq!(world.mail(&good).await, (200, "good-access".to_owned()));
    // Over, and not refreshable: the user must log in again for it, and the session goes on.
    let over = world.log_in(json!({ "access_token": "over-access", "expires_in": 0 })).await;
    world.is_refused(&over, 401).await;
    // The first request refreshes it.
    // Each session has its own refresh token: the relay repeats the answer to one that it knows.
    let due = |token: &str| json!({ "access_token": "due-access", "refresh_token": token, "expires_in": 0 });
    let refreshed = world.log_in(due("refresh-1")).await;
    world.provider.document("/token", &json!({ "token_type": "Bearer", "access_token": "next", "expires_in": 3600 }));
    assert_eq!(world.mail(&refreshed).await, (200, "next".to_owned()));
    assert_eq!(world.provider.form("/token").0["refresh_token"], "refresh-1");
    // A provider that fails: no login helps.
    let failed = world.log_in(due("refresh-2")).await;
    world.provider.answer("/token", "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned());
    world.is_refused(&failed, 503).await;
    // Nobody logged in.
    assert_eq!(world.ask("/open", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask("/open", Some(&good)).await.body, "good-access");
}
