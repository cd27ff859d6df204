//! Tests on a cluster of real servers: the behaviour of one server, and of clusters only.

use std::collections::BTreeSet;

use super::opening::COMMANDS;
use super::site::Site;
use super::*;
use rotogate_core::revocation::Effect;
use rotogate_core::session::Status;
use rotogate_core::store::conformance::{insert, later, not_before, rotated, session, start, subject};
use rotogate_core::store::kit::commit::{Operation, decide, raises};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules;

fn connect_now(site: &Site) -> Arc<RedisStore> {
    let prefix = prefix();
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(site.connect(&prefix)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_a_cluster_passes_the_conformance_suite() {
    let site = Site::cluster();
    conformance::run(|_, _| connect_now(&site)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_nodes_on_a_cluster_pass_the_conformance_suite() {
    let site = Site::cluster();
    conformance::run_shared(async || {
        let prefix = prefix();
        [site.connect(&prefix).await, site.connect(&prefix).await]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_a_cluster_keeps_rows() {
    let site = Site::cluster();
    conformance::run_rows(|| connect_now(&site)).await;
}

/// Four nodes, whose inserts conflict, and sessions in all partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_however_many_sessions_begin_in_all_partitions_no_more_live_than_may() {
    let site = Site::cluster();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(site.connect("rg").await);
    }
    for (name, from, ends_oldest) in [("alice", 0, true), ("bob", 1000, false)] {
        let bound = SubjectBound { most: 3, idle_ttl: Duration::from_secs(600), ends_oldest };
        let mut inserts = tokio::task::JoinSet::new();
        for n in 0..60 {
            let node = Arc::clone(&nodes[n as usize % 4]);
            let begun = session(name, from + n, later(start(), n));
            inserts.spawn(async move { node.insert(begun, bound).await.unwrap() });
        }
        let mut ended = BTreeSet::new();
        let mut refused = 0;
        for inserted in inserts.join_all().await {
            match inserted {
                Inserted::Inserted(entries) => ended.extend(entries.into_iter().map(|entry| entry.target)),
                Inserted::TooMany => refused += 1,
                Inserted::NoLongerValid(_) => panic!("nothing was revoked"),
            }
        }
        assert_eq!(ended.len() + refused, 57, "{name}");
        assert!(ended.is_empty() || ends_oldest);
        let page = nodes[0].list(Filter::Subject(name.into()), None, 1000).await.unwrap();
        let live = page.sessions.iter().filter(|session| session.status == Status::Live).count();
        assert_eq!(live, 3, "{name}");
    }
}

/// If an announcement is sent again, a node that decided before it sees the entry of another node: its write fails, and it
/// decides again.
#[tokio::test]
async fn c2_an_insert_over_partitions_that_another_came_before_decides_again() {
    let site = Site::cluster();
    let store = site.connect("rg").await;
    let bound = SubjectBound { most: 1, idle_ttl: Duration::from_secs(60), ends_oldest: true };
    let [first, second, third] = [1, 2, 19].map(|n| session("alice", n, later(start(), n)));
    insert(&*store, &first).await;
    let before = store.0.room_for(&second, bound).await.unwrap().unwrap();
    let room = store.0.room_for(&third, bound).await.unwrap().unwrap();
    let op = new_op().unwrap();
    let done = store.0.insert_among_partitions(op, &third, room).await.unwrap();
    assert!(matches!(&done, Some(Inserted::Inserted(ended)) if ended.len() == 1), "{done:?}");
    let content = site.content();
    assert_eq!(store.0.insert_among_partitions(new_op().unwrap(), &second, before).await.unwrap(), None);
    assert_eq!(site.content(), content, "nothing was announced anywhere");
    assert_eq!(store.load(second.id).await.unwrap(), None);
    assert_eq!(store.load(third.id).await.unwrap().map(|known| known.status), Some(Status::Live));
}

/// A second insert decides between the announcement and the insert of the first: it has seen the announcement, but not
/// the session.
#[tokio::test]
async fn c2_an_insert_that_was_announced_before_another_decided_is_not_overlooked() {
    let site = Site::cluster();
    let [a, b] = [site.connect("rg").await, site.connect("rg").await];
    let bound = SubjectBound { most: 1, idle_ttl: Duration::from_secs(60), ends_oldest: false };
    let [first, second] = [1, 2].map(|n| session("alice", n, later(start(), n)));
    let room = a.0.room_for(&first, bound).await.unwrap().unwrap();
    assert!(a.0.announce(&first, &room).await.unwrap());
    let overlooks = b.0.room_for(&second, bound).await.unwrap().unwrap();
    assert!(a.0.insert_as(new_op().unwrap(), &first, &room).await.unwrap().is_some());
    assert_eq!(b.0.insert_among_partitions(new_op().unwrap(), &second, overlooks).await.unwrap(), None);
    assert_eq!(b.insert(second, bound).await.unwrap(), Inserted::TooMany);
}

/// An interrupted not-before reached only a part of the store. The next one brings it to every partition.
#[tokio::test]
async fn c4_a_not_before_that_reached_one_partition_reaches_all_with_the_next() {
    let site = Site::cluster();
    let [a, b] = [site.connect("rg").await, site.connect("rg").await];
    let stamp = async || a.stamp_creation(Timestamp::ZERO).await.unwrap().unwrap();
    let mut begun = Vec::new();
    for n in 0..32 {
        begun.push(session("alice", n, stamp().await));
        insert(&*a, &begun[n as usize]).await;
    }
    let late: Vec<_> =
        begun.iter().map(|one| session("alice", 100 + u64::from(one.id.as_bytes()[15]), one.created())).collect();
    let [early, greatest] = [b.stamp_not_before().await.unwrap(), b.stamp_not_before().await.unwrap()];
    assert!(begun.iter().all(|one| one.created() <= early) && early <= greatest);
    let partition = b.0.partitions.get(5);
    let cut_short = not_before(subject("alice"), greatest);
    let targets = vec![cut_short.target.clone()];
    let operation = Operation { targets, raises: raises(&cut_short), ..Operation::default() };
    let call = b.0.call_to_revoke(partition, new_op().unwrap());
    let put = |state: &mut Snapshot| rules::put(state, &cut_short);
    decide(&call, operation, Snapshot::default(), put).await.unwrap();
    let merged = b.revoke(not_before(subject("alice"), early), RevokedBecause::Operator).await.unwrap();
    assert_eq!(merged.effect, Effect::NotBefore(greatest));
    for one in &begun {
        let swapped = a.compare_and_swap(1, rotated(one, one.issued_at), None).await.unwrap();
        assert_eq!(swapped, Swap::NoLongerValid, "{}", one.id);
    }
    for one in late {
        assert_eq!(a.insert(one, SubjectBound::NONE).await.unwrap(), Inserted::NoLongerValid(greatest));
    }
    let (all, _) = a.revocations_since(Cursor::default()).await.unwrap();
    assert_eq!(all, [merged], "it is one entry");
    for n in 0..16 {
        let afterwards = session("alice", 200 + n, stamp().await);
        assert!(afterwards.created() > greatest);
        insert(&*a, &afterwards).await;
    }
}

/// Sessions begin while the not-before is on its way: no session outlives it, whichever write comes first in a partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c4_no_session_of_any_partition_slips_past_a_not_before() {
    let site = Site::cluster();
    let [a, b] = [site.connect("rg").await, site.connect("rg").await];
    for round in 0..20u64 {
        let mut begun = Vec::new();
        for n in 0..16 {
            let created = a.stamp_creation(Timestamp::ZERO).await.unwrap().unwrap();
            begun.push(session("alice", round * 16 + n, created));
        }
        let moment = b.stamp_not_before().await.unwrap();
        let entry = not_before(if round % 2 == 0 { subject("alice") } else { Target::Global }, moment);
        let inserts = futures_util::future::join_all(begun.iter().map(|one| a.insert(one.clone(), SubjectBound::NONE)));
        let (inserted, revoked) = tokio::join!(inserts, b.revoke(entry, RevokedBecause::Operator));
        revoked.unwrap();
        for (one, inserted) in begun.iter().zip(inserted) {
            let goes_on = match inserted.unwrap() {
                Inserted::Inserted(_) => a.compare_and_swap(1, rotated(one, one.issued_at), None).await.unwrap(),
                Inserted::NoLongerValid(_) | Inserted::TooMany => continue,
            };
            assert_eq!(goes_on, Swap::NoLongerValid, "{}", one.id);
        }
    }
}

pub(super) async fn refused(options: RedisOptions) -> String {
    let error = RedisStore::connect(options).await.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::Refused, "{error}");
    error.to_string()
}

#[tokio::test]
async fn c20_another_number_of_partitions_and_a_lost_head_are_refused() {
    let site = Site::cluster();
    let Site::Cluster(cluster) = &site else { unreachable!() };
    site.connect("rg").await;
    let at = |partition: usize, command: &str, args: &[&str]| {
        let key = format!("{{rg:{partition}}}:h");
        cluster.nodes[cluster.node_of(&key)].cli(&[&[command, &key], args].concat())
    };
    for (count, part) in [("1", "made on a single server and has 1 partition"), ("32", "the version that made it")] {
        at(0, "HSET", &["partitions", count]);
        let said = refused(site.options()).await;
        assert!(said.contains(part), "{said}");
    }
    at(0, "HSET", &["partitions", "16"]);
    at(5, "DEL", &[]);
    let said = refused(site.options()).await;
    assert!(said.contains("lost the main record of its partition 5") && said.contains("complete back-up"), "{said}");
    // If not all heads were created yet, the next start creates the rest.
    at(0, "HDEL", &["made"]);
    site.connect("rg").await;
    assert_eq!(at(0, "HGET", &["made"]), "1");
    at(7, "HSET", &["store", "another1"]);
    let said = refused(site.options()).await;
    assert!(said.contains("partition 7 from another store"), "{said}");
    at(0, "DEL", &[]);
    let said = refused(site.options()).await;
    assert!(said.contains("lost the main record of its partition 0"), "{said}");
}

#[tokio::test]
async fn c20_a_cluster_that_is_none_or_whose_clocks_differ_is_refused() {
    let server = Server::start(&[]);
    let said = refused(server.options().cluster()).await;
    assert!(said.contains("not a node of a cluster: remove cluster = true"), "{said}");
    let url = format!("redis://127.0.0.1:{}/1", server.port);
    let said = refused(RedisOptions::new(url, NetworkOptions::new(ISSUER, KEYRING, LEEWAY)).cluster()).await;
    assert!(said.contains("only database 0"), "{said}");
    server.cli(&["HSET", "{rg:0}:h", "schema", "1", "partitions", "16"]);
    let said = refused(server.options()).await;
    assert!(said.contains("made in a cluster") && said.contains("set cluster = true"), "{said}");
    let at = Duration::from_secs;
    let time = Timestamp::from_secs(1_800_000_000);
    // If the question takes a second, two clocks may differ by the leeway and this second.
    let agree = |apart: Duration| {
        super::super::opening::agree(
            &server.options(),
            &[(at(5), time, at(6)), (at(7), time.plus(at(2) + apart), at(7))],
        )
    };
    agree(LEEWAY).unwrap();
    let said = agree(LEEWAY + at(2)).unwrap_err().to_string();
    assert!(said.contains("clocks of the servers") && said.contains("NTP"), "{said}");
}

#[tokio::test]
async fn c20_each_command_of_a_cluster_that_is_missing_is_named() {
    const OWN: [&str; 3] = ["+asking", "+cluster|keyslot", "+cluster|slots"];
    let site = Site::cluster();
    let Site::Cluster(cluster) = &site else { unreachable!() };
    let allow = |commands: &[&str]| {
        let rules = ["ACL", "SETUSER", "gate", "reset", "on", ">secret", "~{rg:*"];
        let rules: Vec<_> =
            rules.into_iter().chain(COMMANDS.split_whitespace()).chain(commands.iter().copied()).collect();
        cluster.nodes.iter().for_each(|node| drop(node.cli(&rules)));
    };
    let as_user = || {
        let options = site.options().username("gate");
        with(options, |network| *network = network.clone().password("secret".into()))
    };
    allow(&OWN);
    let store = RedisStore::connect(as_user()).await.unwrap();
    let begun = session("alice", 3, start());
    insert(&store, &begun).await;
    store.revoke(not_before(Target::Global, start()), RevokedBecause::Operator).await.unwrap();
    store.list(Filter::All, None, 10).await.unwrap();
    store.sweep(start()).await.unwrap();
    store.check().await.unwrap();
    for missing in OWN {
        allow(&OWN.into_iter().filter(|command| *command != missing).collect::<Vec<_>>());
        let said = refused(as_user()).await;
        assert!(said.contains(&format!("allow {missing}")), "{said}");
    }
}

#[tokio::test]
async fn c20_an_inspection_of_a_cluster_finds_what_a_start_would_and_makes_nothing() {
    let site = Site::cluster();
    let content = site.content();
    let found = inspect(site.options()).await.unwrap().found;
    assert!(found.contains("version ") && found.contains("no store yet"), "{found}");
    assert_eq!(site.content(), content);
    site.connect("rg").await;
    // Any of the URLs that answers is enough.
    let Site::Cluster(cluster) = &site else { unreachable!() };
    let gone = support::server::free_port();
    let some = options(gone).more_urls([format!("redis://127.0.0.1:{}", cluster.nodes[1].port)]).cluster();
    let found = inspect(some).await.unwrap().found;
    assert!(found.contains("the store is this gate's"), "{found}");
    let url = format!("redis://127.0.0.1:{}", cluster.nodes[0].port);
    let other = RedisOptions::new(&url, NetworkOptions::new(ISSUER, Uuid::from_u128(8), LEEWAY)).cluster();
    for (options, part) in [(other, "another keyring"), (site.options().wait_replicas(1), "`wait_replicas` is 1")] {
        let said = inspect(options).await.unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}
