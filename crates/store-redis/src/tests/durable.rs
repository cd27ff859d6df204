//! No write is acknowledged before enough replicas have it.

use support::proxy::Proxy;
use support::redis::Replicated;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::sentinel::options_of;
use super::*;
use rotogate_core::clock::SystemTime;
use rotogate_core::store::conformance::{gone, insert, later, rotated, session, start};

/// A primary and a replica that follows it.
fn pair() -> [Server; 2] {
    let primary = Server::start(&[]);
    let replica = Server::start(&[&format!("--replicaof 127.0.0.1 {}", primary.port)]);
    let follows = || primary.cli(&["INFO", "replication"]).contains("state=online");
    for _ in 0..600 {
        if follows() {
            return [primary, replica];
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the replica does not follow");
}

async fn waiting(primary: &Server, prefix: &str) -> RedisStore {
    RedisStore::connect(primary.options().prefix(prefix).wait_replicas(1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c14_without_a_replica_nothing_is_acknowledged_and_with_one_the_same_request_is() {
    let [primary, replica] = pair();
    let store = waiting(&primary, "rg").await;
    let [begun, other] = [1, 2].map(|n| session("alice", n, start()));
    insert(&store, &begun).await;
    store.settle().await.unwrap();
    replica.signal("STOP");
    let next = rotated(&begun, later(start(), 5));
    let asked = Instant::now();
    let errors = [
        store.insert(other.clone(), SubjectBound::NONE).await.unwrap_err(),
        store.compare_and_swap(1, next.clone(), None).await.unwrap_err(),
        store.revoke(gone(other.id), RevokedBecause::Logout).await.unwrap_err(),
        store.settle().await.unwrap_err(),
        store.check().await.unwrap_err(),
        store.stamp_change([1; 16], [2; 16]).await.unwrap_err(),
    ];
    print_time("C14 six answers without the replica", asked.elapsed(), LATEST * 6);
    // A guess must not wait for a disk, which may take a second.
    let counter = SharedCounter { name: [3; 16], every: Duration::from_secs(60), burst: 1 };
    assert_eq!(store.count(counter, CounterUse::Take).await.unwrap(), None);
    store.remember([4; 16], Duration::from_secs(60)).await.unwrap();
    assert!(store.remembers([4; 16]).await.unwrap());
    for error in errors {
        assert_eq!(error.outcome(), WriteOutcome::InDoubt, "{error}");
        assert!(error.to_string().contains("`wait_replicas` is 1"), "{error}");
    }
    // The writes are in the store, so they are not repeated. Instead, the gate waits until they are durable.
    assert_eq!(store.load(begun.id).await.unwrap(), Some(next.clone()));
    assert!(store.settle().await.is_err());
    replica.signal("CONT");
    store.settle().await.unwrap();
    assert_eq!(store.compare_and_swap(1, next.clone(), None).await.unwrap(), Swap::Changed(Some(Box::new(next))));
    store.revoke(gone(other.id), RevokedBecause::Logout).await.unwrap();
    let ended = replica.cli(&["HLEN", "{rg:0}:r"]);
    assert_eq!(ended, "1", "the replica has it");
}

/// An old primary that its replicas have left still answers a node, but its answers prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_a_primary_that_its_replicas_left_says_nothing_of_revocations() {
    let [primary, replica] = pair();
    let store = waiting(&primary, "rg").await;
    let time = Arc::new(SystemTime::new());
    let mut feed = store
        .follow(Cursor::default(), Follow { time, every: Duration::from_millis(50), row: Arc::default() })
        .await
        .unwrap();
    let complete = async { while feed.next().await.unwrap().complete.is_none() {} };
    timeout(PATIENCE, complete).await.unwrap();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    let fails = async {
        while feed.next().await.is_ok() {}
        for _ in 0..3 {
            feed.next().await.unwrap_err();
        }
    };
    timeout(PATIENCE, fails).await.expect("the beat is not acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c14_writes_that_wait_together_wait_once_and_all_of_them_are_done() {
    const WRITES: u64 = 400;
    let [primary, replica] = pair();
    let store = Arc::new(waiting(&primary, "rg").await);
    let mut writes = JoinSet::new();
    for n in 0..WRITES {
        let store = Arc::clone(&store);
        writes.spawn(async move { insert(&*store, &session("alice", n, start())).await });
    }
    writes.join_all().await;
    let said = primary.cli(&["INFO", "commandstats"]);
    let line = said.lines().find(|line| line.starts_with("cmdstat_wait:")).unwrap();
    let calls: u64 = line.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    assert!(calls < WRITES / 4, "{line}");
    // The writes are acknowledged, so the replica has all of them.
    assert_eq!(replica.cli(&["ZCARD", "{rg:0}:sub:alice"]), (WRITES + 1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c13_a_lane_that_died_silently_is_given_up_in_time() {
    let [primary, _replica] = pair();
    let proxy = Proxy::to(primary.port).await;
    let store = RedisStore::connect(options(proxy.port).wait_replicas(1)).await.unwrap();
    for n in 0..8 {
        insert(&store, &session("alice", n, start())).await;
    }
    proxy.silence();
    for n in 10..18 {
        let asked = Instant::now();
        insert(&store, &session("alice", n, start())).await;
        print_time("C13 an answer after a lane died silently", asked.elapsed(), LATEST);
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_given_to_it_again_in_a_lane() {
    let [primary, _replica] = pair();
    let store = waiting(&primary, "rg").await;
    for n in 0..3 {
        primary.cli(&["SCRIPT", "FLUSH"]);
        insert(&store, &session("alice", n, start())).await;
    }
}

#[tokio::test]
async fn c20_waiting_for_more_than_the_server_has_is_refused_at_start() {
    let server = Server::start(&[]);
    let said = RedisStore::connect(server.options().wait_replicas(1)).await.unwrap_err().to_string();
    assert!(said.contains("0 replicas of Redis have confirmed the write, but `wait_replicas` is 1"), "{said}");
    let with_file = Server::start(&["--appendonly yes"]);
    if with_file.cli(&["COMMAND", "INFO", "WAITAOF"]).is_empty() {
        let said = RedisStore::connect(server.options().wait_fsync()).await.unwrap_err().to_string();
        assert!(said.contains("wait_fsync needs 7.2 or later"), "{said}");
        return;
    }
    let store = RedisStore::connect(with_file.options().wait_fsync()).await.unwrap();
    insert(&store, &session("alice", 1, start())).await;
    assert!(with_file.cli(&["INFO", "commandstats"]).contains("cmdstat_waitaof"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_the_redis_store_passes_the_conformance_suite_with_a_replica() {
    let [primary, _replica] = pair();
    conformance::run(|_, _| {
        let prefix = prefix();
        let connecting = waiting(&primary, &prefix);
        Arc::new(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting)))
    })
    .await;
}

/// Clients continue with their tokens while the primary dies and a replica takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c14_a_promotion_loses_nothing_that_was_acknowledged() {
    let mut servers = Replicated::start(&[]);
    let store = Arc::new(RedisStore::connect(options_of(&servers).wait_replicas(1)).await.unwrap());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let written = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..8u64 {
        let (store, stop, written) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&written));
        writers.spawn(async move {
            let mut kept = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let begun = session("alice", writer << 32 | n, start());
                if store.insert(begun.clone(), SubjectBound::NONE).await.is_err() {
                    continue;
                }
                let next = rotated(&begun, later(start(), 5));
                let rotated = matches!(store.compare_and_swap(1, next.clone(), None).await, Ok(Swap::Swapped));
                let ended = rotated && n % 2 == 0 && store.revoke(gone(begun.id), RevokedBecause::Logout).await.is_ok();
                kept.push((begun.id, rotated, ended));
                written.fetch_add(1, Ordering::SeqCst);
            }
            kept
        });
    }
    let more = async |by: u64| {
        let until = written.load(Ordering::SeqCst) + by;
        while written.load(Ordering::SeqCst) < until {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, more(200)).await.unwrap();
    servers.servers[0].kill();
    timeout(PATIENCE, more(200)).await.expect("it goes on at the next primary");
    stop.store(true, Ordering::SeqCst);
    let kept = writers.join_all().await;
    let (list, _) = store.revocations().await.unwrap();
    for (id, rotated, ended) in kept.into_iter().flatten() {
        let record = store.load(id).await.unwrap().expect("it was acknowledged");
        assert!(!rotated || record.revision >= 2, "{id}");
        assert!(!ended || record.is_revoked(), "{id}");
        assert!(!ended || list.minimum(id) == rotogate_core::session::rotation::REVOKED, "{id}");
    }
}
