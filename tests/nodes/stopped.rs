//! A gate that stands still for longer than the staleness while its clients continue at another gate.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use support::history::{At, Held, Recorder, Reply, Request, Rules, judge};
use support::until;
use tokio::task::JoinSet;

use super::fleet::Fleet;
use super::servers::Servers;

const RULES: Rules = Rules { held: Duration::from_secs(2), ..Rules::STRICT };
/// The numbers of sessions that continue at another gate, and that end.
const SESSIONS: usize = 20;

/// The answer of a gate once it decides: on a busy machine the gate may be stale for a moment.
async fn decided<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut said = None;
    until("the gate decides", async || {
        said = ask().await;
        said.is_some()
    })
    .await;
    said.unwrap()
}

/// The result of a refresh once the gate decides. `None`: an earlier attempt without an answer had consumed the token.
/// The judge of the history decides whether that was right.
async fn issued(recorder: &Recorder, at: At, held: &Held) -> Option<Held> {
    let mut doubts = 0;
    decided(async || match recorder.refresh(at, held).await {
        (Some(issued), _) => Some(Some(issued)),
        (None, Reply::InDoubt) => {
            doubts += 1;
            None
        }
        (None, reply) => {
            assert!(doubts > 0, "{reply:?}");
            Some(None)
        }
    })
    .await
}

fn known(reply: Reply) -> Option<Reply> {
    (reply != Reply::InDoubt).then_some(reply)
}

async fn stand_still(servers: Servers) {
    let sessions = "grace = \"0s\"\nlost_response_window = \"0s\"";
    let fleet = Fleet::start(servers, sessions, "staleness = \"1s\"\n").await;
    let recorder = Arc::new(Recorder::new(&fleet.password));
    let entry = fleet.entry();
    let (stopped, other) = (entry.at(0), entry.at(1));
    let mut all: Vec<(Held, Held)> = Vec::new();
    for _ in 0..SESSIONS {
        let goes_on = decided(async || recorder.log_in(stopped).await).await;
        let ends = decided(async || recorder.log_in(stopped).await).await;
        let verified = decided(async || known(recorder.access(stopped, &ends).await)).await;
        assert_eq!(verified, Reply::Accepted);
        all.push((goes_on, ends));
    }
    fleet.signal(0, "STOP");
    let mut held = JoinSet::new();
    for (goes_on, ends) in all.clone() {
        let recorder = Arc::clone(&recorder);
        held.spawn(async move {
            tokio::join!(recorder.refresh(stopped, &goes_on), recorder.access(stopped, &ends));
        });
    }
    let mut latest = Vec::new();
    for (goes_on, ends) in &all {
        if let Some(second) = issued(&recorder, other, goes_on).await {
            latest.extend(issued(&recorder, other, &second).await);
        }
        let ended = decided(async || known(recorder.log_out(other, ends).await)).await;
        assert_eq!(ended, Reply::Accepted);
    }
    // Longer than the staleness, and than the gate may hold a request.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    fleet.signal(0, "CONT");
    // The first requests after that.
    for (_, ends) in &all {
        assert_ne!(recorder.access(stopped, ends).await, Reply::Accepted);
    }
    held.join_all().await;
    for one in recorder.history().iter().filter(|one| one.end - one.begin > Duration::from_secs(2)) {
        match (one.gate, one.request) {
            (0, Request::Refresh(_)) => assert_eq!(one.reply, Reply::InDoubt, "{one:?}"),
            (0, Request::Access(_)) => assert!(matches!(one.reply, Reply::InDoubt | Reply::Refused), "{one:?}"),
            // Slow because the machine is busy.
            _ => {}
        }
    }
    until("the gate serves", async || {
        let gate = fleet.gate(0);
        gate.log_in("demo", &gate.password).await.status == StatusCode::OK
    })
    .await;
    let mut live = 0;
    for last in &latest {
        live += usize::from(issued(&recorder, stopped, last).await.is_some());
    }
    assert!(live > 0, "sessions live");
    judge(&recorder.history(), &RULES).unwrap_or_else(|verdict| panic!("{:?}\n{}", verdict.rule, verdict.text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_a_gate_that_stood_still_accepts_nothing_revoked_and_takes_no_held_request_for_a_reuse() {
    stand_still(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_a_gate_on_postgresql_that_stood_still_accepts_nothing_revoked() {
    stand_still(Servers::postgres()).await;
}
