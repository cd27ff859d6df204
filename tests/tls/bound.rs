//! Tokens that are bound to the client certificate of their connection (RFC 8705), at the real binary.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::dpop::{Holder, claims};
use crate::edge::exchange::{ACCESS, GRANT};
use crate::edge::issuer::Issuer;
use support::pki::{Pair, Pki};
use support::tls_client::Client;
use support::{Gate, Place, keep_secret};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
tls = { cert = "server.pem", key = "server.key", client_ca = "ca.pem", client_auth = "optional", client_cert_header = true }
public_url = "http://gate.test"
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
for_tests.login_per_client = "1000/1s"
[[clients]]
id = "web"
[[clients]]
id = "robot"
certificate_bound = "optional"
dpop = "optional"
[[clients]]
id = "strict"
certificate_bound = "required"
[[clients]]
id = "service"
secret_hash_file = "service.hash"
grants = ["password", "refresh_token", "client_credentials"]
scopes = ["read"]
certificate_bound = "required"
[[endpoints]]
dialect = "oauth2"
path = "/connect/token"
[[endpoints]]
dialect = "my-sessions"
path = "/my-sessions"
[[resources]]
path = "/strict"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/strict/{*rest}"
resource = "/strict"
audiences = ["api"]
certificate_bound = "required"
upstream = "app"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
issuers = ["self", "idp"]
upstream = "app"
"#;
const SECRET: &str = "the secret of the service with a certificate";

struct World {
    pki: Pki,
    place: Place,
    gate: Gate,
    idp: Issuer,
}

/// A client, with or without a certificate.
struct Caller {
    tls: Client,
    to: SocketAddr,
    password: String,
}

struct Answer {
    status: u16,
    challenge: String,
    body: Value,
}

impl World {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: &str) -> Self {
        let (pki, idp) = (Pki::new(), Issuer::new(9));
        let place = Place::new(config);
        pki.issue(&["gate.test"]).write(&place, "server");
        std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
        std::fs::write(place.path("idp.json"), json!({ "keys": [idp.jwk("k1")] }).to_string()).unwrap();
        keep_secret(SECRET);
        let hash = Place::new(support::CONFIG).json(&["client", "secret", "--stdin"], SECRET);
        support::pki::write_private(&place.path("service.hash"), hash["secret_hash"].as_str().unwrap());
        let gate = place.start();
        Self { pki, place, gate, idp }
    }

    fn caller(&self, certificate: Option<&Pair>, protocol: &str) -> Caller {
        let tls = Client::with(&self.pki, &[protocol], certificate);
        Caller { tls, to: self.gate.address, password: self.gate.password.clone() }
    }
}

impl Caller {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
        let mut connection = self.tls.open(self.to, "gate.test").await.unwrap();
        let target = if connection.is_http2() { format!("https://gate.test{path}") } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(target);
        if !connection.is_http2() {
            request = request.header("host", "gate.test");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        if !form.is_empty() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let response = connection.send(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let challenge = head.headers.get("www-authenticate").map_or("", |value| value.to_str().unwrap()).to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        for name in ["access_token", "refresh_token"] {
            body[name].as_str().into_iter().for_each(keep_secret);
        }
        Answer { status: head.status.as_u16(), challenge, body }
    }

    async fn token(&self, client: &str, fields: &[(&str, &str)]) -> Answer {
        let secret = [("client_secret", SECRET)];
        let secret: &[_] = if client == "service" { &secret } else { &[] };
        self.send("POST", "/connect/token", &[], &[&[("client_id", client)], secret, fields].concat()).await
    }

    async fn log_in(&self, client: &str) -> Answer {
        self.token(client, &[("grant_type", "password"), ("username", "demo"), ("password", &self.password)]).await
    }

    async fn refresh(&self, client: &str, token: &str) -> Answer {
        self.token(client, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], &[]).await
    }
}

impl Answer {
    fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("{} {}", self.status, self.body)).to_owned()
    }

    fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap_or_default())
    }

    /// The values of a header that the upstream got.
    fn arrived(&self, name: &str) -> Vec<&str> {
        let headers = self.body["headers"].as_array().unwrap_or_else(|| panic!("{} {}", self.status, self.body));
        headers.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str()).collect()
    }
}

fn thumbprint(pair: &Pair) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.der().0))
}

#[tokio::test]
async fn r14_a_bound_token_is_good_on_connections_with_its_certificate_alone() {
    let world = World::new();
    let (own, other) = (world.pki.issue(&["robot.test"]), world.pki.issue(&["robot.test"]));
    for protocol in ["h2", "http/1.1"] {
        let caller = world.caller(Some(&own), protocol);
        let access = caller.log_in("robot").await.text("access_token");
        assert_eq!(claims(&access)["cnf"], json!({ "x5t#S256": thumbprint(&own) }));
        let (thief, bare) = (world.caller(Some(&other), protocol), world.caller(None, protocol));
        // Before and after the token is in the cache.
        for _ in 0..2 {
            assert_eq!(caller.get("/strict/x", &access).await.status, 200, "{protocol}");
            for (stranger, reason) in [(&thief, "other_certificate"), (&bare, "no_certificate")] {
                let refused = stranger.get("/x", &access).await;
                assert_eq!(refused.status, 401, "{protocol} {reason}");
                assert!(refused.challenge.starts_with("Bearer error=\"invalid_token\""), "{}", refused.challenge);
                assert!(world.gate.log().contains(reason), "{reason}");
            }
        }
        // The token is not a DPoP token.
        let as_dpop = caller.send("GET", "/x", &[("authorization", &format!("DPoP {access}"))], &[]).await;
        assert_eq!(as_dpop.status, 401);
        // Introspection names the binding that a resource server must check.
        let service = world.caller(Some(&other), protocol);
        let fields = [("client_id", "service"), ("client_secret", SECRET), ("token", &access)];
        let said = service.send("POST", "/connect/introspect", &[], &fields).await;
        assert_eq!(said.body["cnf"], json!({ "x5t#S256": thumbprint(&own) }), "{}", said.body);
        assert_eq!(said.body["token_type"], "Bearer");
        // An endpoint that checks no binding refuses bound tokens.
        assert_eq!(caller.get("/my-sessions", &access).await.status, 401);
        assert!(world.gate.log().contains("unproved_binding"));
    }
}

#[tokio::test]
async fn r14_clients_and_routes_ask_for_a_certificate_or_do_without() {
    let world = World::new();
    let own = world.pki.issue(&["robot.test"]);
    let (caller, bare) = (world.caller(Some(&own), "h2"), world.caller(None, "h2"));
    // A client that is not bound to certificates, and a client without a certificate.
    for (caller, client) in [(&caller, "web"), (&bare, "robot")] {
        let plain = caller.log_in(client).await.text("access_token");
        assert_eq!(claims(&plain).get("cnf"), None);
        assert_eq!(bare.get("/x", &plain).await.status, 200);
        let refused = caller.get("/strict/x", &plain).await;
        assert_eq!(refused.status, 401, "{client}");
    }
    assert!(world.gate.log().contains("unbound_token"));
    let refused = bare.log_in("strict").await;
    assert_eq!(refused.error(), (400, "invalid_request"));
    assert!(refused.text("error_description").contains("certificate"), "{}", refused.body);
    assert_eq!(bare.token("service", &[("grant_type", "client_credentials")]).await.error(), (400, "invalid_request"));
    // A client's own token is bound as well.
    let own_token = caller.token("service", &[("grant_type", "client_credentials")]).await.text("access_token");
    assert_eq!(claims(&own_token)["cnf"]["x5t#S256"], thumbprint(&own));
    assert_eq!((caller.get("/x", &own_token).await.status, bare.get("/x", &own_token).await.status), (200, 401));
    // The metadata documents say so.
    let metadata = bare.send("GET", "/.well-known/oauth-authorization-server", &[], &[]).await.body;
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    let resource = bare.send("GET", "/.well-known/oauth-protected-resource/strict", &[], &[]).await.body;
    assert_eq!(resource["tls_client_certificate_bound_access_tokens"], true);
}

#[tokio::test]
async fn r14_a_refresh_token_needs_its_certificate_and_a_kill_unbinds_nothing() {
    let mut world = World::new();
    let (own, other) = (world.pki.issue(&["robot.test"]), world.pki.issue(&["robot.test"]));
    let caller = world.caller(Some(&own), "h2");
    let first = caller.log_in("strict").await.text("refresh_token");
    let harmless = async |world: &World, token: &str| {
        let thief = world.caller(Some(&other), "h2");
        assert_eq!(thief.refresh("strict", token).await.error(), (400, "invalid_grant"));
        assert_eq!(world.caller(None, "h2").refresh("strict", token).await.error(), (400, "invalid_request"));
        // Not even with the id of a client that needs no certificate, or that has a secret.
        assert_eq!(world.caller(None, "h2").refresh("web", token).await.error(), (400, "invalid_grant"));
        assert_eq!(thief.refresh("service", token).await.error(), (400, "invalid_grant"));
    };
    harmless(&world, &first).await;
    let pair = caller.refresh("strict", &first).await;
    assert_eq!(claims(&pair.text("access_token"))["cnf"]["x5t#S256"], thumbprint(&own));
    // A lost reply: the identical pair for this certificate. A superseded token with another certificate ends nothing.
    harmless(&world, &first).await;
    assert_eq!(caller.refresh("strict", &first).await.text("access_token"), pair.text("access_token"));

    world.gate.kill();
    world.gate = world.place.start();
    harmless(&world, &pair.text("refresh_token")).await;
    let caller = world.caller(Some(&own), "h2");
    let next = caller.refresh("strict", &pair.text("refresh_token")).await;
    assert_eq!(claims(&next.text("access_token"))["cnf"]["x5t#S256"], thumbprint(&own));

    // A session that began without a certificate stays unbound.
    let plain = world.caller(None, "h2").log_in("robot").await.text("refresh_token");
    let next = caller.refresh("robot", &plain).await;
    assert_eq!(claims(&next.text("access_token")).get("cnf"), None);
    // A confidential client may change its certificate, but not omit it.
    let renewed = world.caller(Some(&other), "h2");
    let begun = caller.log_in("service").await.text("refresh_token");
    let moved = renewed.refresh("service", &begun).await;
    assert_eq!(claims(&moved.text("access_token"))["cnf"]["x5t#S256"], thumbprint(&other));
    assert_eq!(caller.refresh("service", &begun).await.error(), (400, "invalid_grant"), "that pair has another");
    let without = world.caller(None, "h2").refresh("service", &moved.text("refresh_token")).await;
    assert_eq!(without.error(), (400, "invalid_request"));
    assert_eq!(renewed.refresh("service", &moved.text("refresh_token")).await.status, 200);
}

#[tokio::test]
async fn r14_a_key_and_a_certificate_are_both_proved() {
    let world = World::new();
    let (own, holder) = (world.pki.issue(&["robot.test"]), Holder::new(5));
    let (caller, bare) = (world.caller(Some(&own), "h2"), world.caller(None, "h2"));
    let proof = |method: &str, path: &str, token: Option<&str>| {
        let proof = holder.proof(method, &format!("http://gate.test{path}"), token, &json!({}));
        proof.strip_prefix("DPoP: ").unwrap().to_owned()
    };
    let password = world.gate.password.clone();
    let fields =
        [("client_id", "robot"), ("grant_type", "password"), ("username", "demo"), ("password", password.as_str())];
    let headers = [("dpop", &*proof("POST", "/connect/token", None))];
    let tokens = caller.send("POST", "/connect/token", &headers, &fields).await;
    let access = tokens.text("access_token");
    assert_eq!(tokens.text("token_type"), "DPoP");
    assert_eq!(claims(&access)["cnf"]["x5t#S256"], thumbprint(&own));
    assert!(claims(&access)["cnf"]["jkt"].is_string());
    let authorization = format!("DPoP {access}");
    let ask = async |caller: &Caller, proof: &str| {
        caller.send("GET", "/strict/x", &[("authorization", &authorization), ("dpop", proof)], &[]).await.status
    };
    assert_eq!(ask(&caller, &proof("GET", "/strict/x", Some(&access))).await, 200);
    assert_eq!(ask(&bare, &proof("GET", "/strict/x", Some(&access))).await, 401);
    assert_eq!(ask(&caller, "x").await, 401);
    assert_eq!(caller.get("/strict/x", &access).await.status, 401);
    // A refresh needs both bindings.
    let refresh = tokens.text("refresh_token");
    assert_eq!(caller.refresh("robot", &refresh).await.error(), (400, "invalid_dpop_proof"));
    let fields = [("client_id", "robot"), ("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let with = async |caller: &Caller| {
        let proof = proof("POST", "/connect/token", None);
        caller.send("POST", "/connect/token", &[("dpop", proof.as_str())], &fields).await
    };
    assert_eq!(with(&bare).await.error(), (400, "invalid_grant"));
    assert_eq!(claims(&with(&caller).await.text("access_token"))["cnf"], claims(&access)["cnf"]);
}

#[tokio::test]
async fn r14_tokens_of_other_issuers_are_held_to_their_certificate() {
    let world = World::new();
    let (own, other) = (world.pki.issue(&["robot.test"]), world.pki.issue(&["robot.test"]));
    let (caller, thief) = (world.caller(Some(&own), "h2"), world.caller(Some(&other), "h2"));
    let token = |cnf: Value| {
        let token = world.idp.token(&json!({ "cnf": cnf }));
        keep_secret(&token);
        token
    };
    let bound = token(json!({ "x5t#S256": thumbprint(&own) }));
    assert_eq!((caller.get("/x", &bound).await.status, thief.get("/x", &bound).await.status), (200, 401));
    for cnf in [
        json!({}),
        json!({ "x5t#S256": "x" }),
        json!({ "x5t#S256": [thumbprint(&own)] }),
        json!({ "x5t": thumbprint(&own) }),
        json!({ "x5t#S256": thumbprint(&own), "kid": "x" }),
        json!({ "x5t#S256": thumbprint(&own), "jkt": 1 }),
        json!("x"),
    ] {
        assert_eq!(caller.get("/x", &token(cnf.clone())).await.status, 401, "{cnf}");
    }
}

#[tokio::test]
async fn r14_upstreams_get_the_certificate_of_the_connection_and_no_imitation() {
    let world = World::new();
    let own = world.pki.issue(&["robot.test"]);
    let expected = format!(":{}:", STANDARD.encode(own.der().0));
    let spoofed =
        [("client-cert", ":c3Bvb2ZlZA==:"), ("client-cert-chain", ":c3Bvb2ZlZA==:"), ("connection", "client-cert")];
    let caller = world.caller(Some(&own), "http/1.1");
    let got = caller.send("GET", "/public/x", &spoofed, &[]).await;
    assert_eq!((got.arrived("client-cert"), got.arrived("client-cert-chain")), (vec![&*expected], vec![]));
    let got = world.caller(None, "http/1.1").send("GET", "/public/x", &spoofed, &[]).await;
    assert_eq!((got.arrived("client-cert"), got.arrived("client-cert-chain")), (vec![], vec![]));
}

#[tokio::test]
async fn r14_the_certificate_of_a_proxy_is_not_that_of_its_clients() {
    let world = World::with(&CONFIG.replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n"));
    let own = world.pki.issue(&["proxy.test"]);
    let proxy = world.caller(Some(&own), "http/1.1");
    assert_eq!(claims(&proxy.log_in("robot").await.text("access_token")).get("cnf"), None);
    assert_eq!(proxy.log_in("strict").await.error(), (400, "invalid_request"));
    assert!(proxy.send("GET", "/public/x", &[], &[]).await.arrived("client-cert").is_empty());
    let token = world.idp.token(&json!({ "cnf": { "x5t#S256": thumbprint(&own) } }));
    keep_secret(&token);
    assert_eq!(proxy.get("/x", &token).await.status, 401);
}

#[tokio::test]
async fn explain_takes_a_certificate_and_says_what_the_token_is_bound_to() {
    let world = World::new();
    let (own, other) = (world.pki.issue(&["robot.test"]), world.pki.issue(&["robot.test"]));
    own.write(&world.place, "own");
    other.write(&world.place, "other");
    let access = world.caller(Some(&own), "h2").log_in("robot").await.text("access_token");
    world.place.point_commands_at(&world.gate);
    let explain =
        |more: &[&str]| world.place.run(&[&["--json", "explain", "--path", "/strict/x"], more].concat(), &access);
    let file = |name: &str| world.place.path(name).display().to_string();
    for (more, outcome) in [
        (vec!["--client-certificate".to_owned(), file("own.pem")], "passed"),
        (vec!["--client-certificate".to_owned(), file("other.pem")], "other_certificate"),
        (Vec::new(), "no_certificate"),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let ran = explain(&more);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{} {}", ran.stdout, ran.stderr));
        assert_eq!(said["outcome"], outcome, "{said}");
    }
    let wrong = explain(&["--client-certificate", &file("own.key")]);
    assert!(wrong.stdout.contains("not a certificate in PEM"), "{}", wrong.stdout);
}

#[test]
fn certificate_bound_needs_a_listener_that_asks_for_certificates() {
    let config = CONFIG.replace(", client_ca = \"ca.pem\", client_auth = \"optional\", client_cert_header = true", "");
    let place = Place::new(&config);
    Pki::new().issue(&["gate.test"]).write(&place, "server");
    let said = place.refused();
    for key in ["clients[1].certificate_bound", "clients[2].certificate_bound", "routes[0].certificate_bound"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    assert!(said.contains("needs a listener that requests client certificates"), "{said}");
}

#[tokio::test]
async fn d7_a_bound_token_is_exchanged_with_a_certificate_alone_and_what_comes_of_it_is_bound_to_that() {
    const CLIENT: &str = "[[clients]]\nid = \"orders\"\nsecret_hash_file = \"service.hash\"\n\
                          grants = [\"token-exchange\"]\ncertificate_bound = \"optional\"\n\
                          exchange = { as = [\"api\"], to = [\"ledger\"] }\n";
    const ROUTE: &str = "[[routes]]\npath = \"/ledger/{*rest}\"\naudiences = [\"ledger\"]\nupstream = \"app\"\n";
    let config = CONFIG.replacen("[[clients]]", &format!("{CLIENT}[[clients]]"), 1);
    let world = World::with(&config.replacen("[[routes]]", &format!("{ROUTE}[[routes]]"), 1));
    let [user, service, thief] = [0; 3].map(|_| world.pki.issue(&["robot.test"]));
    let [by_user, by_service, by_thief, bare] =
        [Some(&user), Some(&service), Some(&thief), None].map(|certificate| world.caller(certificate, "h2"));
    let exchange = async |caller: &Caller, subject: &str| {
        let fields = [
            ("client_secret", SECRET),
            ("grant_type", GRANT),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
        ];
        caller.token("orders", &fields).await
    };
    let bound = by_user.log_in("robot").await.text("access_token");
    assert_eq!(exchange(&bare, &bound).await.error(), (400, "invalid_request"), "a bearer token would be a downgrade");
    let token = exchange(&by_service, &bound).await.text("access_token");
    assert_eq!(claims(&token)["cnf"], json!({ "x5t#S256": thumbprint(&service) }));
    assert_eq!(by_service.get("/ledger/x", &token).await.status, 200);
    for other in [&by_thief, &by_user, &bare] {
        assert_eq!(other.get("/ledger/x", &token).await.status, 401);
    }
    // A bearer token stays one, or is bound: both are no less.
    let plain = bare.log_in("web").await.text("access_token");
    assert_eq!(claims(&exchange(&bare, &plain).await.text("access_token")).get("cnf"), None);
    let token = exchange(&by_service, &plain).await.text("access_token");
    assert_eq!(claims(&token)["cnf"]["x5t#S256"], thumbprint(&service));
}
