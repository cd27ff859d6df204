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
assertion = { header = "X-Auth-Assertion", for_tests = { ttl = "2m" } }
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
keep_headers = ["underscore"]
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
            "\"kc-api\" is already an audience of access tokens",
        ),
        (
            "assertion_audience = \"https://billing.internal\"",
            "assertion_audience = \"api\"",
            "\"api\" is already an audience of access tokens",
        ),
        ("audience = [\"api\"]", "audience = [\"app\"]", "\"app\" is already an audience of access tokens"),
        ("typ = [\"at+jwt\", \"JWT\", \"\"]", "typ = [\"identity+jwt\"]", "identity+jwt"),
        ("header = \"X-Auth-Assertion\", ", "", "header"),
        ("header = \"X-Auth-Assertion\"", "header = \"x-auth-subject\"", "already carries another value"),
        (
            "assertion = { header = \"X-Auth-Assertion\", for_tests = { ttl = \"2m\" } }",
            "",
            "without `assertion` in `[identity]`",
        ),
        ("[issuer]\n", "[issuer]\nalgorithm = \"HS256\"\n", "HS256"),
    ] {
        let text = refused(from, to);
        assert!(text.contains(said), "{to}: {text}");
    }
}
