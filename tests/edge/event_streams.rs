//! Streams of security events: the real binary at a stand-in of a transmitter.

use std::time::Duration;

use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims};
use support::documents::Documents;
use support::stub::{Edge, HEAD};
use support::transmitter::{Asked, Transmitter};
use support::{Place, keep_secret, with};

const AUDIENCE: &str = "https://gate.test/events";
const TOKEN: &str = "token-of-the-gate-at-the-transmitter";
const PUSHED_WITH: &str = "token-of-the-transmitter-at-the-gate";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

/// A transmitter that signs as the issuer.
pub(crate) fn transmitter() -> Transmitter {
    let header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "secevent+jwt" });
    let sign = move |set: &Value| {
        let mut set = set.clone();
        set["iat"] = now().into();
        Issuer::new(21).sign(&header, &set)
    };
    Transmitter::start(URL, AUDIENCE, TOKEN, Box::new(sign))
}

pub(crate) fn files(place: &Place) {
    for (file, secret) in [("ssf.token", TOKEN), ("events.token", PUSHED_WITH)] {
        keep_secret(secret);
        let path = place.path(file);
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let keys = json!({ "keys": [Issuer::new(21).jwk("k1")] }).to_string();
    std::fs::write(place.path("idp.json"), keys).unwrap();
}

/// The issuer, with these keys of its `stream`, and further keys.
pub(crate) fn issuer_of(at: &Transmitter, stream: &str, more: &str) -> String {
    format!(
        r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read"]
stream = {{ transmitter = "{}", token_file = "ssf.token", {stream} }}
{more}
[[routes]]
path = "/{{*rest}}"
issuers = ["self", "idp"]
upstream = "app"
"#,
        at.url
    )
}

/// A token of an earlier second, so that an event of this second is later.
pub(crate) fn token_of(subject: &str) -> String {
    Issuer::new(21).token(&json!({ "sub": subject, "iat": now() - 10, "jti": subject }))
}

pub(crate) fn end(at: &Transmitter, jti: &str, subject: &str) {
    let user = json!({ "format": "iss_sub", "iss": URL, "sub": subject });
    at.send(jti, &user, &json!({ REVOKED: { "event_timestamp": now() } }));
}

pub(crate) fn until_acknowledged(at: &Transmitter, jti: &str) {
    at.until(jti, |state| state.acknowledged.iter().any(|one| one == jti).then_some(()));
}

fn until_alive(edge: &Edge, is_alive: u64) {
    for _ in 0..600 {
        if edge.series("rotogate_stream_alive{issuer=\"idp\"}") == is_alive {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("rotogate_stream_alive does not become {is_alive}: {}", edge.gate.log());
}

#[test]
fn d24_s16_the_gate_proves_its_key_for_the_token_of_a_stream() {
    let (at, provider, key) = (transmitter(), Documents::start(), Issuer::new(35));
    provider.document("/token", &json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 300 }));
    let client = format!(
        "client = {{ id = \"gate\", key_file = \"gate.pem\", assertion_audience = \"{URL}\" }}, token_url = \"{}\"",
        provider.at("/token")
    );
    let config =
        issuer_of(&at, &format!("audience = [\"{AUDIENCE}\"]"), "").replace("token_file = \"ssf.token\"", &client);
    let with_key = |place: &Place| {
        files(place);
        support::pki::write_private(&place.path("gate.pem"), &key.private_pem());
    };
    let edge = Edge::with(&format!("{HEAD}{config}"), with_key, |_| {});
    until_acknowledged(&at, "verification-1");
    until_alive(&edge, 1);
    let (form, authorization) = provider.form("/token");
    assert!(authorization.is_none() && !form.contains_key("client_secret"), "{form:?}");
    key.proved(&form["client_assertion"], "gate", URL);
}

#[test]
fn s16_s17_s21_s29_a_stream_is_created_verified_polled_and_replaced() {
    let at = transmitter();
    let polled = |at: &Transmitter| issuer_of(at, &format!("audience = [\"{AUDIENCE}\"]"), "");
    let durable =
        with(HEAD, "store", "kind = \"redb\"\npath = \"data/rotogate.redb\"").replace("kind = \"memory\"\n", "");
    let config = format!("{durable}{}", polled(&at));
    let mut edge = Edge::with(&config, files, |_| {});
    let status = |edge: &Edge, subject: &str| edge.ask_as(&token_of(subject), "GET /x", &[]).status;
    until_acknowledged(&at, "verification-1");
    until_alive(&edge, 1);
    assert_eq!(status(&edge, "user-1"), 200);
    end(&at, "e-1", "user-1");
    until_acknowledged(&at, "e-1");
    assert_eq!(status(&edge, "user-1"), 401, "acknowledged: it holds");
    // The gate is killed between the effect and the acknowledgement: the effect holds before the event is repeated.
    assert_eq!(status(&edge, "user-2"), 200);
    let fails = |asked: &Asked| {
        let acknowledges = asked.path == "/poll" && asked.body["ack"] == json!(["e-2"]);
        acknowledges.then(|| (500, String::new()))
    };
    at.state().lie = Some(Box::new(fails));
    end(&at, "e-2", "user-2");
    at.until("the poll that acknowledges", |state| {
        state.asked.iter().any(|asked| asked.body["ack"] == json!(["e-2"])).then_some(())
    });
    edge.gate.kill();
    at.state().lie = Some(Box::new(|asked| (asked.path == "/poll").then(|| (500, String::new()))));
    edge.gate = edge.place.start();
    assert_eq!(status(&edge, "user-2"), 401, "durable before it was acknowledged");
    assert_eq!(status(&edge, "user-3"), 200);
    at.state().lie = None;
    until_acknowledged(&at, "e-2");
    until_alive(&edge, 1);
    assert_eq!(at.count("POST", "/streams"), 1, "the stream of the first start goes on");
    // The output of `check --online`.
    let seen = edge.place.done(&["check", "--online"], "");
    assert!(seen.stdout.contains("stream f67e39a0 is enabled"), "{}{}", seen.stdout, seen.stderr);
    assert!(!at.state().asked.iter().any(|asked| asked.method == "DELETE"), "it changes nothing");

    // Another transmitter, by a reload.
    let other = transmitter();
    let upstream = edge.stub.address.to_string();
    edge.place.write_config(&format!("{durable}{}", polled(&other)).replace("@upstream@", &upstream));
    edge.gate.signal("HUP");
    until_acknowledged(&other, "verification-1");
    end(&other, "e-3", "user-3");
    until_acknowledged(&other, "e-3");
    assert_eq!(status(&edge, "user-3"), 401);
    let before = at.count("POST", "/poll");
    end(&at, "e-4", "user-4");
    end(&other, "e-5", "user-5");
    until_acknowledged(&other, "e-5");
    assert_eq!((at.count("POST", "/poll"), status(&edge, "user-4")), (before, 200), "nobody asks the former one");
}

#[test]
fn s16_s21_a_stream_is_pushed_to_the_endpoint_and_verified_there() {
    let at = transmitter();
    let events =
        format!("events = {{ path = \"/events/idp\", audience = [\"{AUDIENCE}\"], token_file = \"events.token\" }}");
    at.state().verifies = None;
    let edge = Edge::with(&format!("{HEAD}{}", issuer_of(&at, "delivery = \"push\"", &events)), files, |_| {});
    at.state().push_to = Some(edge.gate.address);
    let state = at.until("a request for verification", |state| {
        state.asked.iter().find(|asked| asked.path == "/verify").map(|asked| asked.body["state"].clone())
    });
    let delivery = at.state().stream.clone().unwrap()["delivery"].clone();
    assert_eq!(delivery["endpoint_url"], "http://gate.test/events/idp");
    assert_eq!(delivery["authorization_header"], format!("Bearer {PUSHED_WITH}"));
    let stream = json!({ "format": "opaque", "id": "f67e39a0" });
    at.send("wrong", &stream, &json!({ support::transmitter::VERIFICATION: { "state": "another" } }));
    assert_eq!(at.state().refused["wrong"]["err"], "invalid_state");
    until_alive(&edge, 0);
    at.send("right", &stream, &json!({ support::transmitter::VERIFICATION: { "state": state } }));
    assert_eq!(at.state().acknowledged, ["right"]);
    until_alive(&edge, 1);
    end(&at, "e-1", "user-1");
    assert_eq!(edge.ask_as(&token_of("user-1"), "GET /x", &[]).status, 401);
    assert_eq!(at.count("POST", "/poll"), 0);
}
