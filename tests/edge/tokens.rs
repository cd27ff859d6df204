//! The form of a token, its signature, and what the cache may not forget: J2, J10 to J15, A5.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::issuer::{Issuer, claims, header};
use super::issuers::world;
use support::stub::{Edge, HEAD, ROUTES};
use support::{CONFIG, Place};

#[test]
fn j10_sizes_and_depth_are_bounded_before_anything_is_believed() {
    let world = world();
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let with = |extra: &str| {
        let text = claims(&json!({})).to_string();
        world.idp.sign_bytes(
            header().to_string().as_bytes(),
            format!("{},\"x\":{extra}}}", &text[..text.len() - 1]).as_bytes(),
        )
    };
    assert_eq!(world.status(&with(&deep(10)), "/x"), 200);
    world.edge.stub.take();
    world.refuses(&with(&deep(17)), "deeper than 16");
    world.refuses(&with(&deep(2000)), "much deeper than 16");
    assert_eq!(world.status(&with(&format!("\"{}\"", "x".repeat(17_500))), "/x"), 200);
    world.edge.stub.take();
    world.refuses(&with(&format!("\"{}\"", "x".repeat(18_500))), "more than 24 KiB");
    let mut long = header();
    long["x"] = Value::from("x".repeat(1024));
    world.refuses(&world.idp.sign(&long, &claims(&json!({}))), "a header of more than 1 KiB");
}

#[test]
fn j11_what_two_readers_could_read_differently_is_refused() {
    let world = world();
    let good = claims(&json!({})).to_string();
    let inside = &good[1..good.len() - 1];
    let (head, signed) =
        (header().to_string(), |text: &[u8]| world.idp.sign_bytes(header().to_string().as_bytes(), text));
    assert_eq!(world.status(&signed(good.as_bytes()), "/x"), 200);
    world.edge.stub.take();
    for (what, text) in [
        ("a member twice", format!("{{{inside},\"sub\":\"admin\"}}")),
        ("twice, once escaped", format!("{{{inside},\"\\u0073ub\":\"admin\"}}")),
        ("twice, further in", format!("{{{inside},\"x\":{{\"a\":1,\"a\":2}}}}")),
        ("something behind it", format!("{good} x")),
        ("another object behind it", format!("{good}{good}")),
        ("an array", format!("[{good}]")),
        ("a string", format!("\"{}\"", good.replace('"', "\\\""))),
        ("nothing", String::new()),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("a comment", format!("/**/{good}")),
        ("a trailing comma", format!("{{{inside},}}")),
    ] {
        world.refuses(&signed(text.as_bytes()), what);
    }
    let mut broken = good.clone().into_bytes();
    let at = good.find("user-1").unwrap();
    broken[at] = 0xff;
    world.refuses(&signed(&broken), "no UTF-8");
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.refuses(&signed(&utf16), "UTF-16");
    let twice = format!("{},\"alg\":\"EdDSA\"}}", &head[..head.len() - 1]);
    world.refuses(&world.idp.sign_bytes(twice.as_bytes(), good.as_bytes()), "alg twice");
    let escaped = format!("{},\"\\u0061lg\":\"none\"}}", &head[..head.len() - 1]);
    world.refuses(&world.idp.sign_bytes(escaped.as_bytes(), good.as_bytes()), "alg twice, once escaped");
}

#[test]
fn j12_j13_j14_no_other_spelling_of_a_good_token_is_good() {
    let world = world();
    let token = world.idp.token(&json!({}));
    // In the cache from here on.
    assert_eq!([world.status(&token, "/x"), world.status(&token, "/x")], [200, 200]);
    world.edge.stub.take();
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // RFC 8032 §5.1.7: S plus the order of the group.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut malleated = raw.clone();
    let mut carry = 0_u16;
    for (byte, add) in malleated[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    // The last character of 64 bytes holds four bits that mean nothing.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    let twin = alphabet.chars().nth(at ^ 1).unwrap();
    let trailing = format!("{}{twin}", &signature[..signature.len() - 1]);
    let flip = |text: &str| -> String {
        let other = if text.ends_with('A') { 'B' } else { 'A' };
        format!("{}{other}", &text[..text.len() - 1])
    };
    for (what, spelling) in [
        ("S + L", format!("{head}.{body}.{}", encoded(&malleated))),
        ("trailing bits", format!("{head}.{body}.{trailing}")),
        ("padding", format!("{head}.{body}.{signature}==")),
        ("a longer signature", format!("{head}.{body}.{}", encoded(&[&raw[..], &[0]].concat()))),
        ("a shorter signature", format!("{head}.{body}.{}", encoded(&raw[..63]))),
        ("zeros", format!("{head}.{body}.{}", encoded(&[0; 64]))),
        ("no signature", format!("{head}.{body}.")),
        ("another body", format!("{head}.{}.{signature}", flip(body))),
        ("another head", format!("{}.{body}.{signature}", flip(head))),
        ("the other alphabet", token.replace('-', "+").replace('_', "/") + "+"),
    ] {
        world.refuses(&spelling, what);
    }
    // No token68 at all.
    for (what, bytes) in [
        ("a space", format!("{head}.{body} .{signature}")),
        ("a tab", format!("{head}.{body}\t.{signature}")),
        ("padding of the body", format!("{head}.{body}=.{signature}")),
    ] {
        assert_eq!(world.status(&bytes, "/x"), 401, "{what}");
        assert!(world.edge.stub.take().is_empty(), "{what}");
    }
    assert_eq!(world.status(&token, "/x"), 200, "and the good one still is");
}

#[test]
fn j2_a_public_key_is_no_secret_and_a_short_secret_none_either() {
    let issuer = Issuer::new(1);
    let config = |key: &str| {
        format!("{CONFIG}[[issuers]]\nurl = \"https://idp.test/\"\naudience = [\"api\"]\neverywhere = true\n{key}")
    };
    for (what, key) in [
        ("a PEM file for an HMAC", "jwks_file = \"idp.pem\"\nalgorithm = \"HS256\"\n"),
        ("a JWK set with a secret", "jwks_file = \"secret.json\"\n"),
    ] {
        let place = Place::new(&config(key));
        std::fs::write(place.path("idp.pem"), issuer.pem()).unwrap();
        let secret =
            json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32]), "alg": "HS256", "kid": "k1" }] });
        std::fs::write(place.path("secret.json"), secret.to_string()).unwrap();
        let ran = place.run(&["serve"], "");
        assert!(matches!(ran.code, Some(1 | 2)), "{what}: {ran:?}");
        assert!(ran.stderr.contains("secret"), "{what}: {ran:?}");
    }
    let short = Place::new(&support::with(CONFIG, "issuer", "algorithm = \"HS256\""));
    std::fs::write(short.path("short"), "0123456789abcdef0123456789abcde").unwrap();
    let ran = short.run(&["keys", "import", "short", "--algorithm", "HS256"], "");
    assert_eq!(ran.code, Some(1), "{ran:?}");

    // The classic: HMAC with the published key as the secret.
    let world = world();
    let hs256 = |secret: &[u8]| {
        let head = json!({ "alg": "HS256", "typ": "at+jwt", "kid": "k1" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&head), part(&claims(&json!({}))));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let jwk = world.idp.jwk("k1");
    let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    let pem = world.idp.pem();
    for secret in [&x[..], pem.as_bytes(), pem.trim_end().as_bytes(), jwk.to_string().as_bytes(), b""] {
        world.refuses(&hs256(secret), "HMAC with the public key");
    }
}

#[test]
fn j13_a_key_of_small_order_signs_nothing() {
    // With the neutral element as the key, (R, S) = (neutral, 0) fits every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let weak =
        json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(neutral), "kid": "weak", "alg": "EdDSA" });
    let good = Issuer::new(1);
    let jwks = json!({ "keys": [weak, good.jwk("k1")] }).to_string();
    let issuer =
        "[[issuers]]\nurl = \"https://idp.test/\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\neverywhere = true\n";
    let edge = Edge::with(
        &format!("{HEAD}{issuer}{ROUTES}"),
        |place| std::fs::write(place.path("idp.json"), jwks).unwrap(),
        |_| {},
    );
    assert_eq!(edge.ask_as(&good.token(&json!({})), "GET /private", &[]).status, 200);
    edge.stub.take();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "weak" });
    let mut signature = [0; 64];
    signature[0] = 1;
    let forged = format!("{}.{}.{}", part(&head), part(&claims(&json!({}))), URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(edge.ask_as(&forged, "GET /private", &[]).status, 401);
    assert!(edge.stub.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn j15_a_token_from_the_cache_is_refused_once_it_is_revoked_or_expired() {
    let edge = Edge::new(ROUTES);
    let tokens = edge.login();
    for _ in 0..3 {
        assert_eq!(edge.ask_as(&tokens.access, "GET /private", &[]).status, 200);
    }
    assert_eq!(edge.gate.revoke(&tokens.refresh).await.status, 200);
    assert_eq!(edge.ask_as(&tokens.access, "GET /private", &[]).status, 401, "the very next request");

    let head = support::with(HEAD, "issuer", "for_tests = { leeway = \"0s\" }");
    let sessions = "[sessions]\naccess_ttl = \"1s\"\ngrace = \"0s\"\nlost_response_window = \"0s\"\n";
    let short = Edge::with(&format!("{head}{ROUTES}{sessions}"), |_| {}, |_| {});
    let tokens = short.login();
    assert_eq!(short.ask_as(&tokens.access, "GET /private", &[]).status, 200);
    support::until("the token has expired", async || short.ask_as(&tokens.access, "GET /private", &[]).status == 401)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_flood_of_forged_tokens_costs_no_place_in_the_cache() {
    let world = world();
    let held = world.edge.login().access;
    assert_eq!(world.status(&held, "/x"), 200);
    let cached = async || {
        let request = http::Request::get(format!("http://{}/metrics", world.edge.gate.admin));
        let answer = support::send(request.body(http_body_util::Full::default()).unwrap()).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rotogate_verified_tokens ")).unwrap().to_owned()
    };
    assert_eq!(cached().await, "1");
    let stranger = Issuer::new(9);
    let mut wire = world.edge.wire();
    for n in 0..2000 {
        let forged = stranger.token(&json!({ "jti": format!("f-{n}") }));
        wire.head("GET /x", &["Host: gate.test", &format!("Authorization: Bearer {forged}")]);
        // Beyond the rate of forged ones (A1) it is not looked at.
        assert!([401, 429].contains(&wire.reply().status));
    }
    assert_eq!(cached().await, "1", "what is not verified is not kept");
    assert_eq!(world.status(&held, "/x"), 200);
}
