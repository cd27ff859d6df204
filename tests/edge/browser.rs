//! Browsers at the real binary: the login, the state of the session, the logout, and what other pages try. The numbers of
//! the attacks are those of the design.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::assertion::verified;
use support::stub::{Edge, HEAD};
use support::wire::Reply;

pub(crate) const OWN: &str = "Origin: https://gate.test";
pub(crate) const EVIL: &str = "Origin: https://evil.example";
pub(crate) const SAME_ORIGIN: &str = "Sec-Fetch-Site: same-origin";

const ROUTES: &str = r#"
[[endpoints]]
dialect = "browser"
path = "/auth"
@keys@
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/open/{*rest}"
auth = "optional"
credentials = ["token", "session"]
upstream = "app"
[[routes]]
path = "/api/{*rest}"
credentials = ["token", "session"]
login = "never"
upstream = "app"
[[routes]]
path = "/tokens/{*rest}"
upstream = "app"
[[routes]]
path = "/{*rest}"
credentials = ["token", "session"]
upgrade = true
upstream = "app"
"#;

/// A gate that browsers reach by https, which a server in front of it ends.
fn edge(keys: &str) -> Edge {
    edge_with(keys, "")
}

fn edge_with(keys: &str, more: &str) -> Edge {
    Edge::with(&config(keys, more), |_| {}, |_| {})
}

pub(crate) fn config(keys: &str, more: &str) -> String {
    let head = HEAD.replace("http://gate.test", "https://gate.test");
    format!("{head}{more}{}", ROUTES.replace("@keys@", keys))
}

/// Sends JSON to the login.
pub(crate) fn post_json(edge: &Edge, headers: &[&str], body: &serde_json::Value) -> Reply {
    post(edge, "/auth/login", &[&["Content-Type: application/json"], headers].concat(), &body.to_string())
}

pub(crate) fn post(edge: &Edge, path: &str, headers: &[&str], body: &str) -> Reply {
    let length = format!("Content-Length: {}", body.len());
    let mut wire = edge.wire();
    wire.head(&format!("POST {path}"), &[&["Host: gate.test", &length], headers].concat());
    wire.send(body);
    wire.reply()
}

/// The answer to a HEAD request, which has no body.
fn head(edge: &Edge, path: &str, headers: &[&str]) -> Reply {
    let mut wire = edge.wire();
    wire.head(&format!("HEAD {path}"), &[&["Host: gate.test"], headers].concat());
    wire.try_reply(true).unwrap()
}

pub(crate) fn credentials(edge: &Edge) -> serde_json::Value {
    json!({ "username": "demo", "password": edge.gate.password.clone() })
}

/// The cookie that a reply sets, as the browser sends it.
pub(crate) fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie");
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert!(attributes.starts_with("Path=/; Secure; HttpOnly; SameSite="), "{attributes}");
    assert!(pair.starts_with("__Host-Http-rg=rc1_"), "no cookie");
    format!("Cookie: {pair}")
}

fn log_in(edge: &Edge) -> String {
    let reply = post_json(edge, &[OWN], &credentials(edge));
    assert_eq!(reply.status, 200, "{}", reply.text());
    cookie(&reply)
}

pub(crate) fn state(edge: &Edge, cookie: &str) -> serde_json::Value {
    let reply = edge.ask("GET /auth/session", &[cookie, SAME_ORIGIN]);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[test]
fn b1_b2_b6_a_login_sets_the_cookie_with_exactly_its_attributes_and_no_token() {
    let edge = edge("");
    let reply = post_json(&edge, &[OWN], &credentials(&edge));
    assert_eq!(reply.status, 200);
    let set = reply.header("set-cookie");
    let (value, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=604800");
    // The value and its name, as the browser sends them.
    assert_eq!(value.len(), "__Host-Http-rg=".len() + 91);
    assert_eq!(reply.json()["authenticated"], true);
    assert!(reply.json()["subject"].as_str().is_some_and(|subject| !subject.is_empty()));
    assert!(!reply.text().contains("rc1_") && !reply.text().contains("eyJ") && !reply.text().contains("rg1_"));
    assert_eq!((reply.header("cache-control"), reply.header("referrer-policy")), ("no-store", "same-origin"));
    // No other answer sets it.
    let cookie = cookie(&reply);
    for _ in 0..3 {
        let asked = edge.ask("GET /auth/session", &[&cookie, SAME_ORIGIN]);
        assert!(asked.all("set-cookie").is_empty());
        let live = asked.json();
        assert_eq!((&live["authenticated"], &live["device_bound"]), (&json!(true), &json!(false)));
        assert_eq!(live["subject"], reply.json()["subject"]);
        assert_eq!(live["expires"], reply.json()["expires"]);
        let left = live["expires"].as_u64().unwrap() - live["idle_expires"].as_u64().unwrap();
        assert_eq!(left, 7 * 86_400 - 8 * 3600);
    }
}

#[test]
fn b35_a_form_logs_in_and_leads_to_its_target_alone() {
    let edge = edge("");
    let password = edge.gate.password.clone();
    let form =
        |to: &str| edge.form("/auth/login", &[OWN], &[("username", "demo"), ("password", &password), ("to", to)]);
    // Attack 15.
    let long = format!("/{}", "x".repeat(8192));
    for bad in [
        "//evil",
        "/\\evil",
        "/%09/evil",
        "/%2f%2fevil",
        "javascript:alert(1)",
        "https://evil",
        "/auth/logout",
        "/x\r\nA: b",
        &long,
    ] {
        let reply = form(bad);
        assert_eq!((reply.status, reply.header("location")), (303, "https://gate.test/"), "{bad:?}");
        cookie(&reply);
    }
    assert_eq!(form("/app/x?y=z#f").header("location"), "https://gate.test/app/x?y=z#f");
    let longest = format!("/app?{}", "x".repeat(8187));
    assert_eq!(form(&longest).header("location"), format!("https://gate.test{longest}"));
    // Attack 16: the host of the request does not decide the target of the redirect.
    let poisoned = edge.form(
        "/auth/login",
        &[OWN, "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http"],
        &[("username", "demo"), ("password", &password), ("to", "/x")],
    );
    assert_eq!(poisoned.header("location"), "https://gate.test/x");
}

#[test]
fn b7_another_host_has_no_login() {
    let edge = Edge::with(
        &format!(
            "{}{}",
            HEAD.replace("public_url = \"http://gate.test\"", "public_url = \"https://gate.test\"\nhosts = [\"*\"]"),
            ROUTES.replace("@keys@", "")
        ),
        |_| {},
        |_| {},
    );
    for host in ["evil.example", "www.gate.test", "gate.test.evil", "127.0.0.1"] {
        let mut wire = edge.wire();
        wire.head("GET /auth/login", &[&format!("Host: {host}")]);
        let reply = wire.reply();
        assert_eq!((reply.status, reply.error()), (421, "unknown_host".to_owned()), "{host}");
    }
    for host in ["gate.test", "GATE.test", "gate.test:443"] {
        let mut wire = edge.wire();
        wire.head("GET /auth/login", &[&format!("Host: {host}")]);
        assert_eq!(wire.reply().status, 200, "{host}");
    }
}

#[test]
fn b25_a_login_of_another_page_is_refused_before_its_password_is_looked_at() {
    let edge = edge("");
    let body = credentials(&edge);
    let tries: [&[&str]; 8] = [
        &[],
        &[EVIL],
        &["Origin: null"],
        &["Origin: null", "Sec-Fetch-Site: cross-site"],
        &["Origin: https://www.gate.test", "Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: same-site"],
        &[OWN, EVIL],
        &[EVIL, SAME_ORIGIN],
    ];
    for headers in tries {
        let reply = post_json(&edge, headers, &body);
        assert_eq!((reply.status, reply.error()), (403, "cross_origin".to_owned()), "{headers:?}");
        assert!(reply.all("set-cookie").is_empty());
        let form = edge.form("/auth/login", headers, &[("username", "demo"), ("password", &edge.gate.password)]);
        assert_eq!((form.status, form.header("x-frame-options")), (403, "DENY"), "{headers:?}");
        assert!(form.all("set-cookie").is_empty());
    }
    // No password was checked, not even the wrong ones.
    for _ in 0..30 {
        post_json(&edge, &[EVIL], &json!({ "username": "demo", "password": "wrong" }));
    }
    assert_eq!(edge.series("rotogate_password_check_duration_seconds_count"), 0);
    assert_eq!(edge.series("rotogate_browser_logins_total{result=\"cross_origin\"}"), 46);
    // Attack 7: a form of any site can send text.
    for media in ["text/plain", "multipart/form-data; boundary=x"] {
        let reply = post(&edge, "/auth/login", &[OWN, &format!("Content-Type: {media}")], &body.to_string());
        assert_eq!((reply.status, reply.error()), (415, "unsupported_media_type".to_owned()));
    }
    for good in [&[OWN][..], &["Origin: null", SAME_ORIGIN], &[SAME_ORIGIN]] {
        assert_eq!(post_json(&edge, good, &body).status, 200, "{good:?}");
    }
}

#[test]
fn b25_each_failed_login_has_its_code_and_one_answer_for_unknown_and_wrong() {
    let edge = edge("");
    let tried = |username: &str| {
        let reply = post_json(&edge, &[OWN], &json!({ "username": username, "password": "x" })).without_date();
        let mut body = reply.json();
        body.as_object_mut().unwrap().remove("request_id");
        (reply.status, reply.error(), reply.headers, body)
    };
    // Attack 44: an unknown user costs the check of a password, as a wrong password does.
    let checks = || edge.series("rotogate_password_check_duration_seconds_count");
    let unknown = tried("nobody");
    assert_eq!(checks(), 1);
    let wrong = tried("demo");
    assert_eq!(checks(), 2);
    assert_eq!((wrong.0, &*wrong.1), (401, "invalid_credentials"));
    assert_eq!(unknown, wrong);
    for body in [json!({}), json!([]), json!({ "username": "demo" }), json!({ "username": 1, "password": "x" })] {
        let reply = post_json(&edge, &[OWN], &body);
        assert_eq!((reply.status, reply.error()), (400, "invalid_request".to_owned()), "{body}");
    }
    let long = json!({ "username": "demo", "password": "x".repeat(33_000) });
    let reply = post_json(&edge, &[OWN], &long);
    assert_eq!((reply.status, reply.error()), (400, "invalid_request".to_owned()));
    // A form is shown again, with the reason and its target.
    let form = edge.form("/auth/login", &[OWN], &[("username", "demo"), ("password", "x"), ("to", "/a?b")]);
    assert_eq!(form.status, 401);
    assert!(form.text().contains("The user name or the password is wrong.") && form.text().contains("value=\"/a?b\""));
    assert_eq!(edge.series("rotogate_browser_logins_total{result=\"invalid_credentials\"}"), 3);
}

#[test]
fn b8_b17_each_login_makes_a_new_session_and_ends_the_one_that_the_browser_presents() {
    let edge = edge("profile = { grace = \"1s\" }\n");
    let planted = log_in(&edge);
    // Attacks 18 and 19. Of the same user it ends after `grace`, so that requests under way pass.
    let reply = post_json(&edge, &[OWN, &planted], &credentials(&edge));
    let fresh = cookie(&reply);
    assert_ne!(fresh, planted);
    assert_eq!(state(&edge, &fresh)["authenticated"], true);
    let ended = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        state(&edge, &planted)["authenticated"] == false
    });
    assert!(ended && state(&edge, &fresh)["authenticated"] == true);
    // A cookie that no key of this gate made counts as no cookie.
    let garbage = post_json(&edge, &[OWN, "Cookie: __Host-Http-rg=rc1_AAAA"], &credentials(&edge));
    assert_eq!(garbage.status, 200);
    // Attack 20.
    let two = format!("{fresh}; {}", planted.trim_start_matches("Cookie: "));
    let twice = post_json(&edge, &[OWN, &two], &credentials(&edge));
    assert_eq!((twice.status, twice.error()), (400, "invalid_request".to_owned()));
    assert_eq!(edge.ask("GET /auth/session", &[&two, SAME_ORIGIN]).status, 400);
    for other in [fresh.replace("__Host-Http-rg", "__host-http-rg"), fresh.replace("__Host-Http-rg", "rg")] {
        assert_eq!(state(&edge, &other)["authenticated"], false);
    }
}

#[test]
fn b18_b25_a_logout_ends_the_session_at_once_and_clears_the_cookie() {
    let edge = edge("");
    let held = log_in(&edge);
    // Attacks 1 and 33: no other page ends it, and no GET does.
    for headers in [&[][..], &[EVIL], &["Origin: null"], &["Sec-Fetch-Site: cross-site"]] {
        let reply = post(&edge, "/auth/logout", &[&[held.as_str()], headers].concat(), "");
        assert_eq!((reply.status, reply.all("set-cookie").len()), (403, 0), "{headers:?}");
    }
    let foreign = [held.as_str(), "Sec-Fetch-Site: cross-site"];
    for reply in [edge.ask("GET /auth/logout", &foreign), head(&edge, "/auth/logout", &foreign)] {
        assert_eq!((reply.status, reply.all("set-cookie").len()), (200, 0));
    }
    assert_eq!(state(&edge, &held)["authenticated"], true);
    let out = post(&edge, "/auth/logout", &[OWN, &held], "");
    assert_eq!((out.status, out.json()), (200, json!({ "logout": null })));
    assert_eq!(out.header("set-cookie"), "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    assert_eq!(state(&edge, &held)["authenticated"], false);
    // Again, and without a session: nothing is left to end.
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held], "").status, 200);
    let form = edge.form("/auth/logout", &[OWN], &[]);
    assert_eq!((form.status, form.all("refresh").len()), (200, 0));
    assert!(form.text().contains("You are logged out"));
}

#[test]
fn b20_the_state_of_a_session_is_for_our_own_pages() {
    let edge = edge_with("", "[cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n");
    let held = log_in(&edge);
    for good in [
        &[SAME_ORIGIN][..],
        &["Sec-Fetch-Site: none"],
        &[],
        &["Origin: https://app.example", "Sec-Fetch-Site: cross-site"],
    ] {
        let reply = edge.ask("GET /auth/session", &[&[held.as_str()], good].concat());
        assert_eq!((reply.status, &reply.json()["authenticated"]), (200, &json!(true)), "{good:?}");
    }
    for bad in
        [&[EVIL][..], &["Sec-Fetch-Site: same-site"], &["Sec-Fetch-Site: cross-site"], &["Origin: null"], &[OWN, OWN]]
    {
        let reply = edge.ask("GET /auth/session", &[&[held.as_str()], bad].concat());
        assert_eq!((reply.status, reply.error()), (403, "cross_origin".to_owned()), "{bad:?}");
    }
    let listed = edge.ask("GET /auth/session", &["Origin: https://app.example"]);
    assert_eq!(listed.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(listed.json(), json!({ "authenticated": false, "login": "/auth/login" }));
}

#[test]
fn b26_the_pages_have_their_headers_no_script_and_405_for_other_methods() {
    let edge = edge("");
    for path in ["/auth/login?to=%2Fx", "/auth/logout"] {
        let page = edge.ask(&format!("GET {path}"), &[]);
        assert_eq!(page.status, 200);
        // Attack 32.
        assert_eq!((page.header("x-frame-options"), page.header("x-content-type-options")), ("DENY", "nosniff"));
        assert_eq!((page.header("cache-control"), page.header("referrer-policy")), ("no-store", "same-origin"));
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "style-src 'sha256-",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!page.text().to_lowercase().contains("<script"));
        let head = head(&edge, path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
    for line in ["PUT /auth/login", "DELETE /auth/session", "POST /auth/session", "PATCH /auth/logout"] {
        let reply = edge.ask(line, &[OWN, "Content-Length: 0"]);
        assert_eq!(reply.status, 405, "{line}");
        assert!(reply.header("allow").contains("GET"));
    }
    for near in ["/AUTH/login", "/auth/login/", "/auth//login", "/%61uth/login"] {
        assert_eq!(edge.ask(&format!("GET {near}"), &[]).status, 404, "{near}");
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn a_page_of_the_application_is_led_to_with_error_and_target() {
    let edge = edge("page = \"/public/signin\"\nafter_logout = \"/public/bye\"\n");
    assert_eq!(edge.ask("GET /auth/login?to=%2Fx", &[]).header("location"), "https://gate.test/public/signin?to=%2Fx");
    let failed = edge.form("/auth/login", &[OWN], &[("username", "demo"), ("password", "x"), ("to", "/x")]);
    let location = "https://gate.test/public/signin?error=invalid_credentials&to=%2Fx";
    assert_eq!((failed.status, failed.header("location")), (303, location));
    assert_eq!(edge.form("/auth/logout", &[OWN], &[]).header("refresh"), "0;url=https://gate.test/public/bye");
    let none = self::edge("page = \"none\"\n");
    assert_eq!(none.ask("GET /auth/login", &[]).status, 404);
}

pub(crate) const NAVIGATE: [&str; 2] = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
const FETCH: [&str; 2] = ["Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"];
const CROSS_SITE: &str = "Sec-Fetch-Site: cross-site";
const SAME_SITE: &str = "Sec-Fetch-Site: same-site";

#[test]
fn b15_b16_b20_b21_other_pages_cannot_use_a_session() {
    let edge = edge("");
    let held = log_in(&edge);
    let ask = |line: &str, more: &[&str]| edge.ask(line, &[&[held.as_str()], more].concat());
    let change = ["Content-Length: 0"];
    let refused: [(&str, &[&str]); 12] = [
        // 1: a form of another site; 2: of a sibling subdomain; 3: of a sandboxed frame, or with neither header.
        ("POST", &[EVIL, CROSS_SITE, NAVIGATE[0], NAVIGATE[1]]),
        ("POST", &["Origin: https://www.gate.test", SAME_SITE, NAVIGATE[0], NAVIGATE[1]]),
        ("POST", &["Origin: null", CROSS_SITE]),
        ("POST", &[]),
        ("PUT", &["Sec-Fetch-Site: none"]),
        ("DELETE", &[EVIL, SAME_ORIGIN]),
        // 4: an image or a script of another page; 6: a fetch from an origin that is not listed.
        ("GET", &[CROSS_SITE, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"]),
        ("GET", &[SAME_SITE, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"]),
        ("GET", &[EVIL, CROSS_SITE, FETCH[0], FETCH[1]]),
        ("GET", &[EVIL]),
        ("GET", &[SAME_SITE, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"]),
        ("GET", &[SAME_ORIGIN, SAME_ORIGIN]),
    ];
    for (method, headers) in refused {
        let more = if method == "GET" { headers.to_vec() } else { [headers, &change].concat() };
        let reply = ask(&format!("{method} /app/x"), &more);
        assert_eq!(reply.status, 403, "{method} {headers:?}");
        assert!(reply.all("access-control-allow-origin").is_empty() && reply.all("set-cookie").is_empty());
        assert!(edge.stub.take().is_empty(), "{method} {headers:?}");
    }
    let admitted: [(&str, &[&str]); 6] = [
        ("GET", &[CROSS_SITE, NAVIGATE[0], NAVIGATE[1]]),
        ("GET", &[SAME_ORIGIN, FETCH[0], FETCH[1]]),
        ("GET", &[]),
        ("POST", &[OWN, change[0]]),
        ("POST", &[SAME_ORIGIN, change[0]]),
        ("POST", &["Origin: null", SAME_ORIGIN, change[0]]),
    ];
    for (method, headers) in admitted {
        let reply = ask(&format!("{method} /app/x"), &[&["Cookie: theme=dark"], headers].concat());
        assert_eq!(reply.status, 200, "{method} {headers:?}");
        let seen = edge.stub.one();
        assert_eq!(seen.all("x-auth-subject").len(), 1);
        assert!(seen.all("cookie").iter().all(|cookie| !cookie.contains("__Host-Http-rg")), "{method} {headers:?}");
        assert!(seen.all("authorization").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b20_other_pages_cannot_use_a_session_over_http_2_either() {
    let edge = edge("");
    let held = log_in(&edge);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let pairs: [(&str, &[&str], u16); 10] = [
        ("POST", &[EVIL, CROSS_SITE], 403),
        ("POST", &["Origin: https://www.gate.test", SAME_SITE], 403),
        ("POST", &["Origin: null", CROSS_SITE], 403),
        ("POST", &[], 403),
        ("GET", &[SAME_SITE, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"], 403),
        ("GET", &[SAME_ORIGIN, SAME_ORIGIN], 403),
        ("GET", &[SAME_ORIGIN, &held], 400),
        ("POST", &[OWN], 200),
        ("GET", &[SAME_ORIGIN], 200),
        // A browser divides its cookies into several fields (RFC 9113 §8.2.3).
        ("GET", &[SAME_ORIGIN, "Cookie: app=1"], 200),
    ];
    for (method, headers, status) in pairs {
        let mut request = Request::builder().method(method).uri(format!("http://{}/app/x", edge.gate.address));
        for line in [&[held.as_str()], headers].concat() {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let reply = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!((reply.version(), reply.status().as_u16()), (Version::HTTP_2, status), "{method} {headers:?}");
        let received = edge.stub.take();
        assert_eq!(received.len(), usize::from(status == 200), "{method} {headers:?}");
        let own = if headers.contains(&"Cookie: app=1") { vec!["app=1"] } else { vec![] };
        assert!(received.iter().all(|one| one.all("cookie") == own), "{method} {headers:?}");
    }
}

#[test]
fn b22_a_websocket_of_another_page_is_refused_before_the_upstream() {
    let edge = edge("");
    let held = log_in(&edge);
    let upgrade = [
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    // Attack 5.
    for origin in [&[EVIL][..], &["Origin: https://www.gate.test", SAME_SITE], &["Origin: null"], &[], &[CROSS_SITE]] {
        let reply = edge.ask("GET /app/ws", &[&[held.as_str()], &upgrade[..], origin].concat());
        assert_eq!(reply.status, 403, "{origin:?}");
    }
    assert_eq!(edge.ask("GET /app/ws", &[&upgrade[..], &[OWN]].concat()).status, 401, "without a session");
    assert!(edge.stub.take().is_empty());
}

#[test]
fn b36_a_tab_is_led_to_the_login_and_a_script_is_told_where_it_is() {
    let edge = edge("");
    let html = "Accept: text/html,*/*;q=0.8";
    for headers in [&NAVIGATE[..], &[html]] {
        let reply = edge.ask("GET /app/x?y=z", headers);
        let location = "https://gate.test/auth/login?to=%2Fapp%2Fx%3Fy%3Dz";
        assert_eq!(
            (reply.status, reply.header("location"), reply.header("cache-control")),
            (303, location, "no-store")
        );
    }
    let form = edge.ask("POST /app/x", &[NAVIGATE[0], NAVIGATE[1], OWN, "Content-Length: 0"]);
    assert_eq!((form.status, form.header("x-frame-options")), (401, "DENY"));
    assert!(form.text().contains("was not sent") && form.header("www-authenticate").starts_with("Bearer"));
    // Attack 34, and all that no tab shows.
    let told: [(&str, &[&str]); 9] = [
        ("GET /app/x", &[NAVIGATE[0], NAVIGATE[1], "Sec-Purpose: prefetch"]),
        ("GET /app/x", &[NAVIGATE[0], NAVIGATE[1], "Sec-Purpose: prefetch;prerender"]),
        ("GET /app/x", &[html, "Purpose: prefetch"]),
        ("GET /app/x", &FETCH),
        ("GET /app/x", &[NAVIGATE[0], "Sec-Fetch-Dest: iframe"]),
        ("GET /app/x", &["Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"]),
        ("GET /app/x", &[html, "X-Requested-With: XMLHttpRequest"]),
        ("GET /app/x", &["Accept: text/event-stream"]),
        // `login = "never"`.
        ("GET /api/x", &NAVIGATE),
    ];
    for (line, headers) in told {
        let reply = edge.ask(line, headers);
        assert_eq!((reply.status, reply.header("content-type")), (401, "application/problem+json"), "{headers:?}");
        let said = reply.json();
        assert_eq!((&said["status"], &said["login"]), (&json!(401), &json!("/auth/login")), "{headers:?}");
        assert!(reply.header("www-authenticate").starts_with("Bearer") && reply.all("set-cookie").is_empty());
    }
    assert_eq!(head(&edge, "/app/x", &NAVIGATE).status, 401);
    // A route without sessions, a bad bearer token, an optional route: as ever.
    assert_eq!(edge.ask("GET /tokens/x", &NAVIGATE).status, 401);
    let bearer = edge.ask_as("eyJx", "GET /app/x", &NAVIGATE);
    assert_eq!((bearer.status, bearer.json().get("login")), (401, None));
    assert_eq!(edge.ask("GET /open/x", &NAVIGATE).status, 200);
    let seen = edge.stub.one();
    assert!(seen.all("x-auth-subject").is_empty());
    assert!(edge.stub.take().is_empty());
}

#[test]
fn b16_a_bearer_token_decides_alone_beside_a_cookie() {
    let edge = edge("");
    let held = log_in(&edge);
    // Attack 28: a bad token never falls back.
    let token = edge.login().access;
    for bad in ["x", "eyJhbGciOiJub25lIn0.e30.", &format!("{token}x")] {
        assert_eq!(edge.ask_as(bad, "GET /app/x", &[&held]).status, 401);
    }
    assert!(edge.stub.take().is_empty());
    // Attack 29. The origin counts for the cookie, which is not used.
    assert_eq!(edge.ask_as(&token, "POST /app/x", &[&held, EVIL, "Content-Length: 0"]).status, 200);
    let seen = edge.stub.one();
    assert_eq!(seen.all("x-auth-client"), ["web"]);
    assert!(seen.all("cookie").is_empty() && seen.all("authorization").is_empty());
    // Two of our cookies, and garbage of its form.
    let two = format!("{held}; {}", held.trim_start_matches("Cookie: "));
    assert_eq!(edge.ask("GET /app/x", &[&two]).status, 400);
    let other = log_in(&edge);
    // Attack 21: the end of one on the begin of another.
    let spliced = format!("{}{}", &held[..60], &other[60..]);
    for none in [spliced.as_str(), "Cookie: __Host-Http-rg=rc1_AAAA", "Cookie: __Host-Http-rg="] {
        assert_eq!(edge.ask("GET /app/x", &[none]).status, 401, "{none}");
        assert_eq!(edge.ask("GET /tokens/x", &[&held]).status, 401, "the route takes tokens alone");
    }
}

#[test]
fn b12_b18_a_session_that_is_over_is_refused_at_the_next_request_and_its_cookie_cleared() {
    let edge = edge("");
    let held = log_in(&edge);
    assert_eq!(edge.ask("GET /app/x", &[&held]).status, 200);
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held], "").status, 200);
    // Attack 23.
    let over = edge.ask("GET /app/x", &[&held]);
    assert_eq!((over.status, &over.json()["login"]), (401, &json!("/auth/login")));
    assert_eq!(over.header("set-cookie"), "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    let tab = edge.ask("GET /app/x", &[&held, NAVIGATE[0], NAVIGATE[1]]);
    assert_eq!((tab.status, tab.all("set-cookie").len()), (303, 1));
    let second = log_in(&edge);
    assert_eq!(edge.ask("GET /app/x", &[&second]).status, 200);
    edge.place.point_commands_at(&edge.gate);
    edge.place.done(&["session", "revoke", "--user", "demo"], "");
    assert_eq!(edge.ask("GET /app/x", &[&second]).status, 401);
}

#[test]
fn b23_each_refusal_has_the_cors_headers() {
    let edge = edge_with("", "[cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n");
    let listed = "Origin: https://app.example";
    let held = log_in(&edge);
    let replies = [
        edge.ask("GET /app/x", &[listed, FETCH[0], FETCH[1]]),
        edge.ask("GET /app/x", &[listed, &held, &held]),
        post_json(&edge, &[listed], &json!({ "username": "demo", "password": "wrong" })),
        post_json(&edge, &[listed], &json!({})),
        edge.ask("GET /auth/session", &[listed, SAME_ORIGIN, SAME_ORIGIN]),
        edge.ask("PUT /auth/session", &[listed, "Content-Length: 0"]),
    ];
    for (reply, status) in replies.iter().zip([401, 400, 401, 400, 403, 405]) {
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        assert!(reply.all("vary").iter().any(|vary| vary.to_lowercase().contains("origin")), "{reply:?}");
    }
    // A listed page may log in, and use the session.
    let login = post_json(&edge, &[listed], &credentials(&edge));
    assert_eq!((login.status, login.header("access-control-allow-credentials")), (200, "true"));
    assert_eq!(edge.ask("POST /app/x", &[listed, &cookie(&login), CROSS_SITE, "Content-Length: 0"]).status, 200);
    // The preflight of its login.
    let preflight = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"];
    let answer = |origin: &str| edge.ask("OPTIONS /auth/login", &[&[origin], &preflight[..]].concat());
    let asked = answer(listed);
    assert_eq!(asked.header("access-control-allow-origin"), "https://app.example", "{asked:?}");
    assert_eq!(asked.header("access-control-allow-credentials"), "true");
    assert!(asked.header("access-control-allow-methods").contains("POST"), "{asked:?}");
    assert!(answer(EVIL).all("access-control-allow-origin").is_empty());
    // An address with too many cookies that are forged.
    let more = "[cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n\
                [limits]\nfor_tests.forged_per_address = \"1/1h\"\n";
    let flooded = edge_with("", more);
    let forged = format!("Cookie: __Host-Http-rg=rc1_{:0>87}", 1);
    let refused = (0..5).map(|_| flooded.ask("GET /app/x", &[listed, &forged])).find(|reply| reply.status == 429);
    assert_eq!(refused.expect("a limit").header("access-control-allow-credentials"), "true");
    // Without `allow_credentials`, pages of a listed origin cannot use the cookie.
    let without = edge_with("", "[cors]\norigins = [\"https://app.example\"]\n");
    let held = log_in(&without);
    assert_eq!(without.ask("POST /app/x", &[listed, &held, "Content-Length: 0"]).status, 403);
    assert_eq!(post_json(&without, &[listed], &credentials(&without)).status, 403);
}

#[test]
fn b24_with_csrf_header_scripts_need_it() {
    let edge = edge("csrf_header = \"x-csrf\"\n");
    let held = log_in(&edge);
    let script = [SAME_ORIGIN, FETCH[0], FETCH[1]];
    let ask = |line: &str, more: &[&str]| edge.ask(line, &[&[held.as_str()], &script[..], more].concat()).status;
    assert_eq!((ask("GET /app/x", &[]), ask("GET /app/x", &["x-csrf: 1"])), (403, 200));
    assert_eq!((ask("GET /auth/session", &[]), ask("GET /auth/session", &["x-csrf: 1"])), (403, 200));
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held, FETCH[0], FETCH[1]], "").status, 403);
    // A navigation and a form need no such header.
    assert_eq!(edge.ask("GET /app/x", &[&held, NAVIGATE[0], NAVIGATE[1], CROSS_SITE]).status, 200);
    let form = ["Content-Length: 0", OWN, SAME_ORIGIN, NAVIGATE[0], NAVIGATE[1]];
    assert_eq!(edge.ask("POST /app/x", &[&[held.as_str()], &form[..]].concat()).status, 200);
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held, FETCH[0], FETCH[1], "X-Csrf: 1"], "").status, 200);
}

#[test]
fn b56_logins_and_logouts_are_in_the_audit_trail_and_counted() {
    let config = HEAD.replace("http://gate.test", "https://gate.test") + &ROUTES.replace("@keys@", "");
    let config = format!("{config}[audit_log]\noutput = \"logs/audit.log\"\n");
    let edge = Edge::with(&config, |place| std::fs::create_dir(place.path("logs")).unwrap(), |_| {});
    let held = log_in(&edge);
    post_json(&edge, &[OWN], &json!({ "username": "<script>", "password": "x" }));
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held], "").status, 200);
    assert_eq!(edge.series("rotogate_browser_logins_total{result=\"ok\"}"), 1);
    assert!(!edge.metrics().contains("<script>"));
    let Edge { gate, place, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    let lines = super::audit_schema::lines(&place.path("logs/audit.log"));
    let of = |action: &str| lines.iter().filter(|line| line["event.action"] == action).collect::<Vec<_>>();
    let (login, logout) = (of("browser.login"), of("browser.logout"));
    assert_eq!((login.len(), logout.len()), (1, 1));
    assert_eq!((&login[0]["rotogate.dialect"], &login[0]["user.name"]), (&json!("browser"), &json!("demo")));
    assert_eq!(login[0]["session.id"], logout[0]["session.id"]);
    assert_eq!(of("session.start_refused").len(), 1);
    assert!(lines.iter().all(|line| !line.to_string().contains("rc1_")));
}

#[test]
fn b3_garbage_cookies_reach_no_store_and_count_as_forged_at_the_endpoint_too() {
    // Attack 22.
    let edge = edge_with("", "[limits]\nfor_tests.forged_per_address = \"100000/1s\"\n");
    let held = log_in(&edge);
    let forged = |n: u32| {
        let text = format!("{n:0>87}");
        format!("Cookie: __Host-Http-rg=rc1_{text}")
    };
    let reads = "rotogate_verifications_total{result=\"forged\"}";
    for n in 0..200 {
        assert_eq!(edge.ask("GET /app/x", &[&forged(n)]).status, 401);
    }
    assert_eq!(edge.series(reads), 200);
    assert_eq!(edge.ask("GET /app/x", &[&held]).status, 200);

    // At most so many of an address, wherever they come in.
    let edge = edge_with("", "[limits]\nfor_tests.forged_per_address = \"20/1h\"\n");
    for n in 0..25 {
        assert_eq!(edge.ask("GET /auth/session", &[&forged(n), SAME_ORIGIN]).json()["authenticated"], false);
    }
    assert_eq!(edge.ask("GET /app/x", &[&forged(99)]).status, 429);
}

#[test]
fn b15_b27_nothing_of_the_session_comes_from_behind_the_gate_and_no_shared_cache_keeps_a_reply() {
    let edge = edge("");
    let held = log_in(&edge);
    // Attack 30: an upstream that sends back what it got, and one that sets our cookies.
    let lines = "Set-Cookie: __Host-Http-rg=rc1_x; Path=/; Secure\r\nSet-Cookie: __Host-Http-rg-tx-abcdefgh=x\r\n\
                 Set-Cookie: theme=dark\r\n";
    edge.stub.put("/app/sets", lines, b"ok");
    let reply = edge.ask("GET /app/sets", &[&held, "X-Echo: 1"]);
    assert_eq!((reply.status, reply.all("set-cookie")), (200, vec!["theme=dark"]));
    let seen = format!("{:?}", edge.stub.one());
    assert!(!seen.contains("rc1_") && !seen.contains("eyJ"), "there is nothing to echo: {seen}");
    // Attack 31.
    assert_eq!((reply.header("cache-control"), reply.header("vary")), ("private", "Cookie"));
    edge.stub.put("/app/kept", "Cache-Control: public, max-age=60\r\nVary: Accept\r\n", b"ok");
    let kept = edge.ask("GET /app/kept", &[&held]);
    assert_eq!((kept.header("cache-control"), kept.all("vary")), ("public, max-age=60", vec!["Accept", "Cookie"]));
}

#[test]
fn b18_an_optional_route_clears_the_cookie_of_a_session_that_is_over() {
    let edge = edge("");
    let held = log_in(&edge);
    assert!(edge.ask("GET /open/x", &[&held]).all("set-cookie").is_empty());
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &held], "").status, 200);
    edge.stub.take();
    let over = edge.ask("GET /open/x", &[&held]);
    let cleared = "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0";
    assert_eq!((over.status, over.header("set-cookie"), over.header("cache-control")), (200, cleared, "private"));
    assert!(edge.stub.one().all("x-auth-subject").is_empty());
    // The gate does not clear a cookie that none of its keys made.
    assert!(edge.ask("GET /open/x", &["Cookie: __Host-Http-rg=rc1_AAAA"]).all("set-cookie").is_empty());
}

#[test]
fn b13_browser_sessions_are_listed_and_ended_like_others() {
    let more = "[[endpoints]]\ndialect = \"my-sessions\"\npath = \"/account/sessions\"\n";
    let edge = edge_with("", more);
    edge.place.point_commands_at(&edge.gate);
    let token = edge.login().access;
    let listed = || -> Vec<String> {
        let said = edge.place.run(&["session", "list", "--user", "demo", "--json"], "").stdout;
        let sessions: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_browser =
            sessions.iter().filter(|session| session["dialect"] == "browser" && session["status"] == "live");
        of_browser.map(|session| session["id"].as_str().unwrap().to_owned()).collect()
    };
    // By the command line, which asks the API of the admin listener, as its page does.
    let held = log_in(&edge);
    let [id] = &listed()[..] else { panic!("one session of a browser") };
    edge.place.done(&["session", "revoke", id], "");
    assert_eq!(edge.ask("GET /app/x", &[&held]).status, 401);
    assert!(listed().is_empty());
    // By the user, at the endpoint of their own sessions.
    let held = log_in(&edge);
    let [id] = &listed()[..] else { panic!("one session of a browser") };
    let mine = edge.ask_as(&token, "GET /account/sessions", &[]);
    assert!(mine.text().contains(id.as_str()), "{mine:?}");
    let ended = edge.ask_as(&token, &format!("DELETE /account/sessions/{id}"), &[]);
    assert!((200..300).contains(&ended.status), "{ended:?}");
    assert_eq!(edge.ask("GET /app/x", &[&held]).status, 401);
}

#[test]
fn b13_sessions_of_browsers_count_towards_the_most_that_a_user_may_have() {
    let most = |rule: &str| {
        edge_with("", &format!("[sessions]\nmax_sessions_per_subject = 2\nfor_tests.on_too_many = \"{rule}\"\n"))
    };
    let edge = most("end-oldest");
    let held: Vec<_> = (0..3).map(|_| log_in(&edge)).collect();
    let statuses: Vec<_> = held.iter().map(|held| edge.ask("GET /app/x", &[held]).status).collect();
    assert_eq!(statuses, [401, 200, 200]);
    let edge = most("refuse");
    let held = [log_in(&edge), log_in(&edge)];
    let third = post_json(&edge, &[OWN], &credentials(&edge));
    assert_eq!((third.status, third.error(), third.all("set-cookie").len()), (403, "too_many_sessions".to_owned(), 0));
    assert!(held.iter().all(|held| edge.ask("GET /app/x", &[held]).status == 200));
}

#[test]
fn b15_an_upstream_gets_the_session_and_an_assertion_as_for_a_token() {
    let edge = edge_with("", "[identity]\nassertion = { header = \"X-Auth-Assertion\" }\n");
    let held = log_in(&edge);
    edge.place.point_commands_at(&edge.gate);
    let sessions = edge.place.json_lines(&["session", "list"]);
    let [session] = &sessions[..] else { panic!("one session") };
    assert_eq!(edge.ask("GET /app/x", &[&held]).status, 200);
    let received = edge.stub.one();
    assert_eq!(received.all("x-auth-session"), [session["id"].as_str().unwrap()]);
    let [assertion] = received.all("x-auth-assertion")[..] else { panic!("one assertion") };
    let said = verified(&edge, assertion).1;
    let expected =
        json!({ "sub": session["subject"], "sid": session["id"], "aud": "app", "origin_iss": "https://gate.test" });
    for (claim, value) in expected.as_object().unwrap() {
        assert_eq!(&said[claim], value, "{claim}");
    }
}

#[test]
fn k5_a_page_makes_keys_of_its_user_by_the_cookie_of_a_login_that_is_fresh() {
    let more = "[[endpoints]]\ndialect = \"my-keys\"\npath = \"/account/keys\"\nfor_tests.max_age = \"2s\"\n\
                [[routes]]\npath = \"/machines/{*rest}\"\nupstream = \"app\"\ncredentials = [\"key\"]\n\
                [api_keys]\nprefix = \"acme\"\n";
    let edge = edge_with("", more);
    let held = log_in(&edge);
    let create = |origin: &str| {
        post(&edge, "/account/keys", &[&held, origin, "Content-Type: application/json"], "{\"name\": \"of a page\"}")
    };
    for evil in [EVIL, "Sec-Fetch-Site: cross-site"] {
        assert_eq!(create(evil).status, 403, "{evil}");
    }
    let made = create(OWN);
    assert_eq!(made.status, 201, "{}", made.text());
    let key = made.json()["key"].as_str().unwrap().to_owned();
    support::keep_secret(&key);
    let header = format!("X-API-Key: {key}");
    assert_eq!(edge.ask("GET /machines/x", &[&header]).status, 200);
    assert_eq!(edge.ask("GET /account/keys", &[&header]).status, 401);
    // The same cookie, once its login is too old for a change.
    let unknown = || edge.ask("DELETE /account/keys/x", &[&held, OWN, "Content-Length: 0"]).status;
    let statuses: Vec<u16> = std::iter::repeat_with(|| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        unknown()
    })
    .take(15)
    .take_while(|status| *status == 404)
    .collect();
    assert!(statuses.len() < 15, "{statuses:?}");
    assert_eq!((unknown(), create(OWN).status), (401, 401));
    assert_eq!(edge.ask("GET /machines/x", &[&header]).status, 200, "the key lives on");
}

#[test]
fn b13_a_user_lists_and_ends_own_sessions_by_the_cookie_alone() {
    let more = "[[endpoints]]\ndialect = \"my-sessions\"\npath = \"/account/sessions\"\nfor_tests.max_age = \"10s\"\n\
                [cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n";
    let edge = edge_with("", more);
    let (held, other) = (log_in(&edge), log_in(&edge));
    let length = "Content-Length: 0";
    let listed = |headers: &[&str]| edge.ask("GET /account/sessions", headers);
    let mine = listed(&[&held, SAME_ORIGIN]);
    let sessions = mine.json()["sessions"].as_array().unwrap().clone();
    assert_eq!((mine.status, sessions.len(), mine.all("set-cookie").len()), (200, 2, 0), "{}", mine.text());
    let [current, another] = [true, false].map(|is_current| {
        let one = sessions.iter().find(|session| session["current"] == is_current).unwrap();
        format!("/account/sessions/{}", one["id"].as_str().unwrap())
    });
    assert_eq!(listed(&[&held, "Origin: https://app.example"]).status, 200);
    // The table of requests of other pages, for a list too.
    for bad in [&[EVIL][..], &["Sec-Fetch-Site: same-site"], &["Sec-Fetch-Site: cross-site"], &["Origin: null"]] {
        let headers = [&[held.as_str(), length], bad].concat();
        for line in ["GET /account/sessions", &format!("DELETE {another}"), "DELETE /account/sessions?others"] {
            let reply = edge.ask(line, &headers);
            assert_eq!(reply.status, 403, "{line} {bad:?}");
        }
    }
    // A bearer token decides alone, and a bad one never falls back.
    assert_eq!(edge.ask_as("a.b.c", "GET /account/sessions", &[&held, SAME_ORIGIN]).status, 401);
    let by_token = edge.ask_as(&edge.login().access, "GET /account/sessions", &[&held, EVIL]);
    assert_eq!((by_token.status, by_token.json()["sessions"].as_array().unwrap().len()), (200, 3));
    for (bad, status) in [(format!("{held}; {}", other.trim_start_matches("Cookie: ")), 400), (format!("{held}x"), 401)]
    {
        assert_eq!(listed(&[&bad, SAME_ORIGIN]).status, status, "{bad}");
    }
    // Another session of the user, then this one.
    let end = |line: &str| edge.ask(&format!("DELETE {line}"), &[&held, OWN, length]);
    assert_eq!(end(&another).json()["ended"], 1);
    assert_eq!(state(&edge, &other)["authenticated"], false);
    assert_eq!(end("/account/sessions?others").json()["ended"], 1, "the one of the token");
    assert_eq!(end(&current).json()["ended"], 1);
    assert_eq!(
        (listed(&[&held, SAME_ORIGIN]).status, state(&edge, &held)["authenticated"].clone()),
        (401, json!(false))
    );
}
