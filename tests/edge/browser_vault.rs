//! The provider's tokens behind the session of a browser, at the real binary: refreshed once, forwarded, revoked. The
//! provider says what the test puts there. An access token that is over at once is due at the next request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::browser_oidc::{OWN, SAME_ORIGIN, World, session, set_cookies, world_on, world_with};
use super::client_assertions::reload;
use support::documents::Documents;
use support::wire::Reply;
use support::{keep_secret, until};

/// A route that forwards the provider's access token, beside the one of all tests, which forwards the user alone.
pub(crate) const FORWARDING: &str = "[[routes]]\npath = \"/api/{*rest}\"\ncredentials = [\"token\", \"session\"]\n\
                          login = \"auto\"\nforward_token = true\nupstream = \"app\"\n";

/// A renewal is due after two seconds.
const STREAMS: &str = "profile = { access_ttl = \"2s\", grace = \"1s\", lost_response_window = \"1s\" }\n";

fn world() -> World {
    world_with(FORWARDING, &json!({}))
}

impl World {
    /// The answer of the token endpoint: these tokens.
    pub(crate) fn grant(&self, tokens: &Value) {
        for token in tokens.as_object().unwrap().values().filter_map(Value::as_str).filter(|text| text.len() > 8) {
            keep_secret(token);
        }
        let mut reply = json!({ "token_type": "Bearer" });
        reply.as_object_mut().unwrap().extend(tokens.as_object().unwrap().clone());
        self.provider.document("/token", &reply);
    }

    fn refuse(&self, line: &str, error: &str) {
        let body = json!({ "error": error }).to_string();
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.provider.answer("/token", answer);
    }

    /// A session, with these tokens besides the ID token.
    pub(crate) fn log_in_with(&self, tokens: &Value) -> String {
        let begun = self.begin("/");
        let mut all =
            json!({ "access_token": "first-access-token", "id_token": self.id_token(&begun, &json!({}), &json!({})) });
        all.as_object_mut().unwrap().extend(tokens.as_object().unwrap().clone());
        self.grant(&all);
        session(&self.come_back_with_code(&begun))
    }

    /// A session whose access token is over at once.
    pub(crate) fn log_in_due(&self) -> String {
        self.log_in_with(&json!({ "refresh_token": "first-refresh-token", "expires_in": 0 }))
    }

    pub(crate) fn get(&self, path: &str, cookie: &str) -> Reply {
        self.edge.ask(&format!("GET {path}"), &[cookie, SAME_ORIGIN])
    }

    /// The token that the upstream gets.
    pub(crate) fn forwarded(&self, cookie: &str) -> String {
        let reply = self.get("/api/x", cookie);
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.edge.stub.one().all("authorization").join(",")
    }
}

const JAG: &str = r#"
[[providers]]
name = "kc"
issuer = "kc"
token_url = "@servers@/exchange"
client = { id = "web", secret_file = "kc.secret" }
[[providers]]
name = "wiki"
token_url = "@servers@/as"
client = { id = "gate-at-wiki", secret_file = "kc.secret" }
[[upstreams]]
name = "wiki"
urls = ["http://@upstream@"]
exchange = { provider = "kc", form = "id-jag", audience = "https://as.wiki.test", scope = ["read"], authorization_server = "wiki" }
[[routes]]
path = "/wiki/{*rest}"
credentials = ["session"]
upstream = "wiki"
"#;

#[test]
fn d31_an_upstream_gets_the_token_of_its_own_server_for_the_id_token_of_a_session() {
    let servers = Documents::start();
    let world = world_with(&JAG.replace("@servers@", &servers.url()), &json!({}));
    let (jag, token) = ("an-identity-assertion", "a-token-of-the-wiki");
    [jag, token].into_iter().for_each(keep_secret);
    let kind = "urn:ietf:params:oauth:token-type:id-jag";
    let granted = json!({ "access_token": jag, "issued_token_type": kind, "token_type": "N_A", "expires_in": 300 });
    servers.document("/exchange", &granted);
    servers.document("/as", &json!({ "access_token": token, "token_type": "Bearer", "expires_in": 300 }));
    let held = world.log_in_with(&json!({ "expires_in": 3600 }));
    for _ in 0..3 {
        let reply = world.get("/wiki/x", &held);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let received = world.edge.stub.one();
        assert_eq!(received.all("authorization"), [format!("Bearer {token}")]);
        assert!(received.all("cookie").is_empty(), "{received:?}");
    }
    assert_eq!((servers.times("/exchange"), servers.times("/as")), (1, 1));
    let (asked, by) = servers.form("/exchange");
    assert_eq!((&*asked["requested_token_type"], &*asked["audience"]), (kind, "https://as.wiki.test"));
    assert_eq!(asked["subject_token_type"], "urn:ietf:params:oauth:token-type:id_token");
    assert_eq!(payload(&asked["subject_token"])["sub"], "ada");
    let (presented, with) = servers.form("/as");
    assert_eq!((presented.len(), &*presented["assertion"]), (2, jag), "{presented:?}");
    assert!(by.is_some() && with.is_some() && by != with, "a client of its own at each server");
    // A refusal, or a lie, of the second server: nothing reaches the upstream.
    let refused = r#"{"error":"invalid_grant"}"#;
    servers.answer("/as", format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n{refused}", refused.len()));
    let other = world.log_in_with(&json!({ "expires_in": 3600 }));
    assert_eq!((world.get("/wiki/x", &other).status, world.edge.stub.take().len()), (403, 0));
    let wide = json!({ "access_token": token, "token_type": "Bearer", "scope": "read write" });
    servers.document("/as", &wide);
    let third = world.log_in_with(&json!({ "expires_in": 3600 }));
    assert_eq!((world.get("/wiki/x", &third).status, world.edge.stub.take().len()), (503, 0));
    // The end of the session ends it.
    assert_eq!(world.get("/wiki/x", &held).status, 200);
    world.edge.stub.take();
    let mut wire = world.edge.wire();
    wire.head("POST /auth/logout", &["Host: gate.test", "Content-Length: 0", OWN, &held]);
    assert_eq!(wire.reply().status, 200);
    assert_eq!((world.get("/wiki/x", &held).status, world.edge.stub.take().len()), (401, 0));
}

fn payload(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn is_cleared(reply: &Reply) -> bool {
    set_cookies(reply).iter().any(|(name, value, _)| name == "__Host-Http-rg" && value.is_empty())
}

#[tokio::test]
async fn b40_b41_the_providers_token_is_forwarded_and_refreshed_once_it_is_due() {
    let world = world();
    let held = world.log_in_with(&json!({ "refresh_token": "first-refresh-token", "expires_in": 3600 }));
    assert_eq!(world.forwarded(&held), "Bearer first-access-token");
    // A route that does not forward it gets the user alone.
    assert_eq!(world.get("/x", &held).status, 200);
    let user = world.edge.stub.one();
    assert_eq!((user.all("authorization").len(), user.all("x-auth-subject")), (0, vec!["kc|ada"]));
    assert_eq!(user.all("x-auth-issuer"), [world.provider.url()]);
    assert_eq!(world.exchanges(), 1);
    let due = world.log_in_due();
    world.grant(
        &json!({ "access_token": "second-access-token", "refresh_token": "second-refresh-token", "expires_in": 0 }),
    );
    assert_eq!(world.exchanges(), 2);
    // Over again at once: no token that is over is forwarded.
    let again = world.get("/api/x", &due);
    assert_eq!((again.status, world.edge.stub.take().len()), (503, 0), "{}", again.text());
    let (form, authorization) = world.provider.form("/token");
    // A request that had to wait may have tried again by now, with the token that it got.
    assert_eq!(form["grant_type"], "refresh_token");
    assert!(["first-refresh-token", "second-refresh-token"].contains(&&*form["refresh_token"]), "{form:?}");
    assert!(authorization.is_some_and(|basic| basic.starts_with("Basic ")));
    world.grant(&json!({ "access_token": "third-access-token", "expires_in": "3600" }));
    until("the next refresh", async || world.get("/api/x", &due).status == 200).await;
    assert_eq!(world.edge.stub.one().all("authorization"), ["Bearer third-access-token"]);
    assert_eq!(world.provider.form("/token").0["refresh_token"], "second-refresh-token");
    let exchanges = world.exchanges();
    assert_eq!(world.forwarded(&due), "Bearer third-access-token");
    assert_eq!(world.exchanges(), exchanges);
}

#[test]
fn b40_i70_a_provider_that_does_not_continue_a_login_ends_its_session() {
    for (line, error) in [
        ("400 Bad Request", "invalid_grant"),
        ("400 Bad Request", "unauthorized_client"),
        // Auth0; GitHub; Entra ID; a word that nobody knows.
        ("403 Forbidden", "invalid_grant"),
        ("200 OK", "bad_refresh_token"),
        ("400 Bad Request", "interaction_required"),
        ("422 Unprocessable Content", "something_new"),
    ] {
        let world = world();
        let held = world.log_in_due();
        world.refuse(line, error);
        let over = world.get("/x", &held);
        assert_eq!((over.status, is_cleared(&over)), (401, true), "{}", over.text());
        assert!(over.json()["login"].as_str().is_some_and(|login| login.ends_with("/auth/login")), "{}", over.text());
        assert_eq!(world.state(&held)["authenticated"], false);
        assert_eq!(world.exchanges(), 2);
        let log = world.edge.gate.log();
        assert!(log.contains("provider-refused") && !log.contains("the provider refuses to refresh"), "{log}");
    }
    // Attack 39.
    let world = world();
    let held = world.log_in_due();
    let begun = world.begin("/");
    let other = world.id_token(&begun, &json!({}), &json!({ "sub": "eve" }));
    world.grant(&json!({ "access_token": "access-token-of-eve", "id_token": other, "expires_in": 3600 }));
    assert_eq!(world.get("/api/x", &held).status, 401);
    assert_eq!((world.state(&held)["authenticated"].clone(), world.edge.stub.take().len()), (json!(false), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s31_b40_a_refreshed_id_token_and_an_event_name_sub_where_the_subject_is_another_claim() {
    let world = world();
    let config = std::fs::read_to_string(world.edge.place.path("gateway.toml")).unwrap();
    let prefix = "subject_prefix = \"kc|\"\n";
    world.edge.place.write_config(&config.replace(prefix, &format!("{prefix}claims = {{ subject = \"sid\" }}\n")));
    reload(&world.edge, 1).await;
    let held = world.log_in_due();
    let begun = world.begin("/");
    let again = world.id_token(&begun, &json!({}), &json!({}));
    world.grant(&json!({ "access_token": "second-access-token", "id_token": again, "expires_in": 3600 }));
    assert_eq!(world.get("/x", &held).status, 200, "the provider refreshed for the same user");
    assert_eq!(world.edge.stub.one().all("x-auth-subject"), ["kc|s-1"]);
    world.revoke_there("eve");
    assert_eq!(world.get("/x", &held).status, 200);
    world.revoke_there("ada");
    assert_eq!(world.get("/x", &held).status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn b40_a_wrong_secret_ends_no_session_and_the_provider_is_asked_once_until_the_pause_or_a_reload() {
    let world = world();
    let held = world.log_in_due();
    let other = world.log_in_with(&json!({ "refresh_token": "other-refresh-token", "expires_in": 0 }));
    let before = world.exchanges();
    world.refuse("401 Unauthorized", "invalid_client");
    for (path, held) in [("/x", &held), ("/api/x", &held), ("/x", &other)] {
        let reply = world.get(path, held);
        assert_eq!((reply.status, is_cleared(&reply), reply.all("retry-after").len()), (503, false, 1));
        assert!((1..=5).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{reply:?}");
    }
    assert_eq!(world.exchanges(), before + 1, "the second session waits, too");
    assert!(world.edge.gate.log().contains("the provider refuses to refresh"));
    assert_eq!(world.state(&held)["authenticated"], true);
    // After a reload, which may bring the right secret, no session waits.
    reload(&world.edge, 1).await;
    world.grant(
        &json!({ "access_token": "second-access-token", "refresh_token": "second-refresh-token", "expires_in": 3600 }),
    );
    for held in [&held, &other] {
        assert_eq!(world.forwarded(held), "Bearer second-access-token");
    }
    assert_eq!(world.exchanges(), before + 3);
}

#[test]
fn b40_a_fault_of_the_provider_ends_no_session_and_sends_nothing_without_its_token() {
    let world = world();
    let held = world.log_in_due();
    // The user is forwarded for ten minutes while it is away, its token is not.
    world.provider.answer("/token", "HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n".to_owned());
    assert_eq!(world.get("/x", &held).status, 200);
    assert_eq!(world.edge.stub.take().len(), 1);
    let reply = world.get("/api/x", &held);
    assert_eq!((reply.status, is_cleared(&reply), world.edge.stub.take().len()), (503, false, 0), "{}", reply.text());
    // A provider that gave no refresh token.
    let held = world.log_in_with(&json!({ "expires_in": 0 }));
    assert_eq!(world.get("/x", &held).status, 200);
    world.edge.stub.take();
    let over = world.get("/api/x", &held);
    assert_eq!((over.status, is_cleared(&over), world.edge.stub.take().len()), (401, false, 0), "{}", over.text());
    let led =
        world.edge.ask("GET /api/x", &[&held, SAME_ORIGIN, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]);
    assert_eq!(
        (led.status, led.header("location")),
        (303, "https://gate.test/auth/login?refused=provider_token_over&to=%2Fapi%2Fx")
    );
}

#[tokio::test]
async fn b41_a_lost_reply_ends_this_session_alone_at_a_strict_provider() {
    let world = world();
    let (held, other) = (world.log_in_due(), world.log_in_with(&json!({ "expires_in": 3600 })));
    // The connection ends without an answer: the token may be spent.
    world.provider.answer("/token", String::new());
    assert_eq!(world.get("/x", &held).status, 200);
    let sent = world.exchanges();
    world.refuse("400 Bad Request", "invalid_grant");
    until("the token is sent once more", async || world.get("/x", &held).status == 401).await;
    assert_eq!(world.exchanges(), sent + 1);
    assert_eq!(world.get("/x", &other).status, 200);
}

#[test]
fn b43_a_logout_revokes_the_refresh_token_and_gives_the_provider_its_hint() {
    let provider = world_with("", &json!({}));
    let world = world_with("", &json!({ "revocation_endpoint": provider.provider.at("/revoke") }));
    provider.provider.answer("/revoke", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned());
    let held = world.log_in_with(&json!({ "refresh_token": "first-refresh-token", "expires_in": 3600 }));
    let mut wire = world.edge.wire();
    wire.head("POST /auth/logout", &["Host: gate.test", "Content-Length: 0", OWN, &held]);
    let out = wire.reply().json();
    assert!(out["logout"].as_str().is_some_and(|url| url.contains("&id_token_hint=ey")), "{out}");
    let (form, _) = provider.provider.form("/revoke");
    assert_eq!((&*form["token"], &*form["token_type_hint"]), ("first-refresh-token", "refresh_token"));
    assert_eq!(world.state(&held)["authenticated"], false);
}

#[test]
fn b23_b43_a_provider_that_fails_is_503_to_a_listed_page_and_prevents_no_logout() {
    let servers = Documents::start();
    servers.be_silent("/revoke");
    let keys = format!("{FORWARDING}[cors]\norigins = [\"https://app.example\"]\nallow_credentials = true\n");
    let world = world_with(&keys, &json!({ "revocation_endpoint": servers.at("/revoke") }));
    let held = world.log_in_due();
    world.provider.answer("/token", "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned());
    let refused = world.edge.ask("GET /api/x", &[&held, "Origin: https://app.example"]);
    assert_eq!((refused.status, refused.header("access-control-allow-credentials")), (503, "true"));
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example");
    let out = world.edge.ask("POST /auth/logout", &["Content-Length: 0", OWN, &held]);
    assert_eq!((out.status, is_cleared(&out), servers.times("/revoke")), (200, true, 1), "{}", out.text());
    assert!(out.json()["logout"].as_str().is_some_and(|url| url.contains("&id_token_hint=ey")));
    assert_eq!(world.state(&held)["authenticated"], false);
    let log = world.edge.gate.log();
    assert!(log.contains("the provider did not revoke the refresh token"), "{log}");
}

#[test]
fn b43_a_logout_beside_a_refresh_revokes_the_token_that_the_refresh_brings() {
    let servers = Documents::start();
    servers.answer("/revoke", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned());
    let world = world_with(FORWARDING, &json!({ "revocation_endpoint": servers.at("/revoke") }));
    let held = world.log_in_due();
    let asked = world.exchanges();
    world.provider.be_silent("/token");
    keep_secret("second-refresh-token");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.get("/api/x", &held));
        while world.exchanges() == asked {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut wire = world.edge.wire();
        wire.head("POST /auth/logout", &["Host: gate.test", "Content-Length: 0", OWN, &held]);
        assert_eq!(wire.reply().status, 200, "it waits for no refresh");
        assert_eq!(servers.form("/revoke").0["token"], "first-refresh-token");
        let tokens = json!({ "token_type": "Bearer", "access_token": "second-access-token",
            "refresh_token": "second-refresh-token", "expires_in": 3600 });
        world.provider.end_silence("/token", &tokens);
        assert_eq!(waiting.join().unwrap().status, 401);
    });
    assert_eq!((servers.times("/revoke"), &*servers.form("/revoke").0["token"]), (2, "second-refresh-token"));
    assert!(world.edge.stub.take().is_empty());
}

#[test]
fn b41_a_gate_that_is_killed_at_any_commit_of_a_refresh_goes_on() {
    let store = "kind = \"redb\"\npath = \"data/rotogate.redb\"";
    let mut killed = 0;
    for commit in 1.. {
        let mut world = world_on(store, FORWARDING, &json!({}));
        let held = world.log_in_due();
        world.grant(&json!({ "access_token": "second-access-token", "refresh_token": "second-refresh-token", "expires_in": 3600 }));
        world.edge.gate.kill();
        world.edge.gate = world.edge.place.start_with(|command| {
            command.env("ROTOGATE_FAILPOINT", format!("after-commit:{commit}"));
        });
        let mut wire = world.edge.wire();
        wire.head("GET /api/x", &["Host: gate.test", &held, SAME_ORIGIN]);
        let ended = wire.try_reply(false).is_none();
        world.edge.stub.take();
        if ended {
            killed += 1;
            world.edge.gate.kill();
            world.edge.gate = world.edge.place.start();
        }
        assert_eq!(world.forwarded(&held), "Bearer second-access-token", "after commit {commit}");
        // The first refresh token was presented once.
        assert_eq!(world.exchanges(), 2, "after commit {commit}");
        if !ended {
            break;
        }
    }
    assert!(killed >= 3, "before the provider was asked, after it answered, and after the vault was written: {killed}");
}

#[test]
fn b40_a_restored_store_has_no_vaults_and_their_sessions_are_over() {
    let mut world = world_on("kind = \"redb\"\npath = \"data/rotogate.redb\"", FORWARDING, &json!({}));
    let held = world.log_in_with(&json!({ "refresh_token": "first-refresh-token", "expires_in": 3600 }));
    assert_eq!(world.forwarded(&held), "Bearer first-access-token");
    let place = &world.edge.place;
    place.point_commands_at(&world.edge.gate);
    place.done(&["store", "backup", "backup.redb"], "");
    // Attack 25: a dump has the session, and neither its cookie nor a token of the provider.
    let dump = std::fs::read(place.path("backup.redb")).unwrap();
    let has = |part: &[u8]| dump.windows(part.len()).any(|window| window == part);
    let cookie = held.split_once("rc1_").unwrap().1;
    let bytes = URL_SAFE_NO_PAD.decode(cookie).unwrap();
    let (sid, secret, tag) = (&bytes[1..17], &bytes[17..49], &bytes[49..]);
    assert!(has(sid), "the session is in it");
    for part in [cookie.as_bytes(), secret, tag, b"first-access-token", b"first-refresh-token"] {
        assert!(!has(part), "{}", String::from_utf8_lossy(part));
    }
    world.edge.gate.signal("TERM");
    assert!(world.edge.gate.child.wait().unwrap().success());
    place.done(&["store", "restore", "backup.redb"], "");
    world.edge.gate = place.start();
    let before = world.exchanges();
    for path in ["/api/x", "/x"] {
        let over = world.get(path, &held);
        assert_eq!((over.status, is_cleared(&over)), (401, true), "{path}: {}", over.text());
    }
    let state = world.edge.ask("GET /auth/session", &[SAME_ORIGIN, &held]);
    assert_eq!(state.json()["authenticated"], false, "{}", state.text());
    // The refresh token of the back-up may be spent: it is presented to no provider.
    assert_eq!((world.exchanges(), world.edge.stub.take().len()), (before, 0));
    // A new login opens a vault again.
    let held = world.log_in_with(&json!({ "refresh_token": "second-refresh-token", "expires_in": 3600 }));
    assert_eq!(world.forwarded(&held), "Bearer first-access-token");
}

#[test]
fn b36_b61_a_route_that_asks_for_another_login_leads_to_the_provider_with_it_and_not_in_a_circle() {
    let asking = FORWARDING
        .replace("/api/", "/gold/")
        .replace("forward_token = true", "step_up = { acr = [\"gold\"], max_age = \"5m\" }");
    let world = world_with(&asking, &json!({}));
    let plain = world.log_in_with(&json!({}));
    assert_eq!(world.get("/x", &plain).status, 200);
    // A script learns what the login must be.
    let refused = world.get("/gold/x", &plain);
    assert_eq!((refused.status, is_cleared(&refused)), (401, false), "{}", refused.text());
    assert!(refused.header("www-authenticate").contains("insufficient_user_authentication"));
    assert_eq!(refused.json()["login"], "/auth/login?acr_values=gold&max_age=300");
    // A tab is led there.
    let navigation = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", SAME_ORIGIN, plain.as_str()];
    let led = world.edge.ask("GET /gold/x", &navigation);
    assert_eq!(led.header("location"), "https://gate.test/auth/login?acr_values=gold&max_age=300&to=%2Fgold%2Fx");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // A form: its session is live, so the page says what it needs, and the link leads to that login and back to the form.
    let form = world.edge.ask(
        "POST /gold/x",
        &[
            plain.as_str(),
            OWN,
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: document",
            "Referer: https://gate.test/gold/form?n=1",
        ],
    );
    let page = form.text();
    assert_eq!(form.status, 401, "{page}");
    assert!(page.contains("requires another login. Your entry was not sent") && !page.contains("signed out"), "{page}");
    let link = "/auth/login?acr_values=gold&amp;max_age=300&amp;to=%2Fgold%2Fform%3Fn%3D1";
    assert!(page.contains(link), "{page}");
    let again = "%2Fgold%2Fx&acr_values=gold&max_age=300";
    for (claims, status) in [
        (json!({}), 400),
        (json!({ "acr": "silver", "auth_time": now }), 400),
        (json!({ "acr": "gold", "auth_time": now - 3600 }), 400),
        (json!({ "acr": "gold", "auth_time": now }), 303),
    ] {
        let begun = world.begin(again);
        assert_eq!((&*begun.asked["acr_values"], &*begun.asked["max_age"]), ("gold", "300"));
        world.grant(
            &json!({ "access_token": "first-access-token", "id_token": world.id_token(&begun, &json!({}), &claims) }),
        );
        let reply = world.come_back_with_code(&begun);
        assert_eq!(reply.status, status, "{claims}: {}", reply.text());
        if status == 303 {
            assert_eq!(reply.header("location"), "https://gate.test/gold/x");
            assert_eq!(world.get("/gold/x", &session(&reply)).status, 200);
        } else {
            assert!(
                reply.all("location").is_empty()
                    && reply.text().contains("does not meet the requirements of this page")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_b40_an_open_stream_has_the_provider_asked_and_ends_when_it_refuses() {
    let world = world_with(STREAMS, &json!({}));
    let held = world.log_in_with(&json!({ "refresh_token": "first-refresh-token", "expires_in": 4 }));
    let idle_expires = world.state(&held)["idle_expires"].clone();
    let mut stream = world.edge.wire();
    stream.head("GET /events/parts", &["Host: gate.test", &held, SAME_ORIGIN, "Accept: text/event-stream"]);
    assert_eq!(stream.reply_head().status, 200);
    world.grant(
        &json!({ "access_token": "second-access-token", "refresh_token": "second-refresh-token", "expires_in": 4 }),
    );
    // No request comes: the stream itself asks, without being activity.
    until("the provider is asked", async || world.exchanges() == 2).await;
    assert_eq!(world.provider.form("/token").0["refresh_token"], "first-refresh-token");
    world.edge.stub.push(b"still open");
    assert_eq!(stream.chunk(), b"still open");
    assert_eq!(world.state(&held)["idle_expires"], idle_expires);
    // A fault ends nothing.
    world.provider.answer("/token", "HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n".to_owned());
    until("the provider is asked again", async || world.exchanges() >= 3).await;
    assert_eq!(world.provider.form("/token").0["refresh_token"], "second-refresh-token", "what it answered is kept");
    world.edge.stub.push(b"and still");
    assert_eq!(stream.chunk(), b"and still");
    // The user is disabled there.
    world.refuse("400 Bad Request", "invalid_grant");
    assert!(stream.is_closed());
    assert_eq!(world.state(&held)["authenticated"], false);
    assert!(world.edge.gate.log().contains("provider-refused"));
    world.edge.stub.push(b"");
}

#[tokio::test]
async fn b39_b40_a_session_outlives_access_ttl_beside_a_directory_that_does_not_have_its_user() {
    let world = world_with(STREAMS, &json!({}));
    let held = world.log_in_with(&json!({ "expires_in": 3600 }));
    let renewed = "rotogate_session_events_total{event=\"rotated\"}";
    until("three renewals", async || {
        assert_eq!(world.get("/x", &held).status, 200);
        world.edge.gate.metric(renewed).await >= 3
    })
    .await;
}

/// Attack 38.
#[test]
fn b40_a_provider_that_hangs_holds_up_the_requests_of_no_other_session() {
    let world = world();
    let (due, good) = (world.log_in_due(), world.log_in_with(&json!({ "expires_in": 3600 })));
    world.provider.be_silent("/token");
    let asked = world.exchanges();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.edge.ask("GET /api/x", &[&due, SAME_ORIGIN]));
        while world.exchanges() == asked {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // The provider has the question, and answers never.
        let bearerless = ["GET /api/x", "GET /x", "GET /auth/session", "GET /auth/login"];
        for line in bearerless.into_iter().cycle().take(100) {
            let status = world.edge.ask(line, &[&good, SAME_ORIGIN]).status;
            assert_eq!(status, if line.ends_with("login") { 303 } else { 200 }, "{line}");
        }
        assert!(!waiting.is_finished(), "the others were answered while it waited");
        let refused = waiting.join().unwrap();
        assert_eq!((refused.status, is_cleared(&refused), refused.all("retry-after").len()), (503, false, 1));
    });
    assert_eq!(world.exchanges(), asked + 1, "one question");
    assert_eq!(world.state(&due)["authenticated"], true);
}
