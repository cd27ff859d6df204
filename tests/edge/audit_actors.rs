//! The audit log names the author of each change; what happens while the log cannot be written.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use http::{Method, StatusCode};
use serde_json::Value;
use support::{Answer, CONFIG, Gate, Place, until, with};

use super::audit_schema;
use crate::admin::page::{Browser, csrf};

const LOG: &str = "[audit_log]\noutput = \"logs/audit.log\"\n";

fn place(config: &str) -> Place {
    let place = Place::new(config);
    fs::create_dir(place.path("logs")).unwrap();
    place
}

fn lines_of(place: &Place, name: &str) -> Vec<Value> {
    audit_schema::lines(&place.path("logs").join(name))
}

/// The actor of each line of an action.
fn actors(lines: &[Value], action: &str) -> BTreeSet<String> {
    let of_action = lines.iter().filter(|line| line["event.action"] == action);
    of_action.map(|line| line["rotogate.actor"].as_str().unwrap_or("none").to_owned()).collect()
}

/// The name of the user that runs the tests, as the command line writes it.
fn me() -> String {
    let name = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let name = std::env::var("SUDO_USER").unwrap_or_else(|_| String::from_utf8(name).unwrap().trim().to_owned());
    format!("cli:{name}")
}

/// A change by an operator at the admin listener.
async fn post(gate: &Gate, token: &str, path: &str, body: &str) -> Answer {
    let request = http::Request::post(format!("http://{}{path}", gate.admin))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(http_body_util::Full::from(body.to_owned()));
    support::send(request.unwrap()).await
}

#[tokio::test]
async fn p40_each_change_has_its_line_with_who_made_it() {
    let tokens = "[[admin.tokens]]\nname = \"grace\"\nrole = \"operator\"\nfile = \"grace\"\n";
    let config = format!("{CONFIG}{LOG}{tokens}");
    let place = place(&config);
    let gate = place.start();
    place.point_commands_at(&gate);
    let grace = fs::read_to_string(place.path("grace")).unwrap();
    let grace = grace.trim();
    support::keep_secret(grace);

    // By commands.
    place.done(&["user", "add", "ada", "--stdin"], "correct horse");
    place.done(&["user", "passwd", "ada", "--stdin"], "battery staple");
    place.done(&["user", "add-scope", "ada", "read"], "");
    place.done(&["user", "disable", "ada"], "");
    place.done(&["user", "enable", "ada"], "");
    place.done(&["user", "remove", "ada"], "");
    let bob =
        "{\"username\": \"bob\", \"password_hash\": \"$2b$04$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW\"}";
    support::pki::write_private(&place.path("bob.jsonl"), bob);
    place.done(&["user", "import", "bob.jsonl"], "");
    let added = place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    let first = place.json_lines(&["keys", "list"]);
    let first = first.iter().find(|key| key["state"] == "signing").unwrap()["kid"].as_str().unwrap();
    place.done(&["keys", "promote", &added, "--force"], "");
    place.done(&["keys", "retire", first, "--force"], "");
    // The gate looks at its key folder by itself, a few times a second: a stop before that leaves no line of it.
    let log = place.path("logs/audit.log");
    let has = |parts: &[&str]| {
        let text = fs::read_to_string(&log).unwrap();
        text.lines().any(|line| parts.iter().all(|part| line.contains(&format!("\"{part}\""))))
    };
    until("the gate found its keys changed", async || has(&["key.retire", "file"])).await;
    place.done(&["token", "mint", "--subject", "job", "--client", "web"], "");
    place.done(&["store", "backup", "copy.db"], "");

    // By a token of the admin listener: allowed, not allowed, unknown.
    let held = gate.login().await;
    assert_eq!(post(&gate, grace, "/v1/revocations", "{\"client\": \"web\"}").await.status, StatusCode::OK);
    assert_eq!(post(&gate, grace, "/v1/explain", "{\"path\": \"/hello\"}").await.status, StatusCode::OK);
    assert_eq!(post(&gate, grace, "/v1/store/backup", "").await.status, StatusCode::FORBIDDEN);
    let unknown = "x".repeat(40);
    assert_eq!(post(&gate, &unknown, "/v1/revocations", "{}").await.status, StatusCode::UNAUTHORIZED);
    gate.until_refused(&held.access).await;

    // By hand: another client, then a mistake.
    place.write_config(&config.replace("id = \"web\"", "id = \"mobile\""));
    gate.signal("HUP");
    until("the clients are others", async || has(&["client.change"])).await;
    place.write_config("[server]\nlisten = 7\n");
    gate.signal("HUP");
    until("the mistake is in the audit log", async || has(&["config.reload_refused"])).await;
    place.write_config(&config);
    assert_eq!(gate.stop(), Some(0));
    place.done(&["store", "restore", "copy.db", "--end-all"], "");

    let lines = lines_of(&place, "audit.log");
    let me = me();
    for (action, expected) in [
        ("user.add", &[&*me, "file"][..]),
        ("user.change", &[&*me, "file"]),
        ("user.disable", &[&*me, "file"]),
        ("user.enable", &[&*me, "file"]),
        ("user.remove", &[&*me, "file"]),
        ("user.import", &[&*me]),
        ("key.add", &[&*me, "file"]),
        ("key.promote", &[&*me, "file"]),
        ("key.retire", &[&*me, "file"]),
        ("token.minted", &[&*me]),
        ("store.backup", &["default"]),
        ("store.restore", &[&*me]),
        ("store.accept_restored", &[&*me]),
        ("revocation", &["file", "grace", "system"]),
        ("explain", &["grace"]),
        ("admin.denied", &["grace"]),
        ("admin.login_refused", &["none"]),
        ("client.change", &["system"]),
        ("config.reload", &["system"]),
        ("config.reload_refused", &["system"]),
        ("process.start", &["system"]),
        ("process.stop", &["system"]),
        ("session.start", &["none"]),
    ] {
        let expected: BTreeSet<_> = expected.iter().map(|actor| (*actor).to_owned()).collect();
        let found = actors(&lines, action);
        assert!(!found.is_empty() && found.is_subset(&expected), "{action}: {found:?}, not {expected:?}");
        assert!(expected.len() > 2 || found == expected, "{action}: {found:?}");
    }
    let of = |action: &str| lines.iter().find(|line| line["event.action"] == action).unwrap();
    assert_eq!(of("user.add")["user.name"], "ada");
    // In a later second than the user was added, the change moves the second from which sessions count, too.
    let changed = of("user.change")["changed"].as_str().unwrap();
    assert!(["password", "password, sessions_valid_from"].contains(&changed), "{changed}");
    assert_eq!(of("admin.denied")["path"], "/v1/store/backup");
    assert_eq!(of("admin.denied")["rotogate.actor.role"], "operator");
    // Files of a command belong to the gate's user, not to root.
    let all: Vec<_> = lines.iter().filter(|line| line.get("event.code").is_none()).collect();
    assert!(all.is_empty(), "{all:#?}");
}

/// Makes the audit log's name lead to this target.
fn lead_to(place: &Place, target: &str) {
    let log = place.path("logs/audit.log");
    let _ = fs::remove_file(&log);
    symlink(target, log).unwrap();
}

#[tokio::test]
async fn p42_while_the_disk_of_the_audit_log_is_full_logins_are_503_and_revocations_are_not() {
    let keys = "[[endpoints]]\ndialect = \"my-keys\"\npath = \"/account/keys\"\n[api_keys]\nprefix = \"acme\"\n";
    let place = place(&format!("{CONFIG}{keys}{LOG}on_failure = \"refuse\"\n"));
    lead_to(&place, "first.log");
    let gate = place.start();
    place.point_commands_at(&gate);
    let admin = fs::read_to_string(place.path("data/admin.token")).unwrap().trim().to_owned();
    let [held, other] = [gate.login().await, gate.login().await];
    let (mut browser, list) = (Browser::signed_in(&gate, &admin).await, "/ui/api-keys");
    let csrf = csrf(&browser.get(list).await);
    let form = [("csrf", csrf.as_str()), ("name", "nightly"), ("kind", "user"), ("owner", "demo")];
    let made = place.json(&["api-key", "create", "weekly", "--user", "demo"], "");
    support::keep_secret(made["key"].as_str().unwrap());
    let [rotate, revoke] = ["rotate", "revoke"].map(|what| format!("{list}/{}/{what}", made["id"].as_str().unwrap()));

    lead_to(&place, "/dev/full");
    gate.signal("USR1");
    let log_in = async || gate.log_in("demo", &gate.password).await;
    until("logins are refused", async || log_in().await.status == StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(log_in().await.headers.contains_key("retry-after"));
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let reload = post(&gate, &admin, "/v1/config/reload", "").await;
    assert_eq!((reload.status, &reload.json()["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"audit_log_failed".into()));
    // No key is made or replaced, by a user or on the page.
    let bearer = format!("Bearer {}", held.access);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mine = gate.call(Method::POST, "/account/keys", &headers, "{\"name\": \"mine\"}").await;
    assert_eq!((mine.status, mine.headers.contains_key("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, true));
    for path in [list, &rotate] {
        let answer = browser.post(path, &form).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(String::from_utf8_lossy(&answer.body).contains("audit_log_failed"), "{path}");
    }
    assert_eq!(place.json_lines(&["api-key", "list"]).len(), 1);
    // An operator signs in on the page, and revokes.
    assert_eq!(Browser::signed_in(&gate, &admin).await.get(list).await.status, StatusCode::OK);
    assert_eq!(browser.post(&revoke, &form).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.post("/ui/sessions/revoke", &form).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.post("/ui/sign-out", &form).await.headers["location"], "/ui/sign-in");
    // The issued tokens are valid, and can be revoked.
    assert_eq!(gate.get("/", &held.access).await.status, StatusCode::OK);
    assert_eq!(gate.revoke(&held.refresh).await.status, StatusCode::OK);
    gate.until_refused(&held.access).await;
    assert_eq!(post(&gate, &admin, "/v1/revocations", "{\"client\": \"web\"}").await.status, StatusCode::OK);
    gate.until_refused(&other.access).await;

    lead_to(&place, "second.log");
    gate.signal("USR1");
    until("logins work again", async || log_in().await.status == StatusCode::OK).await;
    assert_eq!(gate.metric("rotogate_log_dropped_lines_total{sink=\"audit\"}").await, 0);
    assert_eq!(gate.stop(), Some(0));
    let [first, second] = ["first.log", "second.log"].map(|name| lines_of(&place, name));
    assert!(actors(&second, "revocation").contains("default"), "what happened meanwhile was kept: {second:#?}");
    let numbers = first.iter().chain(&second).map(|line| line["rotogate.audit.seq"].as_u64().unwrap());
    let numbers: Vec<_> = numbers.collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "none is missing");
}

#[test]
fn p42_to_refuse_needs_an_output_of_its_own() {
    let place = Place::new(&with(CONFIG, "audit_log", "on_failure = \"refuse\""));
    assert!(place.refused().contains("audit_log.on_failure: needs an output that no other log uses"));
}

#[test]
fn p42_a_command_changes_nothing_if_its_line_cannot_be_written() {
    let config = |on_failure| format!("{CONFIG}{LOG}on_failure = \"{on_failure}\"\n");
    let place = place(&config("refuse"));
    assert_eq!(place.start().stop(), Some(0));
    fs::rename(place.path("logs"), place.path("moved")).unwrap();
    let said = place.fails(&["user", "disable", "demo"], "");
    assert!(said.contains("logs/audit.log") && said.contains("nothing was changed"), "{said}");
    assert_eq!(place.json_lines(&["user", "list"])[0]["active"], true);
    place.write_config(&config("continue"));
    let ran = place.done(&["user", "disable", "demo"], "");
    assert!(ran.stderr.contains("the change is not in the audit log"), "{}", ran.stderr);
}
