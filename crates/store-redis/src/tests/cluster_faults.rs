//! A cluster whose servers fail, or give slots to each other.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use support::proxy::Proxy;
use support::redis_cluster::RedisCluster;
use tokio::time::timeout;

use super::cluster::refused;
use super::site::Site;
use super::*;
use crate::connect::Link;
use crate::partitions::Partition;
use crate::servers::Servers;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::revocation::Effect;
use rotogate_core::store::conformance::{gone, insert, later, minimum, not_before, rotated, session, start, subject};

fn follow() -> Follow {
    Follow { time: Arc::new(SystemTime::new()), every: Duration::from_millis(50), row: Arc::default() }
}

/// A session in each partition.
async fn in_each_partition(store: &RedisStore) -> Vec<Session> {
    let all: Vec<_> = (0..16).map(|n| session("alice", n, start())).collect();
    for one in &all {
        insert(store, one).await;
    }
    all
}

/// Repeats an operation until it succeeds.
async fn done<T>(mut what: impl AsyncFnMut() -> Option<T>) -> T {
    let repeated = async {
        loop {
            if let Some(done) = what().await {
                return done;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, repeated).await.expect("it is done in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c12_a_gate_goes_on_after_a_promotion() {
    let mut cluster = RedisCluster::start(true, &[]);
    let store = RedisStore::connect(options(cluster.nodes[1].port).cluster()).await.unwrap();
    let all = in_each_partition(&store).await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    let lost = cluster.node_of("{rg:0}:h");
    let [at_lost, at_others]: [Vec<_>; 2] = [true, false].map(|is_lost| {
        let is_there = |n: &usize| (cluster.node_of(&format!("{{rg:{n}}}:h")) == lost) == is_lost;
        (0..16).filter(is_there).collect()
    });
    assert!(!at_lost.is_empty() && !at_others.is_empty());
    cluster.nodes[lost].kill();
    // If the replica takes over before the deadline, there is no error.
    if let Err(error) = store.load(all[at_lost[0]].id).await {
        assert_eq!(rotogate_core::fault::Fault::from(error).retry_after(), Duration::from_secs(1));
    }
    // The replica takes over, and no part of the gate restarts.
    let waiting = tokio::task::spawn_blocking(move || {
        cluster.until_promoted(lost + 3);
        cluster
    });
    let time = SystemTime::new();
    let cluster = waiting.await.unwrap();
    let promoted = time.monotonic();
    for one in &all {
        done(async || store.load(one.id).await.ok()).await;
        done(async || store.compare_and_swap(1, rotated(one, one.issued_at), None).await.ok()).await;
    }
    print_time("C12 refreshed in all partitions after a promotion", time.monotonic() - promoted, BACK);
    // The replica may lack writes.
    done(async || feed.next().await.ok()?.lost.then_some(())).await;
    store.adopt().await.unwrap();
    done(async || feed.next().await.ok()?.complete.filter(|heard| heard.asked > promoted)).await;
    print_time("C12 heard of all partitions after a promotion", time.monotonic() - promoted, BACK);
    drop(cluster);
}

/// Entries of other partitions arrive at once. The proof that no entry is missing needs the answers of all
/// partitions.
#[tokio::test]
async fn c8_a_partition_that_is_away_holds_up_the_proof_and_not_the_entries_of_others() {
    let mut cluster = RedisCluster::start(false, &["--cluster-require-full-coverage no"]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap();
    let all = in_each_partition(&store).await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    let lost = cluster.node_of("{rg:0}:h");
    let other = all.iter().zip(0..).find(|(_, n)| cluster.node_of(&format!("{{rg:{n}}}:h")) != lost).unwrap().0;
    cluster.nodes[lost].kill();
    store.revoke(gone(other.id), RevokedBecause::Logout).await.unwrap();
    let time = SystemTime::new();
    let revoked = time.monotonic();
    let entry = done(async || {
        let step = feed.next().await.ok()?;
        assert!(step.complete.is_none_or(|heard| heard.asked < revoked), "{step:?}");
        step.entries.into_iter().next()
    });
    assert_eq!(entry.await.target, Target::Session(other.id));
    print_time("C8 an entry beside a partition that is away", time.monotonic() - revoked, Duration::from_secs(2));
}

/// Moves the slot of a partition by hand, key by key.
struct Move {
    slot: String,
    from: usize,
    to: usize,
    links: Vec<Link>,
    ports: Vec<u16>,
    ids: Vec<String>,
}

impl Move {
    fn new(cluster: &RedisCluster, partition: usize) -> Self {
        let key = format!("{{rg:{partition}}}:h");
        let from = cluster.node_of(&key);
        let ports: Vec<_> = cluster.nodes.iter().map(|node| node.port).collect();
        let links =
            ports.iter().map(|port| Link::new(Servers::new(&Arc::new(options(*port))), Duration::ZERO)).collect();
        let ids = (0..ports.len()).map(|n| cluster.id(n).to_owned()).collect();
        Self { slot: cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", &key]), from, to: (from + 1) % 3, links, ports, ids }
    }

    async fn run(&self, node: usize, parts: &[&[u8]]) -> Value {
        let mut command = redis::cmd(std::str::from_utf8(parts[0]).unwrap());
        parts[1..].iter().for_each(|part| drop(command.arg(*part).clone()));
        self.links[node].once(&command).await.unwrap().unwrap()
    }

    async fn set(&self, node: usize, what: &str, of: usize) {
        let parts = ["CLUSTER", "SETSLOT", &self.slot, what, &self.ids[of]].map(str::as_bytes);
        self.run(node, &parts).await;
    }

    async fn begin(&self) {
        self.set(self.to, "IMPORTING", self.from).await;
        self.set(self.from, "MIGRATING", self.to).await;
    }

    async fn keys(&self) -> Vec<Vec<u8>> {
        let parts = ["CLUSTER", "GETKEYSINSLOT", &self.slot, "1000"].map(str::as_bytes);
        let Value::Array(keys) = self.run(self.from, &parts).await else { panic!("no keys") };
        keys.into_iter().map(|key| bytes(key).unwrap()).collect()
    }

    async fn carry(&self, key: &[u8]) {
        let port = self.ports[self.to].to_string();
        self.run(self.from, &[b"MIGRATE", b"127.0.0.1", port.as_bytes(), key, b"0", b"5000"]).await;
    }

    async fn end(&self) {
        while let keys @ [_, ..] = &*self.keys().await {
            for key in keys {
                self.carry(key).await;
            }
        }
        self.set(self.to, "NODE", self.to).await;
        for node in [self.from, (self.to + 1) % 3] {
            self.set(node, "NODE", self.to).await;
        }
    }
}

/// Repeats a write until it fails as certainly not done. After an attempt that the deadline cut off, the write may
/// have been done.
async fn not_done(write: impl AsyncFn() -> Result<(), StoreError>) {
    for _ in 0..10 {
        let error = write().await.unwrap_err();
        if error.outcome() == WriteOutcome::NotDone {
            return;
        }
        assert_eq!(error.outcome(), WriteOutcome::InDoubt, "{error}");
    }
    panic!("each attempt was cut off");
}

/// While the keys of a slot move one by one, every key is at one of two servers.
#[tokio::test]
async fn c11_while_a_slot_moves_reads_follow_each_key_and_nothing_is_half_written() {
    let cluster = RedisCluster::start(false, &[]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap();
    let ids = [3, 19, 35, 51].map(|n| session("alice", n, start()));
    for one in &ids {
        insert(&store, one).await;
    }
    store.revoke(minimum(ids[0].id, 1, later(start(), 600_000)), RevokedBecause::Operator).await.unwrap();
    let moving = Move::new(&cluster, 3);
    moving.begin().await;
    for one in &ids[..2] {
        moving.carry(&store.0.partitions.get(3).keys.session(one.id)).await;
    }
    for one in &ids {
        assert_eq!(store.load(one.id).await.unwrap().as_ref(), Some(one));
    }
    assert_eq!(store.load(session("alice", 67, start()).id).await.unwrap(), None);
    assert_eq!(store.list(Filter::All, None, 10).await.unwrap().sessions.len(), 4);
    // A script needs all its keys at one server.
    not_done(async || store.compare_and_swap(1, rotated(&ids[0], start()), None).await.map(drop)).await;
    not_done(async || store.revoke(gone(ids[1].id), RevokedBecause::Logout).await.map(drop)).await;
    // The record is still at the first server, but the index, which the script finds by the record, has
    // moved.
    moving.carry(&store.0.partitions.get(3).keys.subject("alice")).await;
    not_done(async || store.revoke(gone(ids[2].id), RevokedBecause::Logout).await.map(drop)).await;
    moving.end().await;
    for one in &ids {
        assert_eq!(store.load(one.id).await.unwrap().as_ref(), Some(one), "nothing was written");
    }
    assert_eq!(store.compare_and_swap(1, rotated(&ids[0], start()), None).await.unwrap(), Swap::Swapped);
    let ended = store.revoke(gone(ids[2].id), RevokedBecause::Logout).await.unwrap();
    let (all, _) = store.revocations_since(Cursor::default()).await.unwrap();
    assert!(all.contains(&ended), "{all:?}");
    assert!(!store.0.partitions.iter().any(Partition::is_lost));
}

/// Each primary has its own replica. A write to a moving slot waits for the replica of the server to which
/// the slot moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c14_in_a_cluster_a_write_waits_for_the_replicas_of_the_primary_that_takes_it() {
    let cluster = RedisCluster::start(true, &[]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster().wait_replicas(1)).await.unwrap();
    let all = in_each_partition(&store).await;
    store.settle().await.unwrap();
    let moving = Move::new(&cluster, 3);
    let stopped = &cluster.nodes[3 + moving.to];
    stopped.signal("STOP");
    let swap = async |one: &Session| store.compare_and_swap(1, rotated(one, later(start(), 5)), None).await;
    let swaps = futures_util::future::join_all(all.iter().map(swap)).await;
    for (n, swapped) in swaps.into_iter().enumerate() {
        if cluster.node_of(&format!("{{rg:{n}}}:h")) == moving.to {
            let error = swapped.unwrap_err();
            assert!(error.to_string().contains("`wait_replicas` is 1"), "{error}");
            assert_eq!(error.outcome(), WriteOutcome::InDoubt);
        } else {
            assert_eq!(swapped.unwrap(), Swap::Swapped, "{n}");
        }
    }
    assert_eq!(store.settle().await.unwrap_err().outcome(), WriteOutcome::InDoubt);
    stopped.signal("CONT");
    done(async || store.settle().await.ok()).await;
    // All its keys have moved, so the other server accepts the request.
    store.revoke(minimum(all[3].id, 1, later(start(), 600_000)), RevokedBecause::Operator).await.unwrap();
    moving.begin().await;
    for key in moving.keys().await {
        moving.carry(&key).await;
    }
    let next = rotated(&rotated(&all[3], later(start(), 5)), later(start(), 10));
    stopped.signal("STOP");
    let error = store.compare_and_swap(2, next.clone(), None).await.unwrap_err();
    assert!(error.to_string().contains("`wait_replicas` is 1"), "{error}");
    assert_eq!(error.outcome(), WriteOutcome::InDoubt);
    stopped.signal("CONT");
    done(async || store.compare_and_swap(2, next.clone(), None).await.ok()).await;
    moving.end().await;
    assert_eq!(store.load(all[3].id).await.unwrap(), Some(next));
    store.settle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c11_a_slot_that_moves_during_refreshes_loses_none() {
    let cluster = RedisCluster::start(false, &[]);
    let store = Arc::new(RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let rotations = Arc::new(AtomicUsize::new(0));
    let refreshing: Vec<_> = (0..4u64)
        .map(|n| {
            let (store, stop, rotations) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&rotations));
            tokio::spawn(async move {
                let mut known = session("alice", 3 + 16 * n, start());
                insert(&*store, &known).await;
                while !stop.load(Ordering::SeqCst) {
                    let next = rotated(&known, start());
                    match store.compare_and_swap(known.revision, next.clone(), None).await {
                        Ok(Swap::Swapped) => {
                            known = next;
                            rotations.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(other) => panic!("{other:?}"),
                        // The write may have been done nevertheless.
                        Err(_) => {
                            if let Ok(Some(now)) = store.load(known.id).await {
                                known = now;
                            }
                        }
                    }
                }
                known
            })
        })
        .collect();
    let some_more = async |what: &str| {
        let before = rotations.load(Ordering::SeqCst);
        let begin = tokio::time::Instant::now();
        done(async || (rotations.load(Ordering::SeqCst) > before + 50).then_some(())).await;
        eprintln!("{what}: 50 rotations after {:?}", begin.elapsed());
    };
    some_more("before").await;
    let time = SystemTime::new();
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    for _ in 0..2 {
        let moving = Move::new(&cluster, 3);
        moving.begin().await;
        moving.end().await;
        let moved = time.monotonic();
        done(async || feed.next().await.ok()?.complete.filter(|heard| heard.asked > moved)).await;
        some_more("moved").await;
        let back = Move { from: moving.to, to: moving.from, ..moving };
        back.begin().await;
        back.end().await;
        some_more("moved back").await;
    }
    // A primary that only gave a partition away lost nothing.
    let moved = time.monotonic();
    done(async || feed.next().await.ok()?.complete.filter(|heard| heard.asked > moved)).await;
    stop.store(true, Ordering::SeqCst);
    for one in refreshing {
        let known = one.await.unwrap();
        assert_eq!(store.load(known.id).await.unwrap(), Some(known));
    }
    assert!(!store.0.partitions.iter().any(Partition::is_lost));
}

/// The nodes announce the addresses of proxies in front of them.
async fn behind_proxies(cluster: &RedisCluster) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for node in &cluster.nodes {
        let proxy = Proxy::to(node.port).await;
        node.cli(&["CONFIG", "SET", "cluster-announce-port", &proxy.port.to_string()]);
        proxies.push(proxy);
    }
    let is_known = |node: &Redis| {
        let slots = node.cli(&["CLUSTER", "SLOTS"]);
        proxies.iter().all(|proxy| slots.contains(&proxy.port.to_string()))
    };
    done(async || cluster.nodes.iter().all(is_known).then_some(())).await;
    proxies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c11_a_reply_of_a_cluster_that_is_cut_is_asked_for_again() {
    let cluster = RedisCluster::start(false, &[]);
    let proxies = behind_proxies(&cluster).await;
    let store = RedisStore::connect(options(proxies[0].port).cluster()).await.unwrap();
    let proxy = &proxies[cluster.node_of("{rg:3}:h")];
    let mut cuts = 0;
    // The tests of one server cut every byte of the same replies, so some bytes are enough here.
    for n in (0..).step_by(9) {
        let begun = session("alice", 3 + 16 * n, start());
        let mut was_cut = false;
        proxy.cut_after(n as usize);
        assert_eq!(store.insert(begun.clone(), SubjectBound::NONE).await.unwrap(), Inserted::Inserted(Vec::new()));
        was_cut |= proxy.has_cut();
        let next = rotated(&begun, later(start(), 5));
        proxy.cut_after(n as usize);
        assert_eq!(store.compare_and_swap(1, next, None).await.unwrap(), Swap::Swapped);
        was_cut |= proxy.has_cut();
        let moment = later(start(), n);
        proxy.cut_after(n as usize);
        let merged = store.revoke(not_before(subject("bob"), moment), RevokedBecause::Operator).await.unwrap();
        assert_eq!(merged.effect, Effect::NotBefore(moment));
        was_cut |= proxy.has_cut();
        proxy.cut_after(n as usize);
        assert_eq!(store.load(begun.id).await.unwrap().map(|known| known.revision), Some(2));
        was_cut |= proxy.has_cut();
        cuts += usize::from(was_cut);
        if !was_cut {
            break;
        }
    }
    assert!(cuts > 10, "{cuts}");
}

#[tokio::test]
async fn c13_connections_to_a_cluster_that_died_silently_are_given_up_in_time() {
    let cluster = RedisCluster::start(false, &[]);
    let proxies = behind_proxies(&cluster).await;
    let store = RedisStore::connect(options(proxies[0].port).cluster()).await.unwrap();
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    proxies.iter().for_each(Proxy::silence);
    let time = SystemTime::new();
    let asked = time.monotonic();
    insert(&store, &session("alice", 3, start())).await;
    done(async || feed.next().await.ok()?.complete.filter(|heard| heard.asked > asked)).await;
    print_time("C13 a proof of a cluster after its connections died silently", time.monotonic() - asked, LATEST);
}

#[tokio::test]
async fn c23_a_cluster_of_which_a_part_was_emptied_answers_no_question_about_it() {
    let site = Site::cluster();
    let Site::Cluster(cluster) = &site else { unreachable!() };
    let store = site.connect("rg").await;
    let all = in_each_partition(&store).await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    let emptied = cluster.node_of("{rg:0}:h");
    cluster.nodes[emptied].cli(&["FLUSHALL"]);
    for (n, one) in all.iter().enumerate() {
        let loaded = store.load(one.id).await;
        if cluster.node_of(&format!("{{rg:{n}}}:h")) == emptied {
            assert!(loaded.unwrap_err().to_string().contains("has lost writes"));
        } else {
            assert_eq!(loaded.unwrap().as_ref(), Some(one));
        }
    }
    let error = store.revoke(not_before(subject("alice"), start()), RevokedBecause::Operator).await.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::InDoubt, "other partitions have it: {error}");
    done(async || feed.next().await.ok()?.lost.then_some(())).await;
    let error = store.adopt().await.unwrap_err();
    assert!(error.to_string().contains("was emptied"), "{error}");
    let said = refused(site.options()).await;
    assert!(said.contains("lost the main record of its partition"), "{said}");
}
