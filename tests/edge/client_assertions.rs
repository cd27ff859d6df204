//! Clients that authenticate by assertions (RFC 7523 §2.2), at each endpoint where clients do.

use serde_json::{Value, json};

use super::issuer::{Issuer, claims};
use super::remote_keys::Provider;
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, until, with};

pub(super) const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const GATE: &str = "http://gate.test";
const CONFIG: &str = r#"
[[clients]]
id = "orders"
keys = { jwks_file = "orders.json" }
grants = ["client_credentials", "password", "refresh_token"]
scopes = ["read"]
[[clients]]
id = "other"
keys = { jwks_file = "other.pem" }
grants = ["client_credentials"]
[[endpoints]]
dialect = "oauth2"
path = "/second/token"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// The clients `orders` and `other`, and the gate that knows their keys.
struct Scene {
    edge: Edge,
    orders: Issuer,
    other: Issuer,
}

fn files(orders: &Issuer, other: &Issuer, place: &Place) {
    let set = json!({ "keys": [orders.jwk("k1")] }).to_string();
    std::fs::write(place.path("orders.json"), set).unwrap();
    std::fs::write(place.path("other.pem"), other.pem()).unwrap();
}

fn scene() -> Scene {
    let (orders, other) = (Issuer::new(31), Issuer::new(32));
    let edge = Edge::with(&format!("{HEAD}{CONFIG}"), |place| files(&orders, &other, place), |_| {});
    Scene { edge, orders, other }
}

fn said(changes: &Value) -> Value {
    let id = uuid::Uuid::new_v4().to_string();
    let mut said = claims(&json!({
        "iss": "orders", "sub": "orders", "aud": GATE, "jti": id, "client_id": null, "scope": null,
    }));
    said["exp"] = json!(said["iat"].as_u64().unwrap() + 60);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(said.as_object_mut().unwrap().remove(name)),
            value => said[name] = value.clone(),
        }
    }
    said
}

/// The header of an assertion.
fn head(typ: Option<&str>) -> Value {
    match typ {
        Some(typ) => json!({ "alg": "EdDSA", "kid": "k1", "typ": typ }),
        None => json!({ "alg": "EdDSA", "kid": "k1" }),
    }
}

impl Scene {
    fn assertion(&self, changes: &Value) -> String {
        self.orders.sign(&head(Some("client-authentication+jwt")), &said(changes))
    }

    fn grant(&self, assertion: &str, further: &[(&str, &str)]) -> Reply {
        let own = [("grant_type", "client_credentials"), ("client_assertion", assertion)];
        self.edge.form("/connect/token", &[], &[&own[..], &[("client_assertion_type", KIND)], further].concat())
    }

    fn at(&self, path: &str, token: &str, assertion: &str) -> Reply {
        let fields = [("token", token), ("client_assertion", assertion), ("client_assertion_type", KIND)];
        self.edge.form(path, &[], &fields)
    }
}

fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
}

fn invalid_client() -> (u16, String) {
    (400, "invalid_client".to_owned())
}

#[test]
fn d24_an_assertion_of_a_client_is_good_at_each_endpoint_and_each_rule_alone_refuses_one() {
    let scene = scene();
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    let granted = scene.grant(&scene.assertion(&json!({})), &[]);
    assert_eq!(granted.status, 200, "{granted:?}");
    let token = granted.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(scene.edge.ask_as(&token, "GET /x", &[]).status, 200);
    assert_eq!(scene.edge.stub.one().all("x-auth-client"), ["orders"]);
    for (typ, is_good) in [(None, true), (Some("JWT"), true), (Some("at+jwt"), false), (Some("logout+jwt"), false)] {
        let reply = scene.grant(&scene.orders.sign(&head(typ), &said(&json!({}))), &[]);
        assert_eq!(reply.status == 200, is_good, "{typ:?}");
    }
    let good = [json!({ "aud": [GATE] }), json!({ "exp": now + 3600 }), json!({ "iat": null })];
    for changes in good {
        assert_eq!(scene.grant(&scene.assertion(&changes), &[]).status, 200, "{changes}");
    }
    let bad = [
        json!({ "iss": "other" }),
        json!({ "sub": "other" }),
        json!({ "iss": null }),
        json!({ "sub": null }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        json!({ "aud": "http://gate.test/connect/token" }),
        json!({ "aud": "http://gate.test/" }),
        json!({ "aud": [GATE, "https://other.test"] }),
        json!({ "aud": [GATE, GATE] }),
        json!({ "exp": null }),
        json!({ "exp": now - 60 }),
        json!({ "exp": now + 3700 }),
        json!({ "exp": "soon" }),
        json!({ "nbf": now + 120 }),
        json!({ "iat": now + 120 }),
        json!({ "jti": null }),
        json!({ "jti": "" }),
        json!({ "jti": 7 }),
        json!({ "jti": "x".repeat(257) }),
    ];
    for changes in bad {
        let refused = scene.grant(&scene.assertion(&changes), &[("client_id", "orders")]);
        assert_eq!(error(&refused), invalid_client(), "{changes}");
    }
    let foreign = scene.other.sign(&head(None), &said(&json!({})));
    assert_eq!(error(&scene.grant(&foreign, &[])), invalid_client(), "another key");
    let unsigned = scene.orders.sign(&json!({ "alg": "none" }), &said(&json!({})));
    assert_eq!(error(&scene.grant(&unsigned, &[])), invalid_client());
    let confused = scene.orders.sign(&json!({ "alg": "HS256", "kid": "k1" }), &said(&json!({})));
    assert_eq!(error(&scene.grant(&confused, &[])), invalid_client());
    // The client of another request.
    assert_eq!(error(&scene.grant(&scene.assertion(&json!({})), &[("client_id", "other")])), invalid_client());
    assert_eq!(error(&scene.grant(&scene.assertion(&json!({})), &[("client_id", "web")])), invalid_client());
    // Another endpoint accepts its own issuer as the audience, which the first endpoint refuses.
    let introspected = scene.at("/connect/introspect", &token, &scene.assertion(&json!({})));
    assert_eq!(introspected.json()["active"], true);
    let second = json!({ "aud": "http://gate.test/second" });
    assert_eq!(scene.at("/second/introspect", &token, &scene.assertion(&second)).json()["active"], true);
    assert_eq!(error(&scene.grant(&scene.assertion(&second), &[])), invalid_client());
    assert_eq!(scene.at("/connect/introspect", &token, &foreign).status, 401);
    assert_eq!(scene.at("/connect/revocation", &token, &foreign).status, 400);
    assert_eq!(scene.edge.ask_as(&token, "GET /x", &[]).status, 200, "it is not revoked");
    assert_eq!(scene.at("/connect/revocation", &token, &scene.assertion(&json!({}))).status, 200);
    assert_eq!(scene.edge.ask_as(&token, "GET /x", &[]).status, 401);
}

#[test]
fn d24_a_client_authenticates_in_one_way() {
    let scene = scene();
    let assertion = || scene.assertion(&json!({}));
    let invalid_request = (400, "invalid_request".to_owned());
    assert_eq!(error(&scene.grant(&assertion(), &[("client_secret", "s")])), invalid_request);
    let fields =
        [("grant_type", "client_credentials"), ("client_assertion", &*assertion()), ("client_assertion_type", KIND)];
    let basic = scene.edge.form("/connect/token", &["Authorization: Basic b3JkZXJzOng="], &fields);
    assert_eq!(error(&basic), invalid_request);
    let of_saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    for kind in [Some(of_saml), None] {
        let kind = kind.map(|kind| ("client_assertion_type", kind));
        let assertion = assertion();
        let own = [("grant_type", "client_credentials"), ("client_id", "orders"), ("client_assertion", &assertion)];
        let fields: Vec<_> = own.into_iter().chain(kind).collect();
        assert_eq!(error(&scene.edge.form("/connect/token", &[], &fields)), invalid_client());
    }
    // Without an assertion, and with a secret instead, a client with keys is not authenticated.
    let bare = [("grant_type", "client_credentials"), ("client_id", "orders")];
    assert_eq!(error(&scene.edge.form("/connect/token", &[], &bare)), invalid_client());
    let with_secret = [&bare[..], &[("client_secret", "x")]].concat();
    assert_eq!(error(&scene.edge.form("/connect/token", &[], &with_secret)), invalid_client());
}

#[test]
fn d26_an_assertion_is_used_once_its_id_is_the_clients_own_and_a_restart_forgets_none() {
    let (orders, other) = (Issuer::new(31), Issuer::new(32));
    let config = with(&format!("{HEAD}{CONFIG}"), "store", "kind = \"redb\"\npath = \"data/sessions.db\"")
        .replace("kind = \"memory\"\n", "");
    let edge = Edge::with(&config, |place| files(&orders, &other, place), |_| {});
    let mut scene = Scene { edge, orders, other };
    let used = scene.assertion(&json!({ "jti": "one" }));
    // An assertion that is refused for another reason is not used up, such as a scope or an endpoint that the client
    // may not use.
    let wrong = scene.grant(&scene.assertion(&json!({ "jti": "one", "aud": "https://other.test" })), &[]);
    assert_eq!(error(&wrong), invalid_client());
    assert_eq!(scene.grant(&used, &[]).status, 200);
    assert_eq!(error(&scene.grant(&used, &[])), invalid_client());
    let again = scene.assertion(&json!({ "jti": "one", "exp": claims(&json!({}))["exp"] }));
    assert_eq!(error(&scene.grant(&again, &[])), invalid_client(), "the same id in another assertion");
    let at_other = scene.at("/connect/introspect", "x", &used);
    assert_eq!(at_other.status, 401, "at another endpoint");
    // The id is one client's.
    let of_other = scene.other.sign(&head(None), &said(&json!({ "iss": "other", "sub": "other", "jti": "one" })));
    assert_eq!(scene.grant(&of_other, &[]).status, 200);
    let metrics = scene.edge.metrics();
    let counted = metrics.lines().filter(|line| line.contains("outcome=\"client_assertion\""));
    let counted: u64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 4, "each refusal by its rule: {metrics}");
    scene.edge.gate.kill();
    scene.edge.gate = scene.edge.place.start();
    assert_eq!(error(&scene.grant(&used, &[])), invalid_client(), "after kill -9");
    assert_eq!(scene.grant(&scene.assertion(&json!({})), &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn d25_d29_a_client_rolls_its_keys_in_a_file_and_at_its_address() {
    let scene = scene();
    let new = Issuer::new(33);
    let by_new = || new.sign(&json!({ "alg": "EdDSA", "kid": "k2" }), &said(&json!({})));
    assert_eq!(error(&scene.grant(&by_new(), &[])), invalid_client());
    let both = json!({ "keys": [scene.orders.jwk("k1"), new.jwk("k2")] }).to_string();
    let file = scene.edge.place.path("orders.json");
    std::fs::write(&file, both).unwrap();
    until("the file is read again", async || scene.grant(&by_new(), &[]).status == 200).await;
    assert_eq!(scene.grant(&scene.assertion(&json!({})), &[]).status, 200, "both are good meanwhile");
    std::fs::write(&file, "{").unwrap();
    let refused = "files of clients or providers changed but cannot be used";
    until("the broken file is refused", async || scene.edge.gate.log().contains(refused)).await;
    let series = "rotogate_config_last_reload_successful{source=\"clients\"}";
    until("the metric tells", async || scene.edge.gate.metric(series).await == 0).await;
    assert_eq!(scene.grant(&by_new(), &[]).status, 200, "the old set stays in force");
    std::fs::write(&file, json!({ "keys": [new.jwk("k2")] }).to_string()).unwrap();
    let by_old = || scene.grant(&scene.assertion(&json!({})), &[]);
    until("the old key left the set", async || by_old().status != 200).await;
    assert_eq!(error(&by_old()), invalid_client());
    assert_eq!(scene.edge.gate.metric(series).await, 1);
    // From a file to an address, and a key that the gate does not know yet: the set is fetched for it.
    let provider = Provider::start();
    provider.publish(&[new.jwk("k2")]);
    let config = std::fs::read_to_string(scene.edge.place.path("gateway.toml")).unwrap();
    let at = format!(
        "keys = {{ jwks_url = \"{}\", fetch = {{ for_tests = {{ cooldown = \"1s\" }} }} }}",
        provider.at("/keys")
    );
    scene.edge.place.write_config(&config.replace("keys = { jwks_file = \"orders.json\" }", &at));
    reload(&scene.edge, 1).await;
    assert_eq!(scene.grant(&by_new(), &[]).status, 200);
    let third = Issuer::new(34);
    provider.publish(&[third.jwk("k3")]);
    let by_third = || third.sign(&json!({ "alg": "EdDSA", "kid": "k3" }), &said(&json!({})));
    until("the new set is fetched", async || scene.grant(&by_third(), &[]).status == 200).await;
    assert_eq!(error(&scene.grant(&by_new(), &[])).1, "invalid_client");
    let metrics = String::from_utf8(scene.edge.gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("issuer=\"client:orders\""), "{metrics}");
}

pub(super) async fn reload(edge: &Edge, times: usize) {
    edge.gate.signal("HUP");
    until("the gate reloads", async || edge.gate.log().matches("configuration reloaded").count() >= times).await;
}

#[test]
fn d27_the_metadata_name_the_method_and_its_algorithms_if_a_client_has_keys() {
    let scene = scene();
    let said = scene.edge.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    let methods = &said["token_endpoint_auth_methods_supported"];
    assert!(methods.as_array().unwrap().contains(&json!("private_key_jwt")), "{methods}");
    for endpoint in ["token", "revocation", "introspection"] {
        let algorithms = said[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")].as_array().unwrap();
        assert!(algorithms.contains(&json!("EdDSA")) && algorithms.contains(&json!("RS256")), "{algorithms:?}");
        assert!(!algorithms.iter().any(|name| name.as_str().unwrap().starts_with("HS") || name == "none"));
    }
    let without = Edge::new("[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"\n");
    let said = without.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(
        said["token_endpoint_auth_methods_supported"],
        json!(["none", "client_secret_basic", "client_secret_post"])
    );
    assert_eq!(said.get("token_endpoint_auth_signing_alg_values_supported"), None);
}
