//! The J rules on the wire, with other issuers' tokens, and the demands of a route on a token.

use serde_json::{Value, json};

use super::issuer::{Issuer, URL, claims, header};
use support::stub::{Edge, HEAD};

const ROUTES: &str = r#"
[[issuers]]
url = "https://idp.test/"
audience = ["api"]
jwks_file = "idp.json"
everywhere = true
scopes = "any"
[[issuers]]
url = "https://pem.test/"
audience = ["pem-api"]
jwks_file = "pem.pem"
algorithm = "EdDSA"
typ = ["JWT"]
max_lifetime = "1h"
everywhere = true
[[routes]]
path = "/admin/{*rest}"
scopes = ["admin", "write"]
upstream = "app"
[[routes]]
path = "/reports/{*rest}"
audiences = ["reports", "all"]
upstream = "app"
[[routes]]
path = "/both/{*rest}"
audiences = ["reports"]
scopes = ["admin"]
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

pub(crate) struct World {
    pub(crate) edge: Edge,
    pub(crate) idp: Issuer,
    pem: Issuer,
}

pub(crate) fn world() -> World {
    let (idp, pem) = (Issuer::new(1), Issuer::new(2));
    let jwks = json!({ "keys": [idp.jwk("k1"), Issuer::new(3).jwk("k2")] }).to_string();
    let pem_text = pem.pem();
    let edge = Edge::with(
        &format!("{HEAD}{ROUTES}"),
        |place| {
            std::fs::write(place.path("idp.json"), jwks).unwrap();
            std::fs::write(place.path("pem.pem"), pem_text).unwrap();
        },
        |_| {},
    );
    World { edge, idp, pem }
}

impl World {
    pub(crate) fn status(&self, token: &str, path: &str) -> u16 {
        self.edge.ask_as(token, &format!("GET {path}"), &[]).status
    }

    /// Refused with the common answer for bad tokens, and no request arrived.
    pub(crate) fn refuses(&self, token: &str, what: &str) {
        let reply = self.edge.ask_as(token, "GET /x", &[]);
        assert_eq!(reply.status, 401, "{what}");
        let challenge = reply.header("www-authenticate");
        let expected = [
            r#"Bearer error="invalid_token", error_description="the access token is invalid""#,
            r#"Bearer error="invalid_token", error_description="the access token expired""#,
        ];
        assert!(expected.contains(&challenge), "{what}: {challenge}");
        assert!(self.edge.stub.take().is_empty(), "{what}");
    }
}

#[test]
fn j6_j8_a_token_of_another_issuer_is_good_where_its_rules_say_so() {
    let world = world();
    assert_eq!(world.status(&world.idp.token(&json!({})), "/x"), 200);
    let received = world.edge.stub.one();
    assert_eq!(received.all("x-auth-subject"), ["user-1"]);
    assert_eq!(received.all("x-auth-client"), ["their-client"]);
    assert_eq!(received.all("x-auth-scope"), ["read write"]);
    assert_eq!(received.all("x-auth-issuer"), ["https://idp.test/"]);
    assert_eq!(received.all("x-auth-session"), Vec::<&str>::new(), "a session is ours or none");
    for typ in ["AT+JWT", "application/at+jwt"] {
        let header = json!({ "alg": "EdDSA", "typ": typ, "kid": "k1" });
        assert_eq!(world.status(&world.idp.sign(&header, &claims(&json!({}))), "/x"), 200, "{typ}");
    }
    // A single key without a name is used whatever `kid` the token has.
    let theirs = claims(&json!({ "iss": "https://pem.test/", "aud": ["other", "pem-api"] }));
    for header in [json!({ "alg": "EdDSA", "typ": "JWT" }), json!({ "alg": "EdDSA", "typ": "JWT", "kid": "any" })] {
        assert_eq!(world.status(&world.pem.sign(&header, &theirs), "/x"), 200, "{header}");
    }
    world.edge.stub.take();
    // The issuers' session and account claims are not those of the gate.
    let posing =
        world.idp.token(&json!({ "sid": "0190a0a0-0000-7000-8000-000000000000", "gen": 1, "account": "acme" }));
    assert_eq!(world.status(&posing, "/x"), 200);
    let received = world.edge.stub.one();
    assert_eq!((received.all("x-auth-session").len(), received.all("x-auth-account").len()), (0, 0));
}

#[test]
fn j1_j3_j4_j5_j6_a_header_that_is_not_exactly_right_is_refused() {
    let world = world();
    let with = |changes: &Value| {
        let mut header = header();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(header.as_object_mut().unwrap().remove(name)),
                value => header[name] = value.clone(),
            }
        }
        world.idp.sign(&header, &claims(&json!({})))
    };
    assert_eq!(world.status(&with(&json!({})), "/x"), 200);
    world.edge.stub.take();
    for changes in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "" }),
        json!({ "alg": null }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "eddsa" }),
        json!({ "alg": ["EdDSA"] }),
        json!({ "kid": "unknown" }),
        json!({ "kid": "k2" }),
        json!({ "kid": "K1" }),
        json!({ "kid": "../../k1" }),
        json!({ "kid": "k1' OR '1'='1" }),
        json!({ "kid": "" }),
        json!({ "kid": 1 }),
        json!({ "kid": "k".repeat(200) }),
        json!({ "typ": "JWT" }),
        json!({ "typ": "rt+jwt" }),
        json!({ "typ": "id+jwt" }),
        json!({ "typ": "at+jwtx" }),
        json!({ "typ": null }),
        json!({ "typ": 1 }),
        json!({ "crit": [] }),
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "b64": false }),
        json!({ "zip": "DEF" }),
        json!({ "jwk": Issuer::new(9).jwk("k1") }),
    ] {
        world.refuses(&with(&changes), &changes.to_string());
    }
    let good = world.idp.token(&json!({}));
    let [head, body, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    for (what, token) in [
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.x")),
        ("five parts", format!("{good}.x.y")),
        ("padded", format!("{good}==")),
        ("cut", good[..good.len() - 2].to_owned()),
        (
            "another's signature",
            format!("{head}.{body}.{}", Issuer::new(3).token(&json!({})).rsplit('.').next().unwrap()),
        ),
        ("another's key of the same name", Issuer::new(3).token(&json!({}))),
        ("the other issuer's key", world.pem.token(&json!({}))),
        ("another body", format!("{head}.{}.{signature}", body.replace(|c: char| c.is_ascii_digit(), "A"))),
        ("larger than 24 KiB", world.idp.token(&json!({ "pad": "x".repeat(19_000) }))),
    ] {
        world.refuses(&token, what);
    }
}

#[test]
fn j7_j8_j9_r14_claims_that_are_not_exactly_right_are_refused() {
    let world = world();
    let now = claims(&json!({}))["iat"].as_u64().unwrap();
    for changes in [
        json!({ "iss": "https://idp.test" }),
        json!({ "iss": "https://IDP.test/" }),
        json!({ "iss": "https://pem.test/" }),
        json!({ "iss": "http://gate.test" }),
        json!({ "iss": null }),
        json!({ "iss": ["https://idp.test/"] }),
        json!({ "aud": "API" }),
        json!({ "aud": "api2" }),
        json!({ "aud": "ap" }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "aud": [["api"]] }),
        json!({ "aud": { "api": true } }),
        json!({ "aud": ["x", 1, "api"] }),
        json!({ "aud": "pem-api" }),
        json!({ "exp": null }),
        json!({ "exp": now - 60 }),
        json!({ "exp": (now + 600).to_string() }),
        json!({ "exp": -1 }),
        json!({ "exp": 1e300 }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": [now + 600] }),
        json!({ "exp": now + 100 * 86_400 }),
        json!({ "nbf": now + 120 }),
        json!({ "nbf": "0" }),
        json!({ "iat": now + 120, "exp": now + 240 }),
        json!({ "iat": null }),
        json!({ "sub": null }),
        json!({ "sub": 1 }),
        json!({ "sub": "x".repeat(257) }),
        json!({ "jti": 1 }),
        json!({ "jti": "a\nb" }),
        json!({ "client_id": ["a"] }),
        json!({ "scope": [["read"]] }),
        json!({ "scope": ["read write"] }),
        json!({ "cnf": { "jkt": "x" } }),
    ] {
        world.refuses(&world.idp.token(&changes), &changes.to_string());
    }
    // The bound of the second issuer is its own.
    let long = |seconds: u64| {
        let claims = claims(&json!({ "iss": "https://pem.test/", "aud": "pem-api", "exp": now + seconds, "iat": now }));
        world.pem.sign(&json!({ "alg": "EdDSA", "typ": "JWT" }), &claims)
    };
    assert_eq!(world.status(&long(3600), "/x"), 200);
    world.edge.stub.take();
    world.refuses(&long(3700), "longer than max_lifetime");
}

/// Paths, and the status that each gives.
type Asked = &'static [(&'static str, u16)];

#[test]
fn j8_what_a_route_asks_is_judged_on_every_request() {
    let world = world();
    let token = |changes: Value| world.idp.token(&changes);
    let plain = token(json!({}));
    let admin = token(json!({ "scope": "admin read write" }));
    let half = token(json!({ "scope": "admin" }));
    let near = token(json!({ "scope": "administrator admin.write write:all Admin WRITE" }));
    let none = token(json!({ "scope": null }));
    let reports = token(json!({ "aud": "reports" }));
    let all = token(json!({ "aud": ["x", "all"] }));
    let several = token(json!({ "aud": ["api", "reports"], "scope": "admin" }));
    let table: [(&str, &str, Asked); 8] = [
        ("plain", &plain, &[("/x", 200), ("/admin/x", 403), ("/reports/x", 401), ("/both/x", 401)]),
        ("admin", &admin, &[("/x", 200), ("/admin/x", 200), ("/reports/x", 401), ("/both/x", 401)]),
        ("half", &half, &[("/admin/x", 403)]),
        ("near", &near, &[("/admin/x", 403)]),
        ("none", &none, &[("/x", 200), ("/admin/x", 403)]),
        ("reports", &reports, &[("/x", 401), ("/admin/x", 401), ("/reports/x", 200), ("/both/x", 403)]),
        ("all", &all, &[("/x", 401), ("/reports/x", 200), ("/both/x", 401)]),
        ("several", &several, &[("/x", 200), ("/reports/x", 200), ("/both/x", 200), ("/admin/x", 403)]),
    ];
    // Twice, the second time from the cache, and in another order.
    for round in 0..2 {
        for (name, token, asked) in table {
            for (path, expected) in asked {
                let reply = world.edge.ask_as(token, &format!("GET {path}"), &[]);
                assert_eq!(reply.status, *expected, "{name} {path} {round}");
                assert_eq!(world.edge.stub.take().len(), usize::from(*expected == 200), "{name} {path}");
                match expected {
                    401 => assert!(reply.header("www-authenticate").contains(r#"error="invalid_token""#)),
                    403 => {
                        let scope = if path.starts_with("/both") { "admin" } else { "admin write" };
                        let expected = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
                        assert_eq!(reply.header("www-authenticate"), expected);
                    }
                    _ => {}
                }
            }
        }
    }
    // RFC 6750 §3.1: without a credential there is nothing wrong with one.
    for path in ["/x", "/admin/x", "/reports/x"] {
        assert_eq!(world.edge.ask(&format!("GET {path}"), &[]).header("www-authenticate"), "Bearer", "{path}");
    }
    // Our own tokens, on routes that ask another audience.
    let own = world.edge.login().access;
    assert_eq!([world.status(&own, "/x"), world.status(&own, "/reports/x")], [200, 401]);
}

#[test]
fn j16_a_key_that_is_gone_from_the_file_is_refused_and_a_new_one_is_taken() {
    let world = world();
    let (old, new) = (world.idp.token(&json!({})), Issuer::new(4));
    let fresh = new.sign(&json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k4" }), &claims(&json!({})));
    assert_eq!([world.status(&old, "/x"), world.status(&fresh, "/x")], [200, 401]);
    let jwks = json!({ "keys": [new.jwk("k4")] }).to_string();
    std::fs::write(world.edge.place.path("idp.next"), jwks).unwrap();
    std::fs::rename(world.edge.place.path("idp.next"), world.edge.place.path("idp.json")).unwrap();
    // The gate notices the change within about a second; this test does not measure the time.
    while world.status(&fresh, "/x") != 200 {
        std::thread::yield_now();
    }
    assert_eq!(world.status(&old, "/x"), 401, "from the cache, too");
    assert_eq!(URL, "https://idp.test/");
}

/// Replaces a file by another atomically, and keeps the old one's modification time.
fn put(world: &World, name: &str, text: &str) {
    let path = world.edge.place.path(name);
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let next = world.edge.place.path("next");
    std::fs::write(&next, text).unwrap();
    std::fs::File::options().write(true).open(&next).unwrap().set_modified(time).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// Waits until a token is refused.
fn until_refused(world: &World, token: &str) {
    while world.status(token, "/x") != 401 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn of_pem(issuer: &Issuer) -> String {
    let theirs = claims(&json!({ "iss": "https://pem.test/", "aud": "pem-api" }));
    issuer.sign(&json!({ "alg": "EdDSA", "typ": "JWT" }), &theirs)
}

#[test]
fn j21_a_key_is_taken_out_though_another_issuers_file_is_broken_and_though_size_and_time_are_the_same() {
    let world = world();
    let (of_idp, of_pem_old) = (world.idp.token(&json!({})), of_pem(&world.pem));
    assert_eq!([world.status(&of_idp, "/x"), world.status(&of_pem_old, "/x")], [200, 200]);
    // Another key under the name of the old one, beside a file that is broken.
    put(&world, "pem.pem", "broken");
    put(&world, "idp.json", &json!({ "keys": [Issuer::new(7).jwk("k1"), Issuer::new(3).jwk("k2")] }).to_string());
    until_refused(&world, &of_idp);
    assert_eq!(world.status(&Issuer::new(7).token(&json!({})), "/x"), 200);
    assert_eq!(world.status(&of_pem_old, "/x"), 200, "what is broken keeps its own old set");
    // A file of the same length and modification time.
    put(&world, "pem.pem", &Issuer::new(8).pem());
    until_refused(&world, &of_pem_old);
    assert_eq!(world.status(&of_pem(&Issuer::new(8)), "/x"), 200);
}

#[test]
fn j21_a_stream_ends_with_the_key_of_its_token_though_another_has_its_name_or_neither_has_one() {
    for (token, file, text) in [
        (Issuer::new(1).token(&json!({})), "idp.json", json!({ "keys": [Issuer::new(7).jwk("k1")] }).to_string()),
        (of_pem(&Issuer::new(2)), "pem.pem", Issuer::new(8).pem()),
    ] {
        let world = world();
        let stream = super::long_replies::begun(&world.edge, "/events/parts", &token);
        put(&world, file, &text);
        super::long_replies::is_cut(stream);
        assert_eq!(world.status(&token, "/x"), 401);
        world.edge.stub.push(b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j22_the_same_keys_in_other_words_and_files_that_are_broken_empty_no_cache() {
    let world = world();
    let token = world.idp.token(&json!({}));
    assert_eq!(world.status(&token, "/x"), 200);
    let kept = world.edge.gate.metric("rotogate_verified_tokens").await;
    assert!(kept > 0);
    put(&world, "pem.pem", "broken");
    let keys = json!({ "keys": [Issuer::new(3).jwk("k2"), world.idp.jwk("k1")], "more": [] });
    put(&world, "idp.json", &serde_json::to_string_pretty(&keys).unwrap());
    let again = "issuer keys reloaded";
    support::until("they are read", async || world.edge.gate.log().contains(again)).await;
    for n in 0..20 {
        std::fs::write(world.edge.place.path(&format!("other-{n}")), "x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(world.edge.gate.metric("rotogate_verified_tokens").await, kept);
    let log = world.edge.gate.log();
    assert_eq!(log.matches("cannot be used").count(), 1, "what is broken is told once: {log}");
    assert_eq!(log.matches(again).count(), 1, "{log}");
    put(&world, "pem.pem", "broken otherwise");
    support::until("the log reports both", async || world.edge.gate.log().matches("cannot be used").count() == 2).await;
}
