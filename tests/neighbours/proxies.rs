//! The checks that hold behind each started proxy.

use std::time::Duration;

use serde_json::Value;
use support::redis::Redis;
use support::wire::Wire;

use super::before::{Before, CADDY, ENVOY, ENVOY_HTTP, HAPROXY, NGINX, Program, TRAEFIK};
use super::scene::{bearer, run};

/// Headers by which a client forges an identity, in the spelling that a neighbour removes.
const SPOOFED: [&str; 6] = [
    "X-Auth-Subject: root",
    "X-Auth-Scope: admin",
    "X-Auth-Account: root",
    "X-Forwarded-User: root",
    "X-User: root",
    "X-Http-Method-Override: DELETE",
];

/// The duties of each neighbour, with its example.
fn holds(program: &Program) {
    let mut store = Redis::start(&[]);
    let keys = format!("kind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\nstaleness = \"5s\"", store.port);
    let mut before = Before::start_on(&keys, program);
    let tokens = before.login();
    let good = bearer(&tokens);
    let claims: Value = {
        let payload = tokens.access.split('.').nth(1).unwrap();
        use base64::Engine;
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    let subject = claims["sub"].as_str().unwrap();
    before.stub.take();

    // A good token: the upstream sees only the gate's headers, and no credential.
    let spoofed: Vec<&str> = std::iter::once(good.as_str()).chain(SPOOFED).collect();
    let reply = before.ask("GET /private/a?b=c", &spoofed);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{reply:?}");
    let received = before.stub.one();
    assert_eq!(received.target, "/private/a?b=c");
    assert_eq!(received.confusable("x-auth-subject"), [subject], "{received:?}");
    assert_eq!(received.confusable("x-auth-client"), ["web"], "{received:?}");
    for name in ["authorization", "x-forwarded-user", "x-user", "x-http-method-override"] {
        assert!(received.confusable(name).iter().all(|value| value.is_empty()), "{name}: {received:?}");
    }
    assert!(
        !received.confusable("x-auth-account").contains(&"root")
            && !received.confusable("x-auth-scope").contains(&"admin")
    );

    // Without a token no identity arrives, not even on an open route.
    let reply = before.ask("GET /public/a", &SPOOFED);
    assert_eq!(reply.status, 200, "{reply:?}");
    let received = before.stub.one();
    for name in ["x-auth-subject", "x-auth-scope", "x-auth-account", "x-auth-session", "x-auth-expires"] {
        assert!(received.confusable(name).iter().all(|value| value.is_empty()), "{name}: {received:?}");
    }

    // A disguise is refused, or does not arrive.
    for name in ["X_Auth_Subject", "X.Auth.Subject", "X-Auth_Subject"] {
        let reply = before.ask("GET /private/a", &[&good, &format!("{name}: root")]);
        for received in before.stub.take() {
            assert_eq!((reply.status, received.confusable("x-auth-subject")), (200, vec![subject]), "{name}");
        }
    }

    // Forged facts have no effect.
    for forged in [
        "X-Original-URL: http://localhost/public/a",
        "X-Forwarded-Uri: /public/a",
        "X-Forwarded-Method: OPTIONS",
        "X-Forwarded-Prefix: /public",
        "X-Envoy-Original-Path: /public/a",
        "Connection: X-Forwarded-Uri",
    ] {
        let reply = before.ask("GET /private/a", &[forged]);
        assert!((400..=503).contains(&reply.status), "{forged}: {reply:?}");
    }
    assert!(before.stub.take().is_empty());

    // No token, and a token that lacks a scope.
    let none = before.ask("GET /private/a", &[]);
    assert_eq!((none.status, none.header("www-authenticate")), (401, "Bearer"));
    let lacks = before.ask("GET /admin/a", &[&good]);
    assert_eq!(lacks.status, 403, "{lacks:?}");
    assert!(lacks.header("www-authenticate").contains("insufficient_scope"), "{lacks:?}");
    assert!(before.stub.take().is_empty());

    // No spelling of a protected path passes as an open path.
    for target in [
        "/public/../admin/a",
        "/public/%2e%2e/admin/a",
        "/public/..%2fadmin/a",
        "/public/..;/admin/a",
        "/public//../admin/a",
        "/public/%252e%252e/admin/a",
        "/public/.%2e/admin/a",
        "/public/..%5cadmin/a",
        "//public/../admin/a",
        "/public/a/../../admin",
        "/%70ublic/../admin/a",
        "/admin/a?/public/",
        "/admin/a#/public/b",
    ] {
        let reply = before.ask(&format!("GET {target}"), &[]);
        let arrived = before.stub.take();
        if arrived.is_empty() {
            assert!(reply.status >= 400, "{target}: {reply:?}");
        }
        assert!(program.normalises || arrived.is_empty(), "{target} arrived: {arrived:?}");
        // The path that it asked about is the one that it forwards.
        for received in arrived {
            let is_open = received.target.starts_with("/public/");
            let is_plain = !["..", "//", "%", "\\", ";"].iter().any(|trick| received.target.contains(trick));
            assert!(is_open && is_plain, "{target} arrived as {}: {reply:?}", received.target);
        }
    }

    // The neighbour forwards an upgrade.
    let handshake = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let mut wire = Wire::open(before.address);
    let lines: Vec<&str> = ["Host: localhost", &good].into_iter().chain(handshake).collect();
    wire.head("GET /private/ws", &lines);
    let _ = wire.reply_head();
    assert!(before.stub.one().all("upgrade")[0].eq_ignore_ascii_case("websocket"));

    // Revoked: at the next request.
    run(before.gate.revoke(&tokens.refresh));
    assert_eq!(before.ask("GET /private/a", &[&good]).status, 401);
    assert!(before.stub.take().is_empty());

    // Without the store, revocations are not known. The neighbour refuses, and reports no decision.
    let good = bearer(&before.login());
    assert_eq!(before.ask("GET /private/a", &[&good]).status, 200);
    store.kill();
    let closed = (0..600).find_map(|_| {
        let status = before.ask("GET /private/a", &[&good]).status;
        std::thread::sleep(Duration::from_millis(50));
        (status != 200).then_some(status)
    });
    // nginx answers 500 for an unexpected status of its subrequest.
    assert!(matches!(closed, Some(500 | 503)), "{closed:?}");
    before.stub.take();
    assert!(before.ask("GET /private/a", &[&good]).status >= 500);
    assert!(before.stub.take().is_empty());

    // Without the gate nothing passes.
    before.gate.kill();
    let refused = before.ask("GET /public/a", &[]);
    assert!((500..=504).contains(&refused.status), "{refused:?}");
    assert!(before.stub.take().is_empty());
}

#[test]
fn n17_n24_nginx_with_its_example() {
    holds(&NGINX);
}

#[test]
fn n17_n24_haproxy_with_its_example() {
    holds(&HAPROXY);
}

#[test]
fn n17_n24_caddy_with_its_example() {
    holds(&CADDY);
}

#[test]
fn n17_n24_n25_envoy_with_its_example() {
    holds(&ENVOY);
}

#[test]
fn n17_n24_n9_envoy_over_http_with_its_example() {
    holds(&ENVOY_HTTP);
}

#[test]
fn n17_n24_traefik_with_its_example() {
    holds(&TRAEFIK);
}
