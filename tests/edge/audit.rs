//! The audit log: its separate output, its numbers, and the hash of a name that no user has.

use std::collections::BTreeSet;
use std::fs;

use http::{Method, StatusCode};
use serde_json::Value;
use support::{CONFIG, Gate, Place, with};

use super::audit_schema;

const LOG: &str = "\n[audit_log]\noutput = \"logs/audit.log\"\n";

fn place(lines: &str) -> Place {
    let place = Place::new(&format!("{CONFIG}{lines}"));
    fs::create_dir(place.path("logs")).unwrap();
    place
}

fn lines(place: &Place) -> Vec<Value> {
    audit_schema::lines(&place.path("logs/audit.log"))
}

async fn try_login(gate: &Gate, username: &str, password: &str) -> StatusCode {
    let login = [("grant_type", "password"), ("client_id", "web"), ("username", username), ("password", password)];
    gate.form("/connect/token", &login).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p44_every_line_is_numbered_without_a_gap_and_has_its_code() {
    let place = place(LOG);
    let gate = place.start();
    let all = (0..8).map(|_| async {
        let held = gate.login().await;
        gate.revoke(&held.refresh).await;
    });
    futures_util::future::join_all(all).await;
    let refresh = gate.login().await.refresh;
    gate.refresh(&refresh).await;
    assert_eq!(gate.metric("rotogate_log_dropped_lines_total{sink=\"audit\"}").await, 0);
    let metrics = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let (_, hash) = metrics.split_once("rotogate_config_info{hash=\"").expect("the hash of the configuration");
    let hash = hash.split('"').next().unwrap();
    let log = gate.log.clone();
    assert_eq!(gate.stop(), Some(0));
    let lines = lines(&place);
    let numbers: Vec<_> = lines.iter().map(|line| line["rotogate.audit.seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (1..=numbers.len() as u64).collect());
    let boots: BTreeSet<_> = lines.iter().map(|line| line["rotogate.audit.boot"].as_str().unwrap()).collect();
    let ids: BTreeSet<_> = lines.iter().map(|line| line["event.id"].as_str().unwrap()).collect();
    assert_eq!((boots.len(), ids.len()), (1, lines.len()));
    let counted = |action: &str, code: &str| {
        let of_kind = |line: &&Value| line["event.action"] == action && line["event.code"] == code;
        lines.iter().filter(of_kind).filter(|line| line["event.outcome"] == "success").count()
    };
    for (action, code, number) in [
        ("process.start", "RG1601I", 1),
        ("session.start", "RG1001I", 9),
        ("session.end", "RG1009I", 8),
        ("revocation", "RG1201W", 8),
        ("process.stop", "RG1602I", 1),
    ] {
        assert_eq!(counted(action, code), number, "{action}");
    }
    // The name of the user, and the hash of the configuration as in the metric.
    let login = lines.iter().find(|line| line["event.action"] == "session.start").unwrap();
    assert_eq!(login["user.name"], "demo");
    let start = lines.iter().find(|line| line["event.action"] == "process.start").unwrap();
    assert_eq!(start["config.hash"], hash);
    // In one place only.
    assert!(!fs::read_to_string(log).unwrap().contains("rotogate.audit"));
}

#[tokio::test]
async fn p44_lines_that_cannot_be_written_are_counted_and_stop_nobody() {
    let place = place("\n[audit_log]\noutput = \"/dev/full\"\n");
    let gate = place.start();
    gate.login().await;
    // The start, and the login.
    let lost = "rotogate_log_dropped_lines_total{sink=\"audit\"}";
    support::until("both are counted", async || gate.metric(lost).await == 2).await;
    assert!(gate.metric("rotogate_log_write_errors_total{sink=\"audit\"}").await > 0);
    assert_eq!(gate.metric("rotogate_log_lines_total{sink=\"audit\"}").await, 0);
}

#[tokio::test]
async fn p43_the_name_of_a_refused_login_is_hashed_and_audit_hash_finds_it() {
    const TYPED: &str = "hunter2-in-the-wrong-field";
    let place = place(&format!("{LOG}addresses = \"prefix\"\n"));
    let gate = place.start();
    assert_eq!(try_login(&gate, TYPED, "x").await, StatusCode::BAD_REQUEST);
    assert_eq!(try_login(&gate, "demo", TYPED).await, StatusCode::BAD_REQUEST);
    assert_eq!(gate.stop(), Some(0));
    let refused: Vec<_> =
        lines(&place).into_iter().filter(|line| line["event.action"] == "session.start_refused").collect();
    assert_eq!(refused.len(), 2);
    for (line, name) in refused.iter().zip([TYPED, "demo"]) {
        let hash = place.json(&["audit-hash", name], "")["name_hash"].clone();
        assert_eq!(
            (&line["user.name_hash"], line.get("user.id")),
            (&hash, None),
            "the directory does not say who it is"
        );
        assert_eq!(hash.as_str().unwrap().len(), 16);
    }
    assert_ne!(refused[0]["user.name_hash"], refused[1]["user.name_hash"]);
    for line in &refused {
        assert_eq!((&line["event.outcome"], &line["client.address"]), (&"failure".into(), &"127.0.0.0".into()));
        assert!(!line.to_string().contains("hunter2"), "{line}");
    }
}

#[test]
fn an_output_that_another_log_has_is_refused_with_what_to_do() {
    let place = Place::new(&format!("{CONFIG}\n[audit_log]\noutput = \"stderr\"\n"));
    assert!(
        place.refused().contains("audit_log.output: is the same as `log.output`; remove it"),
        "{}",
        place.refused()
    );
}

/// Presents a superseded refresh token from another address, or from the address of the refresh, and returns the audit
/// line.
async fn reuse(grace: &str, thief: Option<[&str; 2]>) -> Value {
    let config = with(&with(CONFIG, "server", "trusted_proxies = [\"127.0.0.1\"]"), "sessions", grace);
    let place = Place::new(&format!("{config}{LOG}"));
    fs::create_dir(place.path("logs")).unwrap();
    let gate = place.start();
    let from = async |[address, agent]: [&str; 2], form: &str| {
        let headers = [
            ("x-forwarded-for", address),
            ("user-agent", agent),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        gate.call(Method::POST, "/connect/token", &headers, form).await
    };
    let owner = ["203.0.113.7", "Firefox"];
    let password = &gate.password;
    let login = from(owner, &format!("grant_type=password&client_id=web&username=demo&password={password}")).await;
    let first = login.tokens();
    let exchange = format!("grant_type=refresh_token&client_id=web&refresh_token={}", first.refresh);
    let second = from(owner, &exchange).await.tokens();
    assert_eq!(gate.get("/", &second.access).await.status, StatusCode::OK);
    let presenter = thief.unwrap_or(owner);
    // Within grace, it is a replay.
    support::until("the token is refused", async || from(presenter, &exchange).await.status.is_client_error()).await;
    assert_eq!(gate.stop(), Some(0));
    let found: Vec<_> = lines(&place).into_iter().filter(|line| line["event.action"] == "session.reuse").collect();
    let [line] = &found[..] else { panic!("one reuse: {found:#?}") };
    assert_eq!(line["event.code"], "RG1006W");
    assert_eq!((&line["client.address"], &line["user_agent.original"]), (&presenter[0].into(), &presenter[1].into()));
    for of in ["login", "last_refresh"] {
        assert_eq!(line[format!("{of}.address")], owner[0], "{line}");
        assert_eq!(line[format!("{of}.user_agent")], owner[1], "{line}");
        assert!(line[format!("{of}.time")].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert_eq!((&line["is_confirmed"], &line["generations_old"]), (&true.into(), &1.into()));
    line.clone()
}

#[tokio::test]
async fn p41_a_thief_with_a_superseded_token_is_named_as_one_with_the_evidence() {
    let line = reuse("grace = \"0s\"\nlost_response_window = \"0s\"", Some(["198.51.100.66", "curl/8"])).await;
    assert_eq!((&line["verdict"], &line["action"]), (&"theft_likely".into(), &"revoke-session".into()), "{line}");
    for of in ["address_as_login", "user_agent_as_login", "address_as_last_refresh", "user_agent_as_last_refresh"] {
        assert_eq!(line[format!("same_{of}")], false, "{line}");
    }
    assert_eq!(line["last_refresh.replays"], 0);
}

#[tokio::test]
async fn p41_two_tabs_that_refresh_at_once_are_a_race_and_no_theft() {
    let line = reuse("grace = \"5s\"", None).await;
    assert_eq!(line["verdict"], "race_possible", "{line}");
    assert!(line["superseded_for_ms"].as_u64().unwrap() >= 5000, "{line}");
    assert!(line["last_refresh.replays"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(line["same_user_agent_as_last_refresh"], true);
}
