//! Ends by other issuers: back-channel logout and security events, against the real binary.

use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims};
use super::long_replies::{begun, is_cut};
use super::{upgrades, websockets};
use support::stub::{Edge, HEAD};
use support::wire::Reply;
use support::{Place, keep_secret};

const TRANSMITTER: &str = "transmitter-token-of-this-test";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/// Two issuers that report ends, and a route for their tokens.
pub(crate) const CONFIG_OF_EVENTS: &str = r#"
[[issuers]]
name = "idp"
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
scopes = ["read"]
backchannel_logout = { path = "/logout/idp", audience = ["our-client"] }
events = { path = "/events/idp", audience = ["https://gate.test/events"], token_file = "events.token" }
[[issuers]]
name = "other"
url = "https://other.test/"
audience = ["api"]
jwks_file = "other.json"
session_claim = ""
backchannel_logout = { path = "/logout/other", audience = ["our-client"] }
[[routes]]
path = "/{*rest}"
issuers = ["self", "idp", "other"]
upstream = "app"
"#;

fn files(place: &Place, idp: &Issuer, other: &Issuer) {
    keep_secret(TRANSMITTER);
    for (file, issuer) in [("idp.json", idp), ("other.json", other)] {
        std::fs::write(place.path(file), json!({ "keys": [issuer.jwk("k1")] }).to_string()).unwrap();
    }
    let path = place.path("events.token");
    std::fs::write(&path, TRANSMITTER).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

struct World {
    edge: Edge,
    idp: Issuer,
    other: Issuer,
}

fn world(config: &str) -> World {
    let (idp, other) = (Issuer::new(11), Issuer::new(12));
    let edge = Edge::with(config, |place| files(place, &idp, &other), |_| {});
    World { edge, idp, other }
}

fn start() -> World {
    world(&format!("{HEAD}{CONFIG_OF_EVENTS}"))
}

fn changed(mut of: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(of.as_object_mut().unwrap().remove(name)),
            value => of[name] = value.clone(),
        }
    }
    of
}

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

/// A good logout token of `sub`, changed.
fn logout(changes: &Value) -> Value {
    let good = json!({
        "iss": URL, "aud": "our-client", "iat": now(), "exp": now() + 120, "jti": "l-1", "sub": "user-1",
        "events": { LOGOUT: {} },
    });
    changed(good, changes)
}

/// A good security event, changed.
fn event(changes: &Value) -> Value {
    let good = json!({
        "iss": URL, "aud": "https://gate.test/events", "iat": now(), "jti": "e-1",
        "sub_id": { "format": "iss_sub", "iss": URL, "sub": "user-1" },
        "events": { REVOKED: { "event_timestamp": now() } },
    });
    changed(good, changes)
}

fn header(typ: Option<&str>) -> Value {
    changed(json!({ "alg": "EdDSA", "kid": "k1" }), &json!({ "typ": typ }))
}

impl World {
    fn log_out(&self, path: &str, token: &str) -> Reply {
        self.edge.form(path, &[], &[("logout_token", token)])
    }

    fn push(&self, token: &str, headers: &[&str]) -> Reply {
        let length = format!("Content-Length: {}", token.len());
        let mut wire = self.edge.wire();
        wire.head("POST /events/idp", &[&["Host: gate.test", &length], headers].concat());
        wire.send(token);
        wire.reply()
    }

    fn pushed(&self, changes: &Value) -> Reply {
        let authorization = format!("Authorization: Bearer {TRANSMITTER}");
        let token = self.idp.sign(&header(Some("secevent+jwt")), &event(changes));
        self.push(&token, &["Content-Type: application/secevent+jwt", &authorization])
    }

    fn status(&self, token: &str) -> u16 {
        let status = self.edge.ask_as(token, "GET /x", &[]).status;
        assert_eq!(self.edge.stub.take().len(), usize::from(status == 200));
        status
    }

    /// A token of an earlier second, so that a logout of this second is later.
    fn token(&self, changes: &Value) -> String {
        self.idp.token(&changed(json!({ "iat": now() - 10 }), changes))
    }
}

#[test]
fn n49_each_rule_of_a_logout_token_refuses_alone() {
    let world = start();
    let token = world.token(&json!({ "sid": "s-1" }));
    assert_eq!(world.status(&token), 200);
    let good = header(Some("logout+jwt"));
    let refused = |header: &Value, changes: Value, issuer: &Issuer| {
        let reply = world.log_out("/logout/idp", &issuer.sign(header, &logout(&changes)));
        assert_eq!((reply.status, reply.json()), (400, json!({ "error": "invalid_request" })), "{header} {changes}");
        assert_eq!(reply.header("cache-control"), "no-store");
    };
    for changes in [
        json!({ "iss": "https://other.test/" }),
        json!({ "iss": null }),
        json!({ "aud": "api" }),
        json!({ "aud": ["x"] }),
        json!({ "aud": null }),
        json!({ "iat": now() + 600 }),
        json!({ "iat": now() - 600 }),
        json!({ "iat": now().to_string() }),
        json!({ "iat": null }),
        json!({ "exp": now() - 60 }),
        json!({ "exp": "soon" }),
        json!({ "events": null }),
        json!({ "events": [LOGOUT] }),
        json!({ "events": { LOGOUT: true } }),
        json!({ "events": { "http://schemas.openid.net/event/other": {} } }),
        json!({ "sub": null }),
        json!({ "sub": 1 }),
        json!({ "sub": "user-1", "sid": 5 }),
        json!({ "nonce": "n" }),
        json!({ "nonce": null, "jti": null }),
    ] {
        refused(&good, changes, &world.idp);
    }
    refused(&good, json!({}), &world.other);
    for typ in ["at+jwt", "secevent+jwt", "identity+jwt"] {
        refused(&header(Some(typ)), json!({}), &world.idp);
    }
    refused(&changed(good.clone(), &json!({ "kid": "k2" })), json!({}), &world.idp);
    refused(&changed(good.clone(), &json!({ "alg": "none" })), json!({}), &world.idp);
    // An access token is no logout token.
    assert_eq!(world.log_out("/logout/idp", &world.token(&json!({ "aud": "our-client" }))).status, 400);
    assert_eq!(world.edge.form("/logout/idp", &[], &[("token", "x")]).status, 400);
    assert_eq!(world.edge.ask("GET /logout/idp", &[]).status, 405);
    assert_eq!(world.status(&token), 200, "nothing of this ended anything");

    let reply = world.log_out("/logout/idp", &world.idp.sign(&good, &logout(&json!({}))));
    assert_eq!((reply.status, reply.text().as_str(), reply.header("cache-control")), (200, "", "no-store"));
    assert_eq!(world.status(&token), 401, "refused at the next request");
    // Older providers: no exp, no typ, or JWT; and a session alone.
    for typ in [None, Some("JWT"), Some("logout+jwt")] {
        let said = logout(&json!({ "exp": null, "sub": null, "sid": "s-1" }));
        assert_eq!(world.log_out("/logout/idp", &world.idp.sign(&header(typ), &said)).status, 200);
    }
}

#[test]
fn n50_n53_n54_a_session_a_subject_and_nobody_elses() {
    let world = start();
    let out = |path: &str, issuer: &Issuer, changes: Value| {
        world.log_out(path, &issuer.sign(&header(Some("logout+jwt")), &logout(&changes))).status
    };
    let session = |sid: &str| world.token(&json!({ "sid": sid, "jti": format!("t-{sid}") }));
    let (one, two) = (session("s-1"), session("s-2"));
    let bob = world.token(&json!({ "sub": "bob", "sid": "s-3", "jti": "t-bob" }));
    let theirs = |changes: Value| {
        world.other.token(&changed(json!({ "iss": "https://other.test/", "iat": now() - 10 }), &changes))
    };
    let other = theirs(json!({ "sid": "s-1" }));
    let own = world.edge.login().access;
    let all = |wanted: [u16; 5]| {
        let got = [&one, &two, &bob, &other, &own].map(|token| world.status(token));
        assert_eq!(got, wanted);
    };
    all([200; 5]);
    // With both, only the session ends.
    assert_eq!(out("/logout/idp", &world.idp, json!({ "sid": "s-1" })), 200);
    all([401, 200, 200, 200, 200]);
    // A repeated notice has no further effect.
    assert_eq!(out("/logout/idp", &world.idp, json!({ "sid": "s-1" })), 200);
    assert_eq!(out("/logout/idp", &world.idp, json!({ "sid": "s-3", "sub": null })), 200);
    all([401, 200, 401, 200, 200]);
    assert_eq!(out("/logout/idp", &world.idp, json!({})), 200);
    all([401, 401, 401, 200, 200]);
    // A token that the gate first sees after the event, issued before it, and a token of a later login.
    assert_eq!(world.status(&world.token(&json!({ "jti": "unseen" }))), 401);
    assert_eq!(world.status(&world.idp.token(&json!({ "jti": "later", "iat": now() + 5 }))), 200);
    // An issuer without sid in its tokens: the subject falls back, sid alone is refused and ends nothing.
    let iss = "https://other.test/";
    assert_eq!(out("/logout/other", &world.other, json!({ "iss": iss, "sub": null, "sid": "s-1" })), 400);
    assert_eq!(world.status(&other), 200);
    assert!(world.edge.gate.log().contains("`session_claim` says that the tokens have no session"));
    assert_eq!(out("/logout/other", &world.other, json!({ "iss": iss, "sid": "s-1" })), 200);
    assert_eq!(world.status(&other), 401);
    assert_eq!(world.status(&own), 200, "our own users are ours");
}

#[test]
fn n51_n52_what_was_acknowledged_survives_kill_9_and_ends_no_later_login() {
    let config = format!("{HEAD}{CONFIG_OF_EVENTS}").replace("[store]\nkind = \"memory\"\n", "");
    let mut world = world(&config);
    let before = world.token(&json!({ "sid": "s-1" }));
    let of_subject = world.token(&json!({ "sub": "carol", "jti": "t-2" }));
    assert_eq!((world.status(&before), world.status(&of_subject)), (200, 200));
    let told = world.idp.sign(&header(Some("logout+jwt")), &logout(&json!({ "sid": "s-1", "iat": now() - 5 })));
    // Each end is the last action of a killed process.
    assert_eq!(world.log_out("/logout/idp", &told).status, 200);
    world.edge.gate.kill();
    world.edge.gate = world.edge.place.start();
    assert_eq!((world.status(&before), world.status(&of_subject)), (401, 200), "an acknowledged logout was lost");
    let subject = json!({ "sub_id": { "format": "iss_sub", "iss": URL, "sub": "carol" } });
    assert_eq!(world.pushed(&subject).status, 202);
    world.edge.gate.kill();
    world.edge.gate = world.edge.place.start();
    assert_eq!((world.status(&before), world.status(&of_subject)), (401, 401), "an acknowledged event was lost");
    // The same notice again, after a later login in the same session.
    let later = world.idp.token(&json!({ "sid": "s-1", "jti": "t-3", "iat": now() - 2 }));
    assert_eq!(world.status(&later), 200);
    for _ in 0..3 {
        assert_eq!(world.log_out("/logout/idp", &told).status, 200);
        assert_eq!(world.status(&later), 200, "a notice that came again ended a later login");
    }
}

#[test]
fn n66_a_notice_of_a_session_ends_the_tokens_of_its_subject_that_name_none() {
    let world = start();
    let session = |sid: Value| world.token(&json!({ "sid": sid, "jti": format!("t-{sid}") }));
    let (one, two, none) = (session(json!("s-1")), session(json!("s-2")), session(Value::Null));
    let bob = world.token(&json!({ "sub": "bob", "jti": "t-bob" }));
    let all = |wanted: [u16; 4]| assert_eq!([&one, &two, &none, &bob].map(|token| world.status(token)), wanted);
    all([200; 4]);
    let logout = logout(&json!({ "sid": "s-1" }));
    assert_eq!(world.log_out("/logout/idp", &world.idp.sign(&header(Some("logout+jwt")), &logout)).status, 200);
    // The other session of the user and the sessions of other users go on.
    all([401, 200, 401, 200]);
    assert_eq!(world.status(&world.token(&json!({ "jti": "unseen" }))), 401);
    assert_eq!(world.status(&world.token(&json!({ "jti": "odd", "sid": 7 }))), 401, "which names no session either");
    assert_eq!(world.status(&world.idp.token(&json!({ "jti": "later", "iat": now() + 5 }))), 200);
    // The same end by an event.
    let event = json!({ "sub_id": {
        "format": "complex",
        "session": { "format": "opaque", "id": "s-3" },
        "user": { "format": "iss_sub", "iss": URL, "sub": "bob" },
    } });
    assert_eq!(world.pushed(&event).status, 202);
    all([401, 200, 401, 401]);
}

#[test]
fn n66_n73_a_session_alone_that_no_token_named_is_an_error_and_its_tokens_are_refused() {
    let world = start();
    let out = |sid: &str| {
        let logout = logout(&json!({ "sid": sid, "sub": null }));
        world.log_out("/logout/idp", &world.idp.sign(&header(Some("logout+jwt")), &logout)).status
    };
    let named = |sid: &str| world.token(&json!({ "sid": sid, "jti": format!("t-{sid}") }));
    let event = json!({ "sub_id": { "format": "complex", "session": { "format": "opaque", "id": "s-1" } } });
    // Before any token, with tokens that name no session, and with a token that names another session.
    assert_eq!((out("s-0"), world.pushed(&event).status), (400, 400));
    let log = world.edge.gate.log();
    let line = log
        .lines()
        .find(|line| line.contains("no accepted token of this issuer has named that session"))
        .expect("a line");
    assert!(line.contains("ERROR") && line.contains("idp") && line.contains("session_claim"), "{line}");
    let none = world.token(&json!({ "jti": "t-none" }));
    assert_eq!((world.status(&none), out("s-0"), world.pushed(&event).status), (200, 400, 400));
    let (two, three) = (named("s-2"), named("s-3"));
    assert_eq!((world.status(&two), out("s-0"), world.pushed(&event).status), (200, 400, 400));
    assert_eq!([world.status(&none), world.status(&two)], [200, 200], "nothing said whose session it was");
    // Once a notice has named the session of a token, the claim is known to be right, and an unknown session may never
    // have been at this gate.
    assert_eq!((out("s-2"), out("never-here"), world.pushed(&event).status), (200, 200, 202));
    assert_eq!([world.status(&two), world.status(&three), world.status(&none)], [401, 200, 200]);
    // The end holds although the answer was 400.
    assert_eq!([world.status(&named("s-0")), world.status(&named("s-1"))], [401, 401]);
}

#[test]
fn n72_a_session_that_no_token_named_ends_all_tokens_of_its_subject_and_nobody_elses() {
    // The tokens have their session in another claim than the configuration says.
    let config = format!("{HEAD}{CONFIG_OF_EVENTS}").replacen("scopes", "session_claim = \"session\"\nscopes", 1);
    let world = world(&config);
    let token = |sub: &str, n: u8| {
        let claims =
            json!({ "sub": sub, "sid": format!("s-{n}"), "session": format!("x-{n}"), "jti": format!("t-{n}") });
        world.token(&claims)
    };
    let (one, two, bob) = (token("user-1", 1), token("user-1", 2), token("bob", 3));
    let all = |wanted: [u16; 3]| assert_eq!([&one, &two, &bob].map(|token| world.status(token)), wanted);
    all([200; 3]);
    let logout = logout(&json!({ "sid": "s-1" }));
    assert_eq!(world.log_out("/logout/idp", &world.idp.sign(&header(Some("logout+jwt")), &logout)).status, 200);
    all([401, 401, 200]);
    assert_eq!(world.status(&world.token(&json!({ "session": "x-9", "jti": "unseen" }))), 401, "first seen afterwards");
    assert_eq!(world.status(&world.idp.token(&json!({ "session": "x-1", "jti": "later", "iat": now() + 5 }))), 200);
    let log = world.edge.gate.log();
    let line = log.lines().find(|line| line.contains("all tokens of its subject end")).expect("a line");
    assert!(line.contains("WARN") && line.contains("session_claim"), "{line}");
    // The same end by an event.
    let event = json!({ "sub_id": {
        "format": "complex",
        "session": { "format": "opaque", "id": "s-3" },
        "user": { "format": "iss_sub", "iss": URL, "sub": "bob" },
    } });
    assert_eq!(world.pushed(&event).status, 202);
    all([401, 401, 401]);
}

#[test]
fn n49_n50_n55_security_events_and_their_words() {
    let world = start();
    let token = |changes: Value| world.token(&changes);
    let (by_subject, by_session) = (token(json!({})), token(json!({ "sub": "bob", "sid": "s-9", "jti": "t-b" })));
    let (by_both, by_jti) =
        (token(json!({ "sub": "eve", "sid": "s-8", "jti": "t-e" })), token(json!({ "sub": "kim", "jti": "t-kim" })));
    let all = [&by_subject, &by_session, &by_both, &by_jti];
    assert_eq!(all.map(|token| world.status(token)), [200; 4]);
    let refused = |reply: Reply, word: &str| {
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(reply.json()["err"], word, "{reply:?}");
        assert!(reply.json()["description"].as_str().is_some_and(|text| !text.is_empty()));
    };
    for (changes, word) in [
        (json!({ "iss": "https://other.test/" }), "invalid_issuer"),
        (json!({ "aud": "our-client" }), "invalid_audience"),
        (json!({ "iat": null }), "invalid_request"),
        (json!({ "iat": now() + 600 }), "invalid_request"),
        (json!({ "jti": null }), "invalid_request"),
        (json!({ "events": {} }), "invalid_request"),
        (json!({ "events": { REVOKED: {}, VERIFICATION: {} } }), "invalid_request"),
        (json!({ "sub_id": null }), "invalid_request"),
        (json!({ "sub_id": { "format": "iss_sub", "iss": "https://other.test/", "sub": "user-1" } }), "invalid_issuer"),
        (json!({ "sub_id": { "format": "complex" } }), "invalid_request"),
        (json!({ "sub_id": { "format": "jwt_id", "iss": "https://x.test", "jti": "t-kim" } }), "invalid_issuer"),
    ] {
        refused(world.pushed(&changes), word);
    }
    let authorization = format!("Authorization: Bearer {TRANSMITTER}");
    let media = "Content-Type: application/secevent+jwt";
    let good = world.idp.sign(&header(Some("secevent+jwt")), &event(&json!({})));
    refused(world.push(&good, &[media]), "authentication_failed");
    refused(world.push(&good, &[media, "Authorization: Bearer transmitter-token-of-another"]), "authentication_failed");
    refused(world.push(&good, &["Content-Type: application/jwt", &authorization]), "invalid_request");
    let forged = world.other.sign(&header(Some("secevent+jwt")), &event(&json!({})));
    refused(world.push(&forged, &[media, &authorization]), "invalid_key");
    let typed = world.idp.sign(&header(Some("JWT")), &event(&json!({})));
    refused(world.push(&typed, &[media, &authorization]), "invalid_request");
    // Other events are logged, and end nothing.
    let verification = json!({ "events": { VERIFICATION: { "state": "state-of-this-test" } } });
    assert_eq!(world.pushed(&verification).status, 202);
    assert!(world.edge.gate.log().contains("state-of-this-test"));
    assert_eq!(all.map(|token| world.status(token)), [200; 4]);

    let reply = world.pushed(&json!({}));
    assert_eq!((reply.status, reply.text().as_str()), (202, ""));
    assert_eq!(all.map(|token| world.status(token)), [401, 200, 200, 200]);
    let session = |id: &str| json!({ "format": "opaque", "id": id });
    assert_eq!(world.pushed(&json!({ "sub_id": { "format": "complex", "session": session("s-9") } })).status, 202);
    let user = json!({ "format": "iss_sub", "iss": URL, "sub": "eve" });
    let both = json!({ "format": "complex", "session": session("s-8"), "user": user });
    assert_eq!(world.pushed(&json!({ "sub_id": both })).status, 202);
    assert_eq!(world.status(&token(json!({ "sub": "eve", "jti": "t-e2", "sid": "s-7" }))), 200, "both: the session");
    assert_eq!(world.pushed(&json!({ "sub_id": { "format": "jwt_id", "iss": URL, "jti": "t-kim" } })).status, 202);
    assert_eq!(all.map(|token| world.status(token)), [401; 4]);
}

#[test]
fn n56_notices_are_bounded_in_size_and_by_address() {
    let limits = "[limits]\nfor_tests.forged_per_address = \"5/1h\"\n";
    let world = world(&format!("{}{CONFIG_OF_EVENTS}", HEAD.replacen("[store]", &format!("{limits}[store]"), 1)));
    let long = "x".repeat(33 * 1024);
    assert_eq!(world.log_out("/logout/idp", &long).status, 413);
    let forged = world.other.sign(&header(Some("logout+jwt")), &logout(&json!({})));
    let statuses: Vec<_> = (0..8).map(|_| world.log_out("/logout/idp", &forged).status).collect();
    assert_eq!(statuses[..5], [400; 5]);
    assert_eq!(*statuses.last().unwrap(), 429, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n54_the_streams_of_what_another_issuer_ended_are_cut_and_those_of_others_go_on() {
    let world = start();
    let (ended, other) = (world.token(&json!({ "sid": "s-1" })), world.token(&json!({ "sid": "s-2", "jti": "t-2" })));
    let cut = begun(&world.edge, "/events/parts", &ended);
    let told = world.idp.sign(&header(Some("logout+jwt")), &logout(&json!({ "sid": "s-1" })));
    assert_eq!(world.log_out("/logout/idp", &told).status, 200);
    is_cut(cut);
    world.edge.stub.push(b"");
    let mut stays = begun(&world.edge, "/events/parts", &other);
    assert_eq!(world.log_out("/logout/idp", &told).status, 200);
    assert_eq!(world.pushed(&json!({ "sub_id": { "format": "iss_sub", "iss": URL, "sub": "nobody" } })).status, 202);
    world.edge.stub.push(b"second");
    assert_eq!(stays.chunk(), b"second");
    assert_eq!(world.pushed(&json!({})).status, 202);
    is_cut(stays);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n54_both_sides_of_a_websocket_hear_that_another_issuer_ended_its_session() {
    let (idp, other) = (Issuer::new(11), Issuer::new(12));
    let (port, sockets) = websockets::upstream();
    let open = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/ws\"\nissuers = [\"idp\"]\nupgrade = true\nupstream = \"ws\"\n"
    );
    let place = Place::new(&format!("{HEAD}{CONFIG_OF_EVENTS}{open}").replace("@upstream@", "127.0.0.1:9"));
    files(&place, &idp, &other);
    let gate = place.start();
    let token = idp.token(&json!({ "iat": now() - 10, "sid": "s-1" }));
    let mut ends = websockets::sides(websockets::open(&gate, &sockets, &token));
    websockets::talk(&mut ends);
    let told = idp.sign(&header(Some("logout+jwt")), &logout(&json!({ "sid": "s-1" })));
    assert_eq!(gate.form("/logout/idp", &[("logout_token", &told)]).await.status, 200);
    assert_eq!(websockets::both_closed(&mut ends), (1008, 1008));
    let authorization = format!("authorization: Bearer {token}");
    let (answer, _) = upgrades::ask_with(&gate, "/ws", "WebSocket", &authorization, "");
    assert!(upgrades::is(&answer, 401), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n51_n55_notices_are_counted_and_a_refused_one_is_in_the_audit_log() {
    let world = start();
    let good = world.idp.sign(&header(Some("logout+jwt")), &logout(&json!({})));
    let forged = world.other.sign(&header(Some("logout+jwt")), &logout(&json!({})));
    for (token, status) in [(&good, 200), (&good, 200), (&forged, 400)] {
        assert_eq!(world.log_out("/logout/idp", token).status, status);
    }
    assert_eq!(world.edge.form("/logout/idp", &[], &[("token", "x")]).status, 400);
    assert_eq!(world.pushed(&json!({ "events": { VERIFICATION: { "state": "s" } } })).status, 202);
    assert_eq!(world.pushed(&json!({ "aud": "somebody" })).status, 400);
    let count = async |protocol: &str, result: &str| {
        let labels = format!("issuer=\"idp\",protocol=\"{protocol}\",result=\"{result}\"");
        world.edge.gate.metric(&format!("rotogate_issuer_notices_total{{{labels}}}")).await
    };
    assert_eq!((count("logout", "unseen").await, count("logout", "invalid_key").await), (2, 1));
    assert_eq!((count("logout", "invalid_request").await, count("events", "noted").await), (1, 1));
    assert_eq!(count("events", "invalid_audience").await, 1);
    assert_eq!(world.edge.gate.metric("rotogate_issuer_notice_age_seconds_count").await, 2);
    let log = world.edge.gate.log();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("issuer.notice_refused")).collect();
    assert_eq!(refused.len(), 3, "{log}");
    assert!(
        refused[0].contains("it was not signed with a key of the issuer") && refused[0].contains("RG1202W"),
        "{}",
        refused[0]
    );
    assert!(refused[1].contains("logout_token is missing") && refused[2].contains("invalid_audience"), "{refused:?}");
    assert!(!log.contains(&forged) && !log.contains(&good), "A6");
}

/// The provider's keys cannot be fetched: nothing was decided, and the sender does not count as a forger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n49_n51_without_keys_a_notice_is_undecided_and_counts_against_nobody() {
    let limits = "[limits]\nfor_tests.forged_per_address = \"2/1h\"\n";
    let config = format!("{}{CONFIG_OF_EVENTS}", HEAD.replacen("[store]", &format!("{limits}[store]"), 1));
    let config = config.replacen("jwks_file = \"idp.json\"", "jwks_url = \"http://127.0.0.1:9/keys\"", 1);
    let world = world(&config);
    let told = world.idp.sign(&header(Some("logout+jwt")), &logout(&json!({})));
    for _ in 0..6 {
        let reply = world.log_out("/logout/idp", &told);
        assert_eq!((reply.status, reply.header("cache-control")), (503, "no-store"));
        assert!(!reply.all("retry-after").is_empty());
        let set = world.idp.sign(&header(Some("secevent+jwt")), &event(&json!({})));
        let authorization = format!("Authorization: Bearer {TRANSMITTER}");
        assert_eq!(world.push(&set, &["Content-Type: application/secevent+jwt", &authorization]).status, 503);
    }
    let series = |protocol: &str| {
        format!("rotogate_issuer_notices_total{{issuer=\"idp\",protocol=\"{protocol}\",result=\"unavailable\"}}")
    };
    for protocol in ["logout", "events"] {
        assert_eq!(world.edge.gate.metric(&series(protocol)).await, 6);
    }
    assert!(!world.edge.gate.log().contains("notice_refused"), "nothing was refused");
    // A refused notice counts.
    assert_eq!(world.log_out("/logout/other", "no token").status, 400);
}
