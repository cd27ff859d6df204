//! Signed assertions against the real binary: their form and content at an upstream, and that no route accepts them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde_json::{Value, json};

use super::isolation::secret;
use super::issuer::{Issuer, claims};
use support::stub::{Edge, HEAD, Received};
use support::{Place, keep_secret};

const NAME: &str = "x-auth-assertion";

const CONFIG_OF_ASSERTIONS: &str = r#"
[identity]
assertion = { header = "X-Auth-Assertion", ttl = "2m" }
[[issuers]]
name = "kc"
url = "https://idp.test/"
audience = ["kc-api"]
typ = ["at+jwt", "JWT", ""]
jwks_file = "kc.json"
scopes = ["read"]
claims = { roles = "groups" }
subject_prefix = "kc|"
[[clients]]
id = "svc"
secret_hash = "@hash@"
grants = ["client_credentials"]
[[upstreams]]
name = "billing"
urls = ["http://@upstream@"]
assertion_audience = "https://billing.internal"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/open/{*rest}"
auth = "optional"
keep_underscore_headers = true
upstream = "app"
[[routes]]
path = "/billing/{*rest}"
issuers = ["self", "kc"]
upstream = "billing"
[[routes]]
path = "/{*rest}"
issuers = ["self", "kc"]
upstream = "app"
"#;

fn edge(kc: &Issuer) -> Edge {
    let config = format!("{HEAD}{CONFIG_OF_ASSERTIONS}").replace("@hash@", &secret().1);
    let set = json!({ "keys": [kc.jwk("k1")] }).to_string();
    Edge::with(&config, |place| std::fs::write(place.path("kc.json"), set).unwrap(), |_| {})
}

/// A signed text that the gate's own keys verify: its header and claims.
pub(super) fn verified(edge: &Edge, assertion: &str) -> (Value, Value) {
    keep_secret(assertion);
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let [header, payload] = [header, payload].map(|text| serde_json::from_slice::<Value>(&part(text)).unwrap());
    let set = edge.ask("GET /.well-known/jwks.json", &[]).json();
    let key = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let key = VerifyingKey::from_bytes(&part(key["x"].as_str().unwrap()).try_into().unwrap()).unwrap();
    key.verify(signed.as_bytes(), &Signature::from_slice(&part(signature)).unwrap()).unwrap();
    (header, payload)
}

/// The values that the upstream received in this header, in any spelling.
fn asserted(received: &Received) -> Vec<String> {
    received.confusable(NAME).into_iter().map(str::to_owned).collect()
}

fn called(edge: &Edge, token: &str, path: &str) -> String {
    assert_eq!(edge.ask_as(token, &format!("GET {path}"), &[]).status, 200, "{path}");
    let [one] = <[String; 1]>::try_from(asserted(&edge.stub.one())).expect("exactly one");
    one
}

#[test]
fn n57_n60_an_upstream_gets_a_signed_assertion_for_itself_once_for_each_token() {
    let kc = Issuer::new(7);
    let edge = edge(&kc);
    let tokens = edge.login();
    let first = called(&edge, &tokens.access, "/x");
    let (header, said) = verified(&edge, &first);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("identity+jwt"), &json!("EdDSA")));
    let of = |token: &str| {
        serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    let access = of(&tokens.access);
    for (claim, expected) in [
        ("iss", json!("http://gate.test")),
        ("aud", json!("app")),
        ("sub", access["sub"].clone()),
        ("sid", access["sid"].clone()),
        ("client_id", json!("web")),
        ("origin_iss", json!("http://gate.test")),
    ] {
        assert_eq!(said[claim], expected, "{claim}");
    }
    assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 120);
    assert_ne!(said["jti"], access["jti"]);
    assert!(said.get("gen").is_none() && said.get("roles").is_none() && first.len() <= 2048);

    // One assertion for this token and upstream; another upstream, and another token, get separate assertions.
    assert_eq!(called(&edge, &tokens.access, "/y"), first);
    let billing = verified(&edge, &called(&edge, &tokens.access, "/billing/x")).1;
    assert_eq!(billing["aud"], "https://billing.internal");
    assert_eq!(called(&edge, &tokens.access, "/y"), first, "the other one took its place");
    let other = verified(&edge, &called(&edge, &edge.login().access, "/x")).1;
    assert!(other["jti"] != said["jti"] && billing["jti"] != said["jti"]);

    // Another issuer's user, whose token ends before the time of an assertion.
    let theirs = claims(&json!({ "aud": "kc-api", "groups": ["clerk", "a,b"] }));
    let until = theirs["iat"].as_u64().unwrap() + 40;
    let theirs = kc.token(&json!({ "aud": "kc-api", "groups": ["clerk", "a,b"], "exp": until }));
    let (_, said) = verified(&edge, &called(&edge, &theirs, "/x"));
    assert_eq!(said["sub"], "kc|user-1");
    assert_eq!(said["origin_iss"], "https://idp.test/");
    assert_eq!(said["scope"], "read");
    assert_eq!(said["roles"], json!(["a,b", "clerk"]));
    assert_eq!(said["exp"].as_u64().unwrap(), until, "it outlives the token");
    assert!(said.get("sid").is_none());

    // The assertion ends with the token.
    assert_eq!(edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &tokens.refresh)]).status, 200);
    assert_eq!(edge.ask_as(&tokens.access, "GET /x", &[]).status, 401);
    assert!(edge.stub.take().is_empty());
}

#[test]
fn n59_a_clients_own_assertion_arrives_on_no_route_in_no_spelling() {
    let edge = edge(&Issuer::new(7));
    let tokens = edge.login();
    let spellings =
        ["X-Auth-Assertion", "x_auth_assertion", "X.Auth.Assertion", "x-auth_assertion", "X-AUTH-ASSERTION-bin"];
    for spelling in spellings {
        let forged = format!("{spelling}: forged");
        for path in ["/public/x", "/open/x"] {
            assert_eq!(edge.ask(&format!("GET {path}"), &[&forged]).status, 200);
            let received = edge.stub.one();
            assert_eq!(asserted(&received), [""; 0], "{spelling} {path}");
            assert!(received.confusable("x-auth-assertion-bin").is_empty(), "{spelling} {path}");
        }
        for path in ["/open/x", "/x", "/billing/x"] {
            assert_eq!(edge.ask_as(&tokens.access, &format!("GET {path}"), &[&forged]).status, 200);
            let all = asserted(&edge.stub.one());
            assert!(all.len() == 1 && all[0] != "forged", "{spelling} {path}");
        }
    }
    // A request without identity, and a route without a token, have no assertion.
    assert_eq!(edge.ask_as(&tokens.access, "GET /public/x", &[]).status, 200);
    assert_eq!(asserted(&edge.stub.one()), [""; 0]);
}

#[test]
fn n58_an_assertion_is_no_token_at_any_gate() {
    let kc = Issuer::new(7);
    let edge = edge(&kc);
    let tokens = edge.login();
    let assertion = called(&edge, &tokens.access, "/x");
    for path in ["/x", "/open/x", "/billing/x"] {
        let reply = edge.ask_as(&assertion, &format!("GET {path}"), &[]);
        assert_eq!(reply.status, 401, "{path}");
    }
    // Signed by a trusted issuer, good in everything but its type; the same of another type passes.
    for (typ, status) in [("JWT", 200), ("identity+jwt", 401), ("application/Identity+JWT", 401)] {
        let header = json!({ "alg": "EdDSA", "typ": typ, "kid": "k1" });
        let token = kc.sign(&header, &claims(&json!({ "aud": "kc-api" })));
        assert_eq!(edge.ask_as(&token, "GET /x", &[]).status, status, "{typ}");
    }
    assert_eq!(edge.stub.take().len(), 1);
}

#[test]
fn n57_n58_assertions_that_could_not_be_told_from_tokens_are_errors_at_the_start() {
    let config =
        format!("{HEAD}{CONFIG_OF_ASSERTIONS}").replace("@hash@", &secret().1).replace("@upstream@", "127.0.0.1:9");
    let refused = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        let place = Place::new(&config.replace(from, to));
        std::fs::write(place.path("kc.json"), json!({ "keys": [Issuer::new(7).jwk("k1")] }).to_string()).unwrap();
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.stderr
    };
    for (from, to, said) in [
        (
            "assertion_audience = \"https://billing.internal\"",
            "assertion_audience = \"kc-api\"",
            "\"kc-api\" is an audience of access tokens",
        ),
        (
            "assertion_audience = \"https://billing.internal\"",
            "assertion_audience = \"api\"",
            "\"api\" is an audience of access tokens",
        ),
        ("audience = [\"api\"]", "audience = [\"app\"]", "\"app\" is an audience of access tokens"),
        ("typ = [\"at+jwt\", \"JWT\", \"\"]", "typ = [\"identity+jwt\"]", "identity+jwt"),
        ("ttl = \"2m\"", "ttl = \"1h\"", "10m"),
        ("header = \"X-Auth-Assertion\", ", "", "header"),
        ("header = \"X-Auth-Assertion\"", "header = \"x-auth-subject\"", "used for another value"),
        ("assertion = { header = \"X-Auth-Assertion\", ttl = \"2m\" }", "", "without `assertion` in [identity]"),
        ("[issuer]\n", "[issuer]\nalgorithm = \"HS256\"\n", "HS256"),
    ] {
        let text = refused(from, to);
        assert!(text.contains(said), "{to}: {text}");
    }
}

/// The configuration of the other tests, whose upstream `billing` gets transaction tokens.
fn config_of_transactions() -> String {
    format!("{HEAD}{CONFIG_OF_ASSERTIONS}")
        .replace("@hash@", &secret().1)
        // The token has more than the route needs.
        .replace("scopes = [\"read\"]", "scopes = [\"read\", \"write\"]")
        .replace("assertion_audience = \"https://billing.internal\"", "assertion_form = \"txn\"")
        .replace("[identity]\n", "[identity]\ntrust_domain = \"example.test\"\n")
        .replace("path = \"/billing/{*rest}\"\n", "path = \"/billing/{account}/{*rest}\"\nscopes = [\"read\"]\n")
}

#[test]
fn d28_an_upstream_gets_a_transaction_token_for_each_request_that_says_what_was_asked() {
    let kc = Issuer::new(7);
    let set = json!({ "keys": [kc.jwk("k1")] }).to_string();
    let edge =
        Edge::with(&config_of_transactions(), |place| std::fs::write(place.path("kc.json"), set).unwrap(), |_| {});
    let until = claims(&json!({}))["iat"].as_u64().unwrap() + 40;
    let long = kc.token(&json!({ "aud": "kc-api", "scope": "read write" }));
    let short = kc.token(&json!({ "aud": "kc-api", "scope": "read write", "exp": until }));
    let forged = ["Txn-Token: forged", "txn_token: forged", "TXN-TOKEN: forged"];
    let called = |token: &str, line: &str| {
        let reply = edge.ask_as(token, line, &forged);
        assert_eq!(reply.status, 200, "{line}");
        let received = edge.stub.one();
        assert_eq!(asserted(&received), [""; 0], "no other assertion");
        let [one] = <[&str; 1]>::try_from(received.confusable("txn-token")).expect("exactly one");
        one.to_owned()
    };
    let first = called(&long, "DELETE /billing/acme/orders/4%2e5;v=1");
    let (header, said) = verified(&edge, &first);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("txntoken+jwt"), &json!("EdDSA")));
    for (claim, expected) in [
        ("iss", json!("http://gate.test")),
        ("aud", json!("example.test")),
        ("sub", json!("kc|user-1")),
        ("scope", json!("read")),
        ("rctx", json!({ "req_ip": "127.0.0.1", "authn": "urn:ietf:rfc:6749", "origin_iss": "https://idp.test/" })),
        (
            "tctx",
            json!({
                "method": "DELETE",
                "route": "/billing/{account}/{*rest}",
                "params": { "account": "acme", "rest": "orders/4.5;v=1" },
            }),
        ),
    ] {
        assert_eq!(said[claim], expected, "{claim}");
    }
    assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 60);
    // Each request is a separate transaction, whose token does not outlive the caller's token.
    let second = verified(&edge, &called(&long, "GET /billing/acme/x")).1;
    assert_ne!(said["txn"], second["txn"]);
    assert_eq!(verified(&edge, &called(&short, "GET /billing/acme/x")).1["exp"].as_u64().unwrap(), until);
    // A transaction token opens no route, and the gate removes one that a client sends.
    for path in ["/x", "/open/x", "/billing/acme/x"] {
        assert_eq!(edge.ask_as(&first, &format!("GET {path}"), &[]).status, 401, "{path}");
    }
    for path in ["/public/x", "/open/x"] {
        assert_eq!(edge.ask(&format!("GET {path}"), &forged).status, 200);
        assert!(edge.stub.one().confusable("txn-token").is_empty(), "{path}");
    }
    assert_eq!(edge.ask_as(&long, "GET /x", &[]).status, 200);
    let received = edge.stub.one();
    assert!(received.confusable("txn-token").is_empty() && asserted(&received).len() == 1, "{received:?}");
}

#[test]
fn d28_a_transaction_token_that_could_not_be_told_from_a_token_is_an_error_at_the_start() {
    let config = config_of_transactions().replace("@upstream@", "127.0.0.1:9");
    for (from, to, said) in [
        ("trust_domain = \"example.test\"\n", "", "upstreams[1].assertion_form: needs `trust_domain` in [identity]"),
        ("\"example.test\"", "\"kc-api\"", "identity.trust_domain: \"kc-api\" is an audience of access tokens, too"),
        ("\"example.test\"", "\"api\"", "identity.trust_domain: \"api\" is an audience of access tokens, too"),
        (
            "assertion_form = \"txn\"",
            "assertion_form = \"txn\"\nassertion_audience = \"b\"",
            "upstreams[1].assertion_audience: has no effect",
        ),
        ("[issuer]\n", "[issuer]\nalgorithm = \"HS256\"\n", "upstreams[1].assertion_form: needs a key that others can"),
        ("\"JWT\", \"\"]", "\"txntoken+jwt\"]", "issuers[0].typ"),
    ] {
        assert!(config.contains(from), "{from}");
        let place = Place::new(&config.replace(from, to));
        std::fs::write(place.path("kc.json"), json!({ "keys": [Issuer::new(7).jwk("k1")] }).to_string()).unwrap();
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}
