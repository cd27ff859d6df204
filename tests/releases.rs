//! The program of an earlier revision and this program on one store. `tests/long.sh versions` builds the earlier one. Until
//! 0.2 this is not a promise: the test shows whether the formats changed.
#![cfg(any(feature = "postgres", feature = "redis"))]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use support::{Gate, Place, binary, until};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The gates that clients use now.
type InUse = Arc<Mutex<Vec<Arc<Gate>>>>;

const GATES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 6;
/// The number of requests that must be answered between two steps.
const REQUESTS: usize = 300;

/// Clients whose every request goes to another gate. No request is refused, except with revoked tokens.
async fn client(gates: InUse, mut turn: usize, stop: Arc<AtomicBool>, requests: Arc<AtomicUsize>) {
    let mut next = || {
        turn += 1;
        let gates = gates.lock().unwrap();
        Arc::clone(&gates[turn % gates.len()])
    };
    while !stop.load(Ordering::SeqCst) {
        let mut tokens = next().login().await;
        for _ in 0..5 {
            let answer = next().get("/hello", &tokens.access).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let answer = next().refresh(&tokens.refresh).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let repeated = next().refresh(&tokens.refresh).await;
            assert_eq!((repeated.status, repeated.tokens()), (StatusCode::OK, answer.tokens()), "a repeat");
            tokens = answer.tokens();
            requests.fetch_add(3, Ordering::SeqCst);
        }
        let answer = next().revoke(&tokens.refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let answer = next().refresh(&tokens.refresh).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        for gate in 0..GATES {
            let refused = async {
                while next().get("/hello", &tokens.access).await.status != StatusCode::UNAUTHORIZED {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            assert!(timeout(PATIENCE, refused).await.is_ok(), "it is accepted: {gate}");
        }
        requests.fetch_add(4, Ordering::SeqCst);
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    async fn goes_on(&self) {
        let until_then = self.requests.load(Ordering::SeqCst) + REQUESTS;
        until("requests go on", async || {
            self.requests.load(Ordering::SeqCst) > until_then || self.clients.iter().any(JoinHandle::is_finished)
        })
        .await;
        assert!(!self.clients.iter().any(JoinHandle::is_finished), "a request was refused: see above");
    }
}

/// Replaces the program of each gate in turn.
async fn roll(place: &Place, program: &Path, gates: &InUse, load: &Load, logs: &mut Vec<String>) {
    for _ in 0..GATES {
        let begun = Arc::new(place.start_program(program));
        let mut ending = {
            let mut gates = gates.lock().unwrap();
            gates.push(begun);
            Some(gates.remove(0))
        };
        let mut ended = None;
        until("no request is under way at it", async || {
            match ending.take().map(Arc::try_unwrap) {
                Some(Ok(gate)) => ended = Some(gate),
                Some(Err(gate)) => ending = Some(gate),
                None => {}
            }
            ended.is_some()
        })
        .await;
        let gate = ended.unwrap();
        logs.push(gate.log());
        assert_eq!(gate.stop(), Some(0));
        load.goes_on().await;
    }
}

/// All gates change to the other program, some of them back in between; then all change back, and forward once more.
async fn are_exchanged(place: Place, earlier: &Path) {
    let this = binary();
    let first = (0..GATES).map(|_| Arc::new(place.start_program(earlier))).collect();
    let (gates, mut logs): (InUse, _) = (Arc::new(Mutex::new(first)), Vec::new());
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let begin = |turn| tokio::spawn(client(Arc::clone(&gates), turn, Arc::clone(&stop), Arc::clone(&requests)));
    let load = Load { clients: (0..CLIENTS).map(begin).collect(), stop, requests };
    load.goes_on().await;
    for program in [&*this, earlier, &*this] {
        roll(&place, program, &gates, &load, &mut logs).await;
    }
    load.stop.store(true, Ordering::SeqCst);
    for client in load.clients {
        client.await.unwrap();
    }
    logs.extend(gates.lock().unwrap().iter().map(|gate| gate.log()));
    for log in logs {
        for said in ["another version", "cannot be read", "cannot read", "\"level\":\"ERROR\""] {
            assert!(!log.contains(said), "{said}: {log}");
        }
    }
    println!("{} requests at gates of two versions, none refused", load.requests.load(Ordering::SeqCst));
}

fn earlier() -> std::path::PathBuf {
    std::env::var_os("ROTOGATE_EARLIER").expect("ROTOGATE_EARLIER: see tests/long.sh versions").into()
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the program of an earlier revision: tests/long.sh versions"]
async fn gates_of_two_revisions_on_redis_are_exchanged_under_load_and_no_request_is_refused() {
    let server = support::redis::Redis::start(&[]);
    are_exchanged(crate::redis::place_on(&server), &earlier()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the program of an earlier revision: tests/long.sh versions"]
async fn gates_of_two_revisions_on_postgresql_are_exchanged_under_load_and_no_request_is_refused() {
    let server = crate::postgres::server();
    are_exchanged(crate::postgres::place(&server), &earlier()).await;
}
