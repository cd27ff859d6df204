//! C3: the scripts and the rules agree.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use redis::Value;

use super::super::connect::Request;
use super::super::record::{decode_effect, encode_effect};
use super::super::script::{Script, bytes};
use super::site::Site;
use super::*;
use crate::revocation::Effect;
use crate::session::profile::OnTooMany;
use crate::store::MemoryStore;
use crate::store::conformance::{gone, later, minimum, not_before, rotated, session, start, subject};

/// Every pair of a small domain, with numbers around the bounds of what a Lua number and a `u64` can hold.
#[tokio::test]
async fn c3_effects_merge_in_lua_as_in_rust_for_every_pair_of_a_domain() {
    const EDGES: [u64; 6] = [0, 1, (1 << 32) - 1, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
    let mut effects = vec![Effect::Gone];
    effects.extend(EDGES.map(|moment| Effect::NotBefore(Timestamp::from_millis(moment))));
    for a in [0, 2, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        for b in [0, 5, u64::MAX - 1, u64::MAX] {
            for c in EDGES {
                effects.push(Effect::Minimum {
                    minimum: Generation::new(a),
                    effective_from: Timestamp::from_millis(b),
                    before: Generation::new(c),
                });
            }
        }
    }
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let source = format!(
        "local OPENING = true\n{}local merged = {{}}
for i = 4, #ARGV do merged[#merged + 1] = merge(ARGV[3], ARGV[i]) end
return merged",
        include_str!("../scripts/common.lua")
    );
    let script: &'static Script = Box::leak(Box::new(Script::of(&source)));
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

/// A small generator: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
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
    const OPERATIONS: u64 = 10_000;
    for seed in seeds {
        let mut numbers = Numbers(seed);
        let redis = site.connect(&prefix()).await;
        let memory = MemoryStore::for_a_trial(ISSUER, LEEWAY);
        let stores: [&dyn Store; 2] = [&*redis, &memory];
        // The latest end of all sessions only grows here, so that one that stays makes it the same.
        let longest = session("dave", 1 << 41, start());
        let longest = Session { expires: longest.expires.plus(Duration::from_secs(86_400)), ..longest };
        for store in stores {
            conformance::insert(store, &longest).await;
        }
        let mut known: Vec<SessionId> = Vec::new();
        let mut kinds = BTreeSet::new();
        for n in 0..OPERATIONS / 4 {
            let at = later(start(), n * 3);
            let name = ["alice", "bob", "carol"][numbers.below(3) as usize];
            let pick = numbers.below(known.len().max(1) as u64) as usize;
            let id = known.get(pick).copied().unwrap_or_else(|| session(name, 1 << 40, at).id);
            let kind = numbers.below(9);
            let mut said = Vec::new();
            match kind {
                0 | 1 => {
                    let most = [2, 4, u32::MAX][numbers.below(3) as usize];
                    let on_too_many = [OnTooMany::Refuse, OnTooMany::EndOldest][numbers.below(2) as usize];
                    let bound = SubjectBound { most, idle_ttl: Duration::from_secs(3), on_too_many };
                    let bound = if most == u32::MAX { SubjectBound::NONE } else { bound };
                    let client = ["web", "tv"][numbers.below(2) as usize];
                    let created = Timestamp::from_millis(at.as_millis() - numbers.below(20));
                    let begun = Session { client: client.into(), issued_at: at, ..session(name, n, created) };
                    for store in stores {
                        said.push(format!("{:?}", store.insert(begun.clone(), bound).await.map_err(|e| e.outcome())));
                    }
                    known.push(begun.id);
                }
                2..=4 => {
                    let Some(record) = memory.load(id).await.unwrap() else { continue };
                    let next = Session { status: crate::session::Status::Live, ..rotated(&record, at) };
                    let expected = record.revision - numbers.below(4) / 3;
                    let entry = minimum(id, numbers.below(6), later(at, numbers.below(900_000)));
                    let entry = (numbers.below(2) == 0).then_some(entry);
                    for store in stores {
                        let swap = store.compare_and_swap(expected, next.clone(), entry.clone()).await;
                        said.push(format!("{:?}", swap.map_err(|error| error.outcome())));
                    }
                }
                5 | 6 => {
                    let moment = Timestamp::from_millis(at.as_millis() - numbers.below(5000));
                    let entry = match numbers.below(8) {
                        0..=3 => gone(id),
                        4 => minimum(id, numbers.below(9), later(at, numbers.below(900_000))),
                        5 => not_before(conformance::client("tv"), moment),
                        6 => not_before(Target::Global, Timestamp::from_millis(moment.as_millis() - 3000)),
                        _ => not_before(subject(name), moment),
                    };
                    let because = [RevokedBecause::Logout, RevokedBecause::Reuse][numbers.below(2) as usize];
                    for store in stores {
                        let merged = store.revoke(entry.clone(), because).await;
                        said.push(format!("{:?}", merged.map_err(|error| error.outcome())));
                    }
                }
                7 => {
                    let seen = vec![(id, Generation::new(1 + numbers.below(3)))];
                    for store in stores {
                        store.confirm(seen.clone()).await.unwrap();
                    }
                }
                _ => {
                    for store in stores {
                        let page = store.list(Filter::Subject(name.into()), None, 1000).await.unwrap();
                        said.push(format!("{:?} {:?}", page.sessions, page.next));
                    }
                }
            }
            for store in stores {
                said.push(format!("{:?}", store.load(id).await.unwrap()));
            }
            let (of_redis, of_memory): (Vec<_>, Vec<_>) =
                said.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
            assert_eq!(of_redis, of_memory, "seed {seed}, operation {n}, kind {kind}");
            kinds.insert(kind);
        }
        assert_eq!(kinds.len(), 9);
        let all = stores.map(|store| store.revocations_since(Cursor::default()));
        let [of_redis, of_memory] = all;
        let (mut of_redis, mut of_memory) = (of_redis.await.unwrap().0, of_memory.await.unwrap().0);
        if let Site::Cluster(_) = site {
            // Between partitions there is no order.
            of_redis.sort_by(|a, b| a.target.cmp(&b.target));
            of_memory.sort_by(|a, b| a.target.cmp(&b.target));
        }
        assert_eq!(of_redis, of_memory);
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
            inserts.spawn(async move { node.insert(begun, bound).await.unwrap() });
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
        let live = page.sessions.iter().filter(|session| session.status == crate::session::Status::Live).count();
        assert_eq!(live, 3, "{name}");
    }
}
