//! The authentication of administrators, and the names under which they act.

use std::io::{Read, Write};
use std::net::TcpStream;

use http::StatusCode;
use support::{Place, until};

use super::{Ask, admin_token, code, events, with_tokens, write_token};

const VIEWER: &str = "the-viewer-token-of-the-tests-0001";
const OPERATOR: &str = "the-operator-token-of-the-tests-01";

/// Every operation with a change, and its request.
const CHANGES: [(&str, &str, &str); 19] = [
    ("/v1/sessions/SESSION/revoke", "", "operator"),
    ("/v1/revocations", "{\"all\":true}", "operator"),
    ("/v1/issuers/x/refresh", "", "operator"),
    ("/v1/issuers/x/drop", "", "operator"),
    ("/v1/config/reload", "", "operator"),
    ("/v1/config/check", "", "operator"),
    ("/v1/users/reload", "", "operator"),
    ("/v1/users/disable", "{\"user\":\"demo\"}", "operator"),
    ("/v1/api-keys/x/revoke", "", "operator"),
    ("/v1/api-keys/leaked", "{\"keys\":[]}", "operator"),
    ("/v1/api-keys", "{\"user\":\"demo\",\"name\":\"x\"}", "admin"),
    ("/v1/api-keys/x/rotate", "{}", "admin"),
    ("/v1/users", "{\"user\":\"eve\"}", "admin"),
    ("/v1/users/password", "{\"user\":\"demo\"}", "admin"),
    ("/v1/users/enable", "{\"user\":\"demo\"}", "admin"),
    ("/v1/store/backup", "", "admin"),
    ("/v1/keys/rotate", "{}", "admin"),
    ("/v1/keys/refresh-1/promote", "{}", "admin"),
    ("/v1/keys/refresh-1/retire", "{}", "admin"),
];
const VIEWS: [&str; 12] = [
    "/v1/status",
    "/v1/sessions",
    "/v1/sessions/SESSION",
    "/v1/revocations",
    "/v1/users",
    "/v1/keys",
    "/v1/routes",
    "/v1/upstreams",
    "/v1/issuers",
    "/v1/config",
    "/v1/events",
    "/v1/refused",
];

fn place() -> Place {
    let place = Place::new(&with_tokens(&[("vera", "viewer", "vera.token"), ("otto", "operator", "otto.token")]));
    write_token(&place, "vera.token", VIEWER);
    write_token(&place, "otto.token", OPERATOR);
    place
}

#[tokio::test]
async fn p50_who_may_not_ask_is_refused_and_nothing_changes() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let user = gate.login().await;
    let id = place.json(&["token", "inspect"], &user.refresh)["session"].as_str().unwrap().to_owned();
    let path = |path: &str| path.replace("SESSION", &id);

    for (change, body, needed) in CHANGES {
        let change = path(change);
        let without = Ask::without(&gate).post(&change, body).await;
        assert_eq!((without.status, code(&without).as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"), "{change}");
        assert_eq!(without.headers["www-authenticate"], "Bearer");
        let mut below = vec![VIEWER];
        below.extend((needed == "admin").then_some(OPERATOR));
        for token in below {
            let answer = Ask::with(&gate, token).post(&change, body).await;
            assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::FORBIDDEN, "forbidden"), "{change}");
        }
        // A page of another origin, in each form in which a browser states that.
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:1"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = Ask::with(&gate, &token).header(name, value).post(&change, body).await;
            let said = (answer.status, code(&answer));
            assert_eq!(said, (StatusCode::FORBIDDEN, "foreign_origin".to_owned()), "{change} {name}: {value}");
        }
    }
    for view in VIEWS.map(path) {
        let without = Ask::without(&gate).get(&view).await;
        assert_eq!((without.status, code(&without).as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"), "{view}");
        let answer = Ask::with(&gate, VIEWER).get(&view).await;
        assert_eq!(answer.status, StatusCode::OK, "{view} {answer:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        // The name of a page that was rebound to this address.
        let answer = Ask::with(&gate, &token).header("host", "evil.example").get(&view).await;
        assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::MISDIRECTED_REQUEST, "foreign_host"));
    }
    for (change, body, _) in CHANGES {
        let answer = Ask::with(&gate, &token).header("host", "evil.example").post(&path(change), body).await;
        assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::MISDIRECTED_REQUEST, "foreign_host"));
    }
    // The admin page and a program are allowed.
    let own = format!("http://{}", gate.admin);
    let answer = Ask::with(&gate, OPERATOR).header("origin", &own).post("/v1/config/check", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");

    // Ten wrong tokens are 401. More are 429, and not logged. The right token passes: any user of the operator's machine
    // could otherwise lock the operator out.
    for wrong in 0..20 {
        let answer = Ask::with(&gate, &format!("guess-number-{wrong}")).post("/v1/revocations", "{\"all\":true}").await;
        if wrong < 10 {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
            continue;
        }
        assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::TOO_MANY_REQUESTS, "too_many_failures"));
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
    }
    assert_eq!(Ask::with(&gate, &token).post("/v1/config/check", "").await.status, StatusCode::OK);
    assert_eq!(gate.log().matches("admin.login_refused").count(), 10);
    // Health needs no token.
    assert_eq!(Ask::without(&gate).get("/readyz").await.status, StatusCode::OK);

    assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::OK, "nothing was revoked");
    let log = gate.log();
    for action in ["\"revocation\"", "config.reload", "store.backup"] {
        assert!(!log.contains(action), "{action}");
    }
}

#[tokio::test]
async fn p50_metrics_need_no_token_on_this_machine_but_behind_a_proxy_there() {
    let place = Place::new(&support::with(&with_tokens(&[]), "admin", "hosts = [\"gate.internal\"]"));
    let gate = place.start();
    let token = admin_token(&place);
    for host in ["localhost", "127.0.0.1", "[::1]:80"] {
        assert_eq!(Ask::without(&gate).header("host", host).get("/metrics").await.status, StatusCode::OK, "{host}");
    }
    for (name, value) in [
        ("host", "gate.internal"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.1"),
    ] {
        let answer = Ask::without(&gate).header(name, value).get("/metrics").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(Ask::with(&gate, &token).header(name, value).get("/metrics").await.status, StatusCode::OK, "{name}");
    }
}

#[tokio::test]
async fn p53_a_role_may_what_it_may_and_the_audit_trail_names_the_token() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let mut ended = Vec::new();
    for (holder, role, token) in [("otto", "operator", OPERATOR), ("default", "admin", &token)] {
        let user = gate.login().await;
        let id = place.json(&["token", "inspect"], &user.refresh)["session"].as_str().unwrap().to_owned();
        let answer = Ask::with(&gate, token).post(&format!("/v1/sessions/{id}/revoke"), "").await;
        assert_eq!((answer.status, &answer.json()["ended"]), (StatusCode::OK, &1.into()), "{holder}");
        assert_eq!(gate.get("/x", &user.access).await.status, StatusCode::UNAUTHORIZED);
        let id_of_request = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        ended.push((holder, role, id, id_of_request));
    }
    for (holder, role, id, request) in ended {
        let lines = events(&gate, &token, &format!("action=revocation&session={id}")).await;
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["rotogate.actor"], &line["rotogate.actor.role"]), (&holder.into(), &role.into()), "{line}");
        assert_eq!(line["http.request.id"], request.as_str());
        let shown = Ask::with(&gate, VIEWER).get(&format!("/v1/sessions/{id}")).await.json();
        assert_eq!(shown["status"], "operator");
        let history = shown["history"].as_array().unwrap();
        assert!(history.iter().any(|line| line["rotogate.actor"] == holder), "who ended it: {shown}");
    }
    assert_eq!(Ask::with(&gate, &token).post("/v1/store/backup", "").await.status, StatusCode::OK);
    let lines = events(&gate, &token, "action=store.backup&actor=default").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn p53_two_files_of_one_name_overlap_and_each_is_read_again() {
    const SECOND: &str = "the-second-token-of-otto-in-a-test";
    const THIRD: &str = "the-third-token-of-otto-in-a-tests";
    let tokens = [("otto", "operator", "otto.token"), ("otto", "operator", "otto-next.token")];
    let place = Place::new(&with_tokens(&tokens));
    write_token(&place, "otto.token", OPERATOR);
    // A missing file is created, like the file of admin.token_file.
    let gate = place.start();
    let made = std::fs::read_to_string(place.path("otto-next.token")).unwrap();
    support::keep_secret(made.trim());
    let asks = async |token: &str| Ask::with(&gate, token).get("/v1/status").await.status;
    for token in [OPERATOR, made.trim()] {
        assert_eq!(asks(token).await, StatusCode::OK);
    }
    write_token(&place, "otto-next.token", SECOND);
    until("the new token is taken", async || asks(SECOND).await == StatusCode::OK).await;
    assert_eq!((asks(OPERATOR).await, asks(made.trim()).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    // A file that others may read: the old token stays in force, and the log has the reason.
    write_token(&place, "otto-next.token", THIRD);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(place.path("otto-next.token"), open).unwrap();
    until("the log says so", async || gate.log().contains("admin token changed but cannot be used")).await;
    assert_eq!(asks(OPERATOR).await, StatusCode::OK);
}

/// Reads until this text, or the end of the stream.
fn up_to(stream: &mut TcpStream, text: &str) -> String {
    let (mut all, mut some) = (String::new(), [0; 4096]);
    while !all.contains(text) {
        match stream.read(&mut some).unwrap() {
            0 => break,
            read => all.push_str(&String::from_utf8_lossy(&some[..read])),
        }
    }
    all
}

#[tokio::test]
async fn a29_a_stream_of_events_ends_with_the_token_that_opened_it() {
    const NEXT: &str = "the-next-token-of-the-viewer-in-a-test";
    let place = place();
    let gate = place.start();
    let follow = |token: &str| {
        let mut stream = TcpStream::connect(gate.admin).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let head = format!("Host: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n");
        write!(stream, "GET /v1/events HTTP/1.1\r\n{head}Connection: close\r\n\r\n").unwrap();
        stream
    };
    let mut of_viewer = follow(VIEWER);
    let mut of_admin = follow(&admin_token(&place));
    for stream in [&mut of_viewer, &mut of_admin] {
        assert!(up_to(stream, "200 OK").contains("200 OK"));
    }
    let first = gate.login().await;
    let session = |tokens: &support::Tokens| place.json(&["token", "inspect"], &tokens.refresh)["session"].clone();
    let first = session(&first).as_str().unwrap().to_owned();
    assert!(up_to(&mut of_viewer, &first).contains(&first));
    write_token(&place, "vera.token", NEXT);
    until("the new token is taken", async || gate.log().contains("admin token reloaded")).await;
    let second = gate.login().await;
    let second = session(&second).as_str().unwrap().to_owned();
    assert!(up_to(&mut of_admin, &second).contains(&second));
    assert!(!up_to(&mut of_viewer, &second).contains(&second), "it ended");
}

#[test]
fn p53_a_wrong_entry_is_refused_with_its_line() {
    for (tokens, said) in [
        (&[("a", "root", "a")][..], "admin.tokens[0].role: expected"),
        (&[("a b", "viewer", "a")], "admin.tokens[0].name: expected 1 to 64 letters"),
        (&[("a", "viewer", "a"), ("a", "admin", "b")], "\"a\" has the role viewer in an entry above"),
        (&[("default", "viewer", "a")], "the name \"default\" belongs to the token in `admin.token_file`"),
        (&[("a", "viewer", "data/admin.token")], "is already the file of another token"),
    ] {
        let place = Place::new(&with_tokens(tokens));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{tokens:?}");
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let place = Place::new(&with_tokens(&[("a", "viewer", "a.token"), ("b", "admin", "b.token")]));
    write_token(&place, "a.token", VIEWER);
    write_token(&place, "b.token", VIEWER);
    let ran = place.run(&["check"], "");
    assert!(ran.stderr.contains("the token is the same as in admin.tokens[0].file"), "{}", ran.stderr);
}
