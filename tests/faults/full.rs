//! No space left. A limit on the size of files simulates the full disk: a write past the limit fails.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use serde_json::Value;

use super::{Acknowledged, config, readyz};
use support::{Gate, Place, until};

/// Refreshes before the disk is full.
const TURNS: usize = 40;

/// Ignores the signal by which a write past the limit would end the process.
const TRAP: &str = r#"trap '' XFSZ; exec "$@""#;

/// What the gate logs once the store can be written again.
const REOPENED: &str = "store reopened: writes work again";

/// Live sessions, one of them rotated many times, and an ended session.
async fn begun(gate: &Gate) -> Acknowledged {
    let mut kept = Acknowledged { live: vec![gate.login().await, gate.login().await], over: vec![gate.login().await] };
    assert_eq!(gate.revoke(&kept.over[0].refresh).await.status, StatusCode::OK);
    for _ in 0..TURNS {
        let answer = gate.refresh(&kept.live[1].refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        kept.live[1] = answer.tokens();
    }
    kept
}

/// The store cannot be written: the gate reports it, serves requests that need no write, and acknowledges nothing.
async fn says_so(gate: &Gate, kept: &Acknowledged) {
    let refused = gate.refresh(&kept.live[1].refresh).await;
    assert!(refused.is_fault(), "{refused:?}");
    let ready = readyz(gate).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let reason = String::from_utf8_lossy(&ready.body);
    assert!(reason.contains("the store") && reason.contains("File too large"), "{reason}");
    assert_eq!(gate.get("/x", &kept.live[1].access).await.status, StatusCode::OK);
    // A revocation has its space: it is durable, though not in the store.
    assert_eq!(gate.revoke(&kept.live[0].refresh).await.status, StatusCode::OK);
    assert_eq!(gate.get("/x", &kept.live[0].access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/x", &kept.over[0].access).await.status, StatusCode::UNAUTHORIZED);
}

/// Sets the largest size of the gate's files, the log included.
fn limit(gate: &Gate, bytes: &str) {
    let set =
        Command::new("prlimit").args([format!("--pid={}", gate.child.id()), format!("--fsize={bytes}:")]).status();
    assert!(set.unwrap().success());
}

#[tokio::test]
async fn r2_a_disk_that_fills_up_under_a_running_gate_loses_nothing() {
    let place = Place::new(&config());
    let gate = place.start_in_shell(TRAP);
    let mut kept = begun(&gate).await;
    limit(&gate, "4096");
    says_so(&gate, &kept).await;
    drop(gate);

    kept.over.push(kept.live.remove(0));
    let gate = place.start();
    assert_eq!(readyz(&gate).await.status, StatusCode::OK);
    kept.holds(&gate).await;
}

/// The warnings and errors among lines.
fn warnings(said: &[Value]) -> Vec<String> {
    let is_one = |line: &&Value| ["WARN", "ERROR"].iter().any(|level| line["level"] == *level);
    let found = said.iter().filter(is_one).filter(|line| line["target"] != "rotogate::audit");
    found.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

/// The lines of a gate, which a limit on files does not reach in a pipe.
fn follow(gate: &mut Gate) -> Arc<Mutex<Vec<Value>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (stderr, kept) = (gate.child.stderr.take().unwrap(), Arc::clone(&lines));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The last word of a gate that ends with an error is plain.
            let Ok(said) = serde_json::from_str(&line) else { continue };
            kept.lock().unwrap().push(said);
        }
    });
    lines
}

#[tokio::test]
async fn p59_o22_a_disk_with_room_again_is_written_without_a_restart() {
    let place = Place::new(&format!("{}[log]\nformat = \"json\"\n", config()));
    let mut gate = place.start_with(|command| {
        support::in_shell(TRAP)(command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    let said = follow(&mut gate);
    place.point_commands_at(&gate);
    let mut kept = begun(&gate).await;
    limit(&gate, "4096");
    // No write has failed yet, and the explanation is not misled.
    let explained = place.run(&["explain"], &kept.live[1].refresh);
    assert!(explained.stdout.starts_with("UNAVAILABLE 503 store_failed"), "{explained:?}");
    assert!(explained.stdout.contains("File too large"), "{explained:?}");
    says_so(&gate, &kept).await;
    // Waits for longer than one or two attempts take.
    for _ in 0..15 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(gate.refresh(&kept.live[1].refresh).await.is_fault());
        assert_eq!(gate.get("/x", &kept.live[1].access).await.status, StatusCode::OK);
    }
    assert_eq!(readyz(&gate).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let listed = place.run(&["session", "list"], "");
    assert!(listed.stdout.lines().count() >= 3, "reading goes on: {listed:?}");
    // The commands of an incident say what fails, and leave nothing behind.
    let explained = place.run(&["explain"], &kept.live[1].refresh);
    assert_eq!(explained.code, Some(1), "{explained:?}");
    assert!(explained.stdout.starts_with("UNAVAILABLE 503 store_failed"), "{explained:?}");
    assert!(explained.stdout.contains("File too large"), "{explained:?}");
    let files = || std::fs::read_dir(place.path("data")).unwrap().count();
    let before = files();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let copied = place.fails(&["store", "backup", "elsewhere/copy.redb"], "");
    for part in ["503", "cannot be copied", "File too large", "Choose another FILE", "free disk space", "stop the gate"]
    {
        assert!(copied.contains(part), "{part}: {copied}");
    }
    // The folder of the copy is tried first, because it may be on another disk.
    let tried = ["elsewhere", "data"].map(|folder| copied.find(&format!("{folder}/.backup-")).expect(&copied));
    assert!(tried.is_sorted(), "{copied}");
    assert_eq!((files(), std::fs::read_dir(place.path("elsewhere")).unwrap().count()), (before, 0));

    limit(&gate, "unlimited");
    until("it is written again", async || readyz(&gate).await.status == StatusCode::OK).await;
    kept.over.push(kept.live.remove(0));
    kept.holds(&gate).await;
    let tokens = gate.login().await;
    assert_eq!(gate.revoke(&tokens.refresh).await.status, StatusCode::OK);
    kept.over.push(tokens);
    assert_eq!(gate.stop(), Some(0));
    let reopened = || said.lock().unwrap().iter().position(|line| line["message"].as_str() == Some(REOPENED));
    until("its end is said", async || reopened().is_some()).await;
    {
        let end = reopened().unwrap();
        let said = said.lock().unwrap();
        let (during, after) = (warnings(&said[..end]), warnings(&said[end..]));
        // The store has failed for less than a minute: each message occurs once, however many requests were refused.
        assert!(during.iter().any(|message| message.starts_with("store failed")), "{during:?}");
        assert_eq!(during.iter().collect::<HashSet<_>>().len(), during.len(), "{during:?}");
        assert_eq!(after, [""; 0], "its end is no warning");
    }
    kept.live.clear();
    kept.holds(&place.start()).await;
}

#[tokio::test]
async fn r24_r27_r33_what_a_full_disk_leaves_room_for_outlives_the_gate_and_what_it_does_not_is_named() {
    let place = Place::new(&format!("{}[log]\nformat = \"json\"\n", config()));
    let mut gate = place.start_with(|command| {
        support::in_shell(TRAP)(command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    let said = follow(&mut gate);
    let (mut live, mut over) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        live.push(gate.login().await);
    }
    // The end of the file beside the store exceeds the limit, too.
    limit(&gate, "4096");
    let without_answer = loop {
        let tokens = live.pop().unwrap();
        let answer = gate.revoke(&tokens.refresh).await;
        assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
        if answer.status != StatusCode::OK {
            assert!(answer.is_fault(), "{answer:?}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("nothing was changed"), "{answer:?}");
            break tokens;
        }
        over.push(tokens);
    };
    assert!(over.len() >= 5, "{}", over.len());
    let ready = String::from_utf8_lossy(&readyz(&gate).await.body).into_owned();
    assert!(
        ready.contains(&format!(
            "has not acknowledged {} revocations; the gate loses 1 of them if it stops",
            over.len() + 1
        )),
        "{ready}"
    );
    assert_eq!(gate.stop(), Some(1), "it could not be written");
    let says = |line: &Value, what: &str, revocations: usize| {
        line["revocations"] == revocations && line["message"].as_str().is_some_and(|text| text.starts_with(what))
    };
    until("the stop says so", async || {
        let said = said.lock().unwrap();
        said.iter().any(|line| says(line, "revocations lost with this process", 1))
            && said.iter().any(|line| says(line, "revocations are kept in a file beside the store", over.len()))
    })
    .await;
    let owed = |place: &str, outcome: &str| {
        let is_one = |line: &&Value| line["event.action"] == "revocation" && line["owed"] == place;
        said.lock().unwrap().iter().filter(is_one).filter(|line| line["event.outcome"] == outcome).count()
    };
    assert_eq!((owed("file", "success"), owed("memory", "unknown")), (over.len(), 1));

    let number = over.len();
    let gate = place.start();
    Acknowledged { live, over }.holds(&gate).await;
    // The request without an answer may or may not count.
    assert_eq!(gate.revoke(&without_answer.refresh).await.status, StatusCode::OK);
    let owed = place.path("data/rotogate.redb.owed");
    until("the store has them", async || std::fs::read(&owed).unwrap().iter().all(|byte| *byte == 0)).await;
    let log = gate.log();
    let second = |line: &&str| line.contains(r#""event.action":"revocation""#) && !line.contains(r#""owed""#);
    assert!(log.lines().filter(second).count() >= number, "each has its second line: {log}");
}
