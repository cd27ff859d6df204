//! C3: what a script writes is what the rules decide.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::site::Site;
use super::*;
use rotogate_core::fault::WriteOutcome;
use rotogate_core::revocation::Effect;
use rotogate_core::session::profile::OnTooMany;
use rotogate_core::store::agreement;
use rotogate_core::store::conformance::{gone, insert, later, minimum, not_before, rotated, session, start};

/// The same operations on a store that runs the rules, and on this one, have the same results.
#[tokio::test]
async fn c3_operations_do_what_the_rules_say() {
    do_as_the_rules(&Site::One(Server::start(&[])), 1..=4).await;
}

/// With as many partitions as a cluster has.
#[tokio::test]
async fn c3_operations_do_what_the_rules_say_in_a_cluster() {
    do_as_the_rules(&Site::cluster(), 5..=8).await;
}

async fn do_as_the_rules(site: &Site, seeds: RangeInclusive<u64>) {
    for seed in seeds {
        agreement::agrees_with_the_rules(&*site.connect(&prefix()).await, seed, 2500).await;
    }
}

/// What a node presumes may be of before another one's write.
#[tokio::test]
async fn c3_an_entry_and_a_record_that_another_node_has_changed_since_are_decided_over_anew() {
    let server = Server::start(&[]);
    let [a, b] = [server.connect("rg").await, server.connect("rg").await];
    let begun = session("alice", 1, start());
    insert(&*a, &begun).await;
    let raised = minimum(begun.id, 9, later(start(), 900_000));
    b.revoke(raised.clone(), RevokedBecause::Operator).await.unwrap();
    let next = rotated(&begun, later(start(), 5));
    let swap = a.compare_and_swap(1, next.clone(), Some(minimum(begun.id, 2, later(start(), 600_000)))).await.unwrap();
    assert_eq!(swap, Swap::Swapped);
    let (entries, _) = b.revocations_since(Cursor::default()).await.unwrap();
    let Effect::Minimum { minimum: highest, .. } = entries[0].effect else { panic!("{entries:?}") };
    assert_eq!((entries.len(), highest.get()), (1, 9));
    // It has found this entry.
    a.load_to_revoke(begun.id).await.unwrap();
    b.revoke(minimum(begun.id, 12, later(start(), 900_000)), RevokedBecause::Operator).await.unwrap();
    let merged = a.revoke(minimum(begun.id, 3, later(start(), 600_000)), RevokedBecause::Operator).await.unwrap();
    let Effect::Minimum { minimum: highest, .. } = merged.effect else { panic!("{merged:?}") };
    assert_eq!(highest.get(), 12);
    // It has found a live session of this revision.
    a.load_to_revoke(begun.id).await.unwrap();
    let last = rotated(&next, later(start(), 6));
    assert_eq!(b.compare_and_swap(next.revision, last.clone(), None).await.unwrap(), Swap::Swapped);
    a.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    let ended = b.load(begun.id).await.unwrap().unwrap();
    assert_eq!((ended.current, ended.revision), (last.current, last.revision + 1));
}

/// Sessions that begin all the time do not keep a not-before from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c3_a_not_before_of_all_comes_through_while_sessions_begin_and_outlives_them() {
    let server = Server::start(&[]);
    let [a, b] = [server.connect("rg").await, server.connect("rg").await];
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let storm = {
        let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
        tokio::spawn(async move {
            let mut last = None;
            while !stop.load(Ordering::SeqCst) {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                let one = session("alice", number, later(start(), number));
                if let Inserted::Inserted(_) = b.insert(one.clone(), SubjectBound::NONE).await.unwrap() {
                    last = Some(one.expires);
                }
            }
            last
        })
    };
    for round in 0..20 {
        let reached = begun.load(Ordering::SeqCst);
        while begun.load(Ordering::SeqCst) < reached + 5 {
            tokio::task::yield_now().await;
        }
        let entry = not_before(Target::Global, later(start(), round));
        let held = a.revoke(entry, RevokedBecause::Operator).await.unwrap();
        let known = session("alice", reached, later(start(), reached));
        assert!(held.until >= known.expires.plus(LEEWAY), "{held:?}");
    }
    stop.store(true, Ordering::SeqCst);
    assert!(storm.await.unwrap().is_some());
}

/// Two nodes, whose inserts do not take turns with each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_however_many_sessions_begin_at_two_nodes_no_more_live_than_may() {
    let server = Server::start(&[]);
    let nodes = [server.connect("rg").await, server.connect("rg").await];
    for (name, from, on_too_many) in [("alice", 0, OnTooMany::EndOldest), ("bob", 1000, OnTooMany::Refuse)] {
        let bound = SubjectBound { most: 3, idle_ttl: Duration::from_secs(600), on_too_many };
        let mut inserts = tokio::task::JoinSet::new();
        for n in 0..60 {
            let node = Arc::clone(&nodes[n as usize % 2]);
            let begun = session(name, from + n, later(start(), n));
            inserts.spawn(async move {
                loop {
                    match node.insert(begun.clone(), bound).await {
                        Ok(inserted) => break inserted,
                        // Each attempt met another one. A client asks again, too.
                        Err(error) if error.outcome() == WriteOutcome::NotDone => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let results = inserts.join_all().await;
        let gave_way: usize = results
            .iter()
            .map(|inserted| match inserted {
                Inserted::Inserted(ended) => ended.len(),
                Inserted::TooMany => 1,
                Inserted::NoLongerValid(_) => panic!("nothing was revoked"),
            })
            .sum();
        assert_eq!(gave_way, 57, "{name}");
        let page = nodes[0].list(Filter::Subject(name.into()), None, 1000).await.unwrap();
        let live =
            page.sessions.iter().filter(|session| session.status == rotogate_core::session::Status::Live).count();
        assert_eq!(live, 3, "{name}");
    }
}
