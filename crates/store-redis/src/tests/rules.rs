//! C3: the scripts and the rules agree.

use std::ops::RangeInclusive;

use redis::Value;

use super::super::connect::Request;
use super::super::record::{decode_effect, encode_effect};
use super::super::script::{Script, bytes};
use super::site::Site;
use super::*;
use rotogate_core::fault::WriteOutcome;
use rotogate_core::session::profile::OnTooMany;
use rotogate_core::store::agreement;
use rotogate_core::store::conformance::{later, session, start};

#[tokio::test]
async fn c3_effects_merge_in_lua_as_in_rust_for_every_pair_of_a_domain() {
    let effects = agreement::effects();
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let source = format!(
        "local OPENING = true\n{}local merged, _, _, _, merge = {{}}, entries()
for i = 4, #ARGV do merged[#merged + 1] = merge(ARGV[3], ARGV[i]) end
return merged",
        include_str!("../scripts/common.lua")
    );
    let script: &'static Script = Box::leak(Box::new(Script::from_source(&source)));
    let encoded: Vec<Vec<u8>> = effects.iter().map(|effect| encode_effect(*effect)).collect();
    let mut compared = 0;
    for (a, bytes_of_a) in effects.iter().zip(&encoded) {
        assert_eq!(decode_effect(bytes_of_a), Some(*a));
        let mut args = vec![Vec::new(), Vec::new(), bytes_of_a.clone()];
        args.extend(encoded.iter().cloned());
        let reply = store
            .0
            .commands
            .ask(0, &Request::Script { script, keys: store.0.partitions.first().keys.fixed(), args })
            .await
            .unwrap();
        let Value::Array(merged) = reply else { panic!("{reply:?}") };
        assert_eq!(merged.len(), effects.len());
        for (b, merged) in effects.iter().zip(merged) {
            let merged = decode_effect(&bytes(merged).unwrap()).unwrap();
            assert_eq!(merged, a.merge(*b), "{a:?} {b:?}");
            compared += 1;
        }
    }
    assert!(compared >= 10_000, "{compared}");
}

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
