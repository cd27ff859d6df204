//! Sessions of browsers behind the proxies of the examples: the login and back, in Chromium and by requests as browsers send
//! them.

use serde_json::json;
use support::wire::Reply;

use super::before::{ALL, Before, CADDY, ENVOY, ENVOY_HTTP, F5, HAPROXY, NGINX, Program, TRAEFIK};
use crate::clients::chromium::{Chromium, Told};

const OWN: &str = "Origin: http://localhost:8000";
const EVIL: &str = "Origin: https://evil.example";
const NAVIGATE: [&str; 2] = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
const FETCH: [&str; 2] = ["Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"];
const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn log_in(before: &Before) -> String {
    let body = json!({ "username": "demo", "password": before.gate.password }).to_string();
    let length = format!("Content-Length: {}", body.len());
    let reply = before.ask_with_body("POST /auth/login", &[OWN, "Content-Type: application/json", &length], &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let pair = reply.header("set-cookie").split(';').next().unwrap();
    assert!(pair.starts_with("__Host-Http-rg=rc1_"), "{pair}");
    pair.to_owned()
}

#[test]
fn b45_b46_a_session_passes_behind_each_example_as_at_the_public_listener() {
    for program in ALL {
        let before = Before::start(program);
        let name = program.name;
        let session = log_in(&before);
        before.stub.take();
        let cookie = format!("Cookie: theme=dark; {session}; x=1");
        let ask = |line: &str, headers: &[&[&str]]| {
            let reply = before.ask(line, &headers.concat());
            assert!(reply.all("set-cookie").is_empty(), "{name} {line}: {reply:?}");
            reply
        };

        // The session passes, and stays here; the other cookies arrive. Also on an open route.
        for (line, target) in [("GET /private/a", "/private/a"), ("GET /public/a", "/public/a")] {
            assert_eq!(ask(line, &[&[&cookie, "X-Auth-Subject: root"]]).status, 200, "{name}");
            let seen = before.stub.one();
            assert_eq!(seen.target, target);
            assert!(!format!("{seen:?}").contains("rc1_"), "{name}: {seen:?}");
            assert_eq!(seen.all("cookie"), ["theme=dark; x=1"], "{name}");
            let subject: Vec<_> = seen.confusable("x-auth-subject").into_iter().filter(|it| !it.is_empty()).collect();
            assert_eq!(
                (subject.len(), subject.contains(&"root")),
                (usize::from(target == "/private/a"), false),
                "{name}"
            );
        }
        // The cookie alone, in pieces, and no cookie.
        ask("GET /private/a", &[&[&format!("Cookie: {session}")]]);
        assert!(before.stub.one().all("cookie").iter().all(|left| left.is_empty()), "{name}");
        assert_eq!(ask("GET /public/a", &[]).status, 200);
        assert!(before.stub.one().all("cookie").iter().all(|left| left.is_empty()), "{name}");

        // The table of requests of other pages, as the public listener answers.
        let length = "Content-Length: 0";
        for (line, headers) in [
            ("GET /private/a", &["Sec-Fetch-Site: same-site", FETCH[0], FETCH[1]][..]),
            ("GET /private/a", &["Sec-Fetch-Site: cross-site", NAVIGATE[0], "Sec-Fetch-Dest: iframe"]),
            ("GET /private/a", &[EVIL]),
            ("POST /private/a", &[EVIL, length]),
            ("POST /private/a", &["Origin: null", "Sec-Fetch-Site: cross-site", length]),
            ("POST /private/a", &[length]),
            ("GET /private/a", &[&HANDSHAKE[..], &[EVIL]].concat()),
        ] {
            assert_eq!(ask(line, &[&[&cookie], headers]).status, 403, "{name} {line} {headers:?}");
        }
        assert!(before.stub.take().is_empty(), "{name}");
        for (line, headers) in [
            ("GET /private/a", &["Sec-Fetch-Site: cross-site", NAVIGATE[0], NAVIGATE[1]][..]),
            ("POST /private/a", &[OWN, length]),
            ("POST /private/a", &["Origin: null", "Sec-Fetch-Site: same-origin", length]),
        ] {
            assert_eq!(ask(line, &[&[&cookie], headers]).status, 200, "{name} {line} {headers:?}");
        }
        before.stub.take();

        // A bearer token decides alone, and a bad one never falls back.
        let token = format!("Authorization: Bearer {}", before.login().access);
        assert_eq!(ask("POST /private/a", &[&[&cookie, &token, EVIL, length]]).status, 200, "{name}");
        assert_eq!(before.stub.one().confusable("x-auth-client"), ["web"], "{name}");
        assert_eq!(ask("GET /private/a", &[&[&cookie, "Authorization: Bearer x"]]).status, 401, "{name}");
        let two = ask("GET /private/a", &[&[&format!("Cookie: {session}; {session}")]]).status;
        assert!(matches!(two, 400 | 403), "{name}: {two}");

        // An ended session: refused at the next question, without a cleared cookie.
        let out = [&cookie, OWN, length];
        assert_eq!(before.ask("POST /auth/logout", &out).status, 200, "{name}");
        let over = ask("GET /private/a", &[&[&cookie, "Sec-Fetch-Site: same-origin"], &FETCH]);
        assert_eq!((over.status, over.header("www-authenticate").is_empty()), (401, false), "{name}");
        assert!(before.stub.take().is_empty(), "{name}");
    }
}

#[test]
fn b36_b45_each_example_leads_a_tab_to_the_login_and_tells_a_script_where_it_is() {
    for program in ALL {
        let before = Before::start(program);
        let name = program.name;
        for headers in [&NAVIGATE[..], &["Accept: text/html,*/*;q=0.8"]] {
            let reply = before.ask("GET /private/x?y=z", headers);
            let to = "http://localhost:8000/auth/login?to=%2Fprivate%2Fx%3Fy%3Dz";
            assert_eq!((reply.status, reply.header("location")), (303, to), "{name}: {reply:?}");
            assert!(reply.all("set-cookie").is_empty());
        }
        let login = |reply: &Reply| reply.json()["login"].as_str().map(str::to_owned);
        for (line, headers) in [
            ("GET /private/x", &FETCH[..]),
            ("GET /private/x", &[NAVIGATE[0], NAVIGATE[1], "Sec-Purpose: prefetch"]),
            ("GET /private/x", &["Accept: text/event-stream"]),
        ] {
            let reply = before.ask(line, headers);
            assert_eq!((reply.status, login(&reply).as_deref()), (401, Some("/auth/login")), "{name} {headers:?}");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{name}: {reply:?}");
            assert_eq!(reply.all("www-authenticate").len(), 1, "{name}: {reply:?}");
        }
        let form = before.ask("POST /private/x", &[NAVIGATE[0], NAVIGATE[1], OWN, "Content-Length: 0"]);
        assert_eq!(form.status, 401, "{name}: {form:?}");
        assert!(before.stub.take().is_empty(), "{name}");
    }
}

/// Chromium through a proxy: the login and back, a script, a WebSocket, the logout.
async fn in_chromium(program: &'static Program) {
    let before = tokio::task::spawn_blocking(|| Before::start(program)).await.unwrap();
    before.stub.put("/public/page.html", "", include_bytes!("session.html"));
    before.stub.put("/private/page.html", "", b"<title>private</title>the private page");
    let mut told = Told::start();
    let url = told.url("http://localhost:8000/public/page.html", &before.gate.password);
    let chromium = Chromium::open(&format!("MAP localhost:8000 {}", before.address), &url);
    assert_eq!(told.next().await, json!({ "script": 401, "login": "/auth/login" }), "{}", program.name);
    assert_eq!(told.next().await, json!({ "search": "?x=1", "text": "the private page" }));
    assert_eq!(told.next().await, json!({ "cookie": "theme=dark", "session": true }));
    assert_eq!(told.next().await, json!({ "read": 200, "changed": 200 }));
    assert_eq!(told.next().await, json!({ "asked": "a WebSocket" }));
    assert_eq!(told.next().await, json!({ "session": false, "read": 401 }));
    assert_eq!(told.next().await, json!({ "again": "?to=%2Fprivate%2Fpage.html" }));
    drop(chromium);
    let seen = before.stub.take();
    let private: Vec<_> = seen.iter().filter(|request| request.target.starts_with("/private")).collect();
    assert!(private.iter().any(|request| request.target == "/private/ws"), "the handshake has the session");
    for request in private {
        assert!(!request.all("x-auth-subject").iter().all(|it| it.is_empty()), "{request:?}");
        assert_eq!(request.all("cookie"), ["theme=dark"], "{request:?}");
    }
    assert!(!format!("{seen:?}").contains("rc1_"), "the session stays with the gate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_nginx() {
    in_chromium(&NGINX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_f5_nginx_ingress() {
    in_chromium(&F5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b45_chromium_logs_in_through_caddy() {
    in_chromium(&CADDY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_traefik() {
    in_chromium(&TRAEFIK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_envoy() {
    in_chromium(&ENVOY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_envoy_over_http() {
    in_chromium(&ENVOY_HTTP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b45_chromium_logs_in_through_haproxy() {
    in_chromium(&HAPROXY).await;
}
