//! A configuration of oauth2-proxy, imported and started: browsers are led, admitted and named to the service as the
//! documentation of oauth2-proxy 7.15 says of the same configuration.

use serde_json::{Value, json};
use support::documents::Documents;
use support::stub::{Edge, Received};
use support::{Place, keep_secret};

use super::browser_oidc::{SAME_ORIGIN, World, document, session, set_cookies};
use super::issuer::Issuer;

/// `docs/configuration/overview.md` of oauth2-proxy names each of these settings, and what it does.
const OLD: &str = r#"
provider = "oidc"
oidc_issuer_url = "@provider@"
client_id = "web"
client_secret = "secret-of-our-client"
cookie_secret = "b2F1dGgyLXByb3h5LWNvb2tpZS1zZWNyZXQK"
redirect_url = "https://gate.test/auth/callback"
http_address = "127.0.0.1:0"
upstreams = ["http://app.internal:3000/"]
scope = "openid email profile groups"
email_domains = ["*"]
allowed_groups = ["staff"]
skip_auth_routes = ["^/static/", "GET=^/probe$"]
api_routes = ["^/api/"]
set_xauthrequest = true
skip_provider_button = true
"#;

/// The gate with the imported configuration.
fn imported() -> World {
    let (provider, key) = (Documents::start(), Issuer::new(21));
    provider.document("/.well-known/openid-configuration", &document(&provider, &json!({})));
    provider.document("/keys", &json!({ "keys": [key.jwk("k1")] }));
    keep_secret("secret-of-our-client");
    let old = Place::new("");
    std::fs::write(old.path("old.cfg"), OLD.replace("@provider@", &provider.url())).unwrap();
    old.done(&["init", "--dir", "new", "--from-oauth2-proxy", "old.cfg"], "");
    let config = std::fs::read_to_string(old.path("new/gateway.toml")).unwrap();
    assert!(config.contains("\"127.0.0.1:8081\"") && config.contains("http://app.internal:3000\""), "{config}");
    let config = config.replace("127.0.0.1:8081", "127.0.0.1:0").replace("app.internal:3000", "@upstream@");
    let secret = |place: &Place| {
        std::fs::copy(old.path("new/idp.secret"), place.path("idp.secret")).unwrap();
    };
    let edge = Edge::with(&config, secret, |_| {});
    World { provider, key, edge }
}

const NAVIGATION: [&str; 3] = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none"];
/// What a client writes to be somebody else.
const FORGED: [&str; 2] = ["X-Auth-Request-User: boss", "X-Auth-Request-Groups: staff"];

/// The headers of a user, as the service reads them.
fn user(received: &Received) -> Vec<Vec<&str>> {
    let names = ["user", "email", "groups", "preferred-username"];
    names.map(|name| received.all(&format!("x-auth-request-{name}"))).to_vec()
}

#[test]
fn b54_what_was_imported_from_oauth2_proxy_leads_admits_and_names_users_as_it_did() {
    let world = imported();
    let (edge, stub) = (&world.edge, &world.edge.stub);
    // `--skip-auth-route`: these requests need no login. `--skip-auth-strip-headers`: nobody names a user there.
    for line in ["GET /static/a.css", "POST /static/form", "GET /probe"] {
        assert_eq!(edge.ask(line, &FORGED).status, 200, "{line}");
        assert_eq!(user(&stub.one()), vec![Vec::<&str>::new(); 4], "{line}");
    }
    // A pattern with a method opens no other, and none opens what only begins like it.
    for (line, headers, status) in [
        ("POST /probe", &[][..], 401),
        ("GET /probe/x", &[], 401),
        ("GET /statics", &[], 401),
        // `--api-route`: 401, also for a tab.
        ("GET /api/orders", &NAVIGATION, 401),
        ("GET /orders", &["Sec-Fetch-Mode: cors", SAME_ORIGIN], 401),
    ] {
        assert_eq!(edge.ask(line, &[headers, &FORGED].concat()).status, status, "{line}");
    }
    // `--skip-provider-button`: a tab is led to the login at once.
    let led = edge.ask("GET /orders", &NAVIGATION);
    assert_eq!((led.status, led.header("location")), (303, "https://gate.test/auth/login?to=%2Forders"));
    assert!(stub.take().is_empty());

    let log_in = |claims: Value| {
        let begun = world.begin("%2Forders");
        assert_eq!(begun.asked["scope"], "openid email profile groups");
        assert_eq!(begun.asked["redirect_uri"], "https://gate.test/auth/callback");
        world.answer_with(&world.id_token(&begun, &json!({}), &claims));
        world.come_back_with_code(&begun)
    };
    let ada = |changes: Value| {
        let mut claims = json!({
            "email": "ada@acme.example", "email_verified": true, "groups": ["staff", "dev"], "preferred_username": "ada.l",
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    // `--set-xauthrequest`: these four headers, and neither the cookie nor a token.
    let back = log_in(ada(json!({})));
    assert_eq!((back.status, back.header("location")), (303, "https://gate.test/orders"), "{}", back.text());
    let held = session(&back);
    for line in ["GET /orders?x=y", "GET /api/orders"] {
        assert_eq!(edge.ask(line, &[&[&*held, SAME_ORIGIN], &FORGED[..]].concat()).status, 200, "{line}");
        let received = stub.one();
        // Groups are a set: the gate sorts them.
        assert_eq!(user(&received), [["ada"], ["ada@acme.example"], ["dev,staff"], ["ada.l"]], "{line}");
        assert!(received.all("cookie").is_empty() && received.all("authorization").is_empty());
        // `--pass-host-header`.
        assert_eq!((format!("GET {}", received.target), received.all("host")), (line.to_owned(), vec!["gate.test"]));
    }
    // `--allowed-group`: no other group reaches the service.
    let held = session(&log_in(ada(json!({ "groups": ["dev"] }))));
    assert_eq!(edge.ask("GET /orders", &[&held, SAME_ORIGIN]).status, 403);
    // An address that nobody verified is no login.
    let refused = log_in(ada(json!({ "email_verified": false })));
    assert!(refused.status >= 400, "{}", refused.text());
    assert!(!set_cookies(&refused).iter().any(|(name, ..)| name == "__Host-Http-rg"));
    assert!(stub.take().is_empty());
}
