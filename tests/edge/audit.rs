//! The audit log: an output of its own, numbers, and what stands for a name that no user has.

use std::collections::BTreeSet;
use std::fs;

use http::StatusCode;
use serde_json::Value;
use support::{CONFIG, Gate, Place};

const LOG: &str = "\n[audit_log]\noutput = \"logs/audit.log\"\n";

fn place(lines: &str) -> Place {
    let place = Place::new(&format!("{CONFIG}{lines}"));
    fs::create_dir(place.path("logs")).unwrap();
    place
}

fn lines(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path("logs/audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    assert!(place.refused().contains("audit_log.output: is log.output: leave it out"), "{}", place.refused());
}
