//! Many requests at once, and many nodes at once.

use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;
use support::proxy::Proxy;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::connect::{Link, MAX_IN_FLIGHT};
use super::super::servers::Servers;
use super::*;
use rotogate_core::store::conformance::{gone, insert, session, start};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_refreshes_that_wait_is_bounded_and_holds_up_no_revocation() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = Arc::new(RedisStore::connect(options(proxy.port)).await.unwrap());
    let begun = session("alice", 0, start());
    insert(&*store, &begun).await;
    proxy.silence();
    // No request is answered until the silent connection is closed.
    let mut storm = JoinSet::new();
    for n in 1..=2 * MAX_IN_FLIGHT as u64 {
        let store = Arc::clone(&store);
        storm.spawn(async move { store.insert(session("alice", n, start()), SubjectBound::NONE).await });
    }
    // The connection for revocations is free.
    assert_eq!(SharedStore::load_to_revoke(&*store, begun.id).await.unwrap(), Some(begun.clone()));
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    let mut refused = 0;
    for done in storm.join_all().await {
        let Err(error) = done else { continue };
        assert!(error.to_string().contains("1024 requests to Redis are already waiting for replies"), "{error}");
        assert_eq!(error.outcome(), WriteOutcome::NotDone);
        assert_eq!(rotogate_core::fault::Fault::from(error).retry_after(), SECOND);
        refused += 1;
    }
    // The other requests were sent again over another connection.
    assert!((1..=MAX_IN_FLIGHT).contains(&refused), "{refused}");
}

/// Each node connects to the server through its own proxy, which counts the attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c12_a_hundred_nodes_reconnect() {
    const NODES: usize = 100;
    let server = Server::start(&[]);
    let nodes: Vec<_> = join_all((0..NODES).map(|_| async {
        let proxy = Proxy::to(server.port).await;
        let store = Arc::new(RedisStore::connect(options(proxy.port)).await.unwrap());
        (proxy, store)
    }))
    .await;
    let begun = session("alice", 1, start());
    insert(&*nodes[0].1, &begun).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = JoinSet::new();
    for (_, store) in &nodes {
        // Several requests of each node always wait on each of its connections.
        for _ in 0..3 {
            let (store, stop, id) = (Arc::clone(store), Arc::clone(&stop), begun.id);
            asking.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let _ = store.load(id).await;
                    let _ = SharedStore::load_to_revoke(&*store, id).await;
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    nodes.iter().for_each(|(proxy, _)| proxy.go_away(true));
    let tried = async {
        while nodes.iter().any(|(proxy, _)| proxy.accepted().len() < 12) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("they try again");
    nodes.iter().for_each(|(proxy, _)| proxy.go_away(false));
    let back = nodes.iter().map(|(_, store)| async {
        while store.load(begun.id).await.is_err() {}
        while SharedStore::load_to_revoke(&**store, begun.id).await.is_err() {}
    });
    let asked = Instant::now();
    timeout(PATIENCE, join_all(back)).await.expect("they are all back");
    print_time("C12 all nodes after the server came back", asked.elapsed(), BACK);
    stop.store(true, Ordering::SeqCst);
    asking.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn c12_ten_connections_are_tried_in_a_second_whether_they_succeed_or_not() {
    for fault in [None, Some("refused".to_owned())] {
        let servers = Servers::new(&Arc::new(options(1)));
        let mut tries = Vec::new();
        for _ in 0..35 {
            let turn = servers.turn().await;
            tries.push(Instant::now());
            servers.tried(turn, fault.clone());
        }
        for (first, eleventh) in tries.iter().zip(tries.iter().skip(10)) {
            assert!(eleventh.duration_since(*first) >= SECOND, "{fault:?}: {tries:?}");
        }
    }
}

/// The server's errors for failed writes, and the outcome that each of them means.
#[tokio::test]
async fn c11_each_fault_of_the_server_is_known_for_what_it_is() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = RedisStore::connect(options(proxy.port)).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    for (error, outcome, said) in [
        ("LOADING Redis is loading the dataset in memory", WriteOutcome::NotDone, "loading its data"),
        ("MASTERDOWN Link with MASTER is down", WriteOutcome::NotDone, "without its primary"),
        ("CLUSTERDOWN The cluster is down", WriteOutcome::NotDone, "is down"),
        ("READONLY You can't write against a read only replica.", WriteOutcome::NotDone, "is a replica"),
        ("NOREPLICAS Not enough good replicas to write.", WriteOutcome::NotDone, "min-replicas-to-write"),
        ("OOM command not allowed when used memory > 'maxmemory'.", WriteOutcome::NotDone, "raise its maxmemory"),
        ("MISCONF Errors writing to the AOF file", WriteOutcome::NotDone, "its disk"),
        ("BUSY Redis is busy running a script.", WriteOutcome::NotDone, "busy with a script"),
        ("NOPERM this user has no permissions", WriteOutcome::NotDone, "does not allow"),
        ("UNBLOCKED force unblock from blocking operation", WriteOutcome::InDoubt, "UNBLOCKED"),
        ("ERR something else", WriteOutcome::InDoubt, "something else"),
    ] {
        proxy.answer(Some(error));
        let asked = Instant::now();
        let failed = store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap_err();
        print_time(&format!("C11 an answer to {error}"), asked.elapsed(), LATEST);
        assert_eq!(failed.outcome(), outcome, "{error}: {failed}");
        assert!(failed.to_string().contains(said), "{error}: {failed}");
        assert_eq!(rotogate_core::fault::Fault::from(failed).retry_after(), SECOND);
        proxy.answer(None);
        assert_eq!(store.load(begun.id).await.unwrap(), Some(begun.clone()), "{error}");
    }
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
}

/// Time goes on by itself whenever all tasks wait, so the pauses between attempts take no real time.
#[tokio::test(start_paused = true)]
async fn c12_requests_that_gave_up_hold_up_no_later_one() {
    let gone = Server::start(&[]);
    let port = gone.port;
    drop(gone);
    let servers = Servers::new(&Arc::new(options(port)));
    let ask = async || {
        let link = Link::new(Arc::clone(&servers), Duration::ZERO);
        timeout(2 * SECOND, link.once(&redis::cmd("PING"))).await
    };
    // Each of these would be the next to try a connection, and none of them learns that it failed.
    join_all((0..100).map(|_| ask())).await;
    let failed = async { while ask().await.is_err() {} };
    timeout(10 * SECOND, failed).await.expect("a later request learns that the server is gone");
}
