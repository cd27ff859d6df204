//! Requests that nothing polls any more, and that are not dropped either.
//!
//! A reader of the feed polls one of its futures while another waits, and nothing polls the whole feed while its
//! caller handles a step.

use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;
use futures_util::poll;
use support::redis_cluster::RedisCluster;
use tokio::time::timeout;

use super::*;
use crate::cluster::Primaries;
use crate::connect::{Link, Request};
use crate::servers::Servers;
use crate::topology::Topology;

/// The longest time for an answer beside a request that is not polled.
const SOON: Duration = Duration::from_secs(3);

/// Starts a request, and polls it once.
macro_rules! left_alone {
    ($request:expr) => {{
        let mut request = Box::pin($request);
        assert!(poll!(&mut request).is_pending());
        request
    }};
}

fn topology(store: &RedisStore) -> &Arc<Topology> {
    let Primaries::Cluster(cluster) = &store.0.commands else { panic!("the store is on a cluster") };
    &cluster.topology
}

#[tokio::test]
async fn c11_a_caller_that_nothing_polls_holds_up_no_request_for_the_table() {
    let cluster = RedisCluster::start(false, &[]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap();
    let first = left_alone!(topology(&store).renew(None));
    let second = left_alone!(topology(&store).renew(None));
    for _ in 0..3 {
        timeout(SOON, topology(&store).renew(None)).await.expect("the table is requested");
    }
    drop((first, second));
}

/// The same for a caller that gives up, and for servers that do not answer.
#[tokio::test]
async fn c11_a_request_for_the_table_has_its_own_deadline() {
    let cluster = RedisCluster::start(false, &[]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap();
    cluster.nodes.iter().for_each(|node| node.signal("STOP"));
    drop(left_alone!(topology(&store).renew(None)));
    let alone = left_alone!(topology(&store).renew(None));
    timeout(SOON, topology(&store).renew(None)).await.expect("the request ends without an answer");
    cluster.nodes.iter().for_each(|node| node.signal("CONT"));
    drop(alone);
    timeout(SOON, topology(&store).renew(None)).await.expect("the table is requested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_many_callers_request_the_table_once() {
    let cluster = RedisCluster::start(false, &[]);
    let store = RedisStore::connect(options(cluster.nodes[0].port).cluster()).await.unwrap();
    let asked = || cluster.nodes.iter().map(slots_asked).sum::<u64>();
    topology(&store).renew(None).await;
    let before = asked();
    join_all((0..200).map(|_| topology(&store).renew(None))).await;
    // The answers of the slower servers to the request before may still be on their way.
    assert!((1..=6).contains(&(asked() - before)), "{}", asked() - before);
}

/// How often a server was asked for the table.
fn slots_asked(node: &Redis) -> u64 {
    let said = node.cli(&["INFO", "commandstats"]);
    let line = said.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|slots:calls="));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn c11_a_request_that_nothing_polls_holds_up_no_other_on_its_connection() {
    let server = Server::start(&[]);
    let link = Link::new(Servers::new(&Arc::new(server.options())), Duration::ZERO);
    let ping = || {
        let mut ping = redis::pipe();
        ping.cmd("PING");
        Request::Pipeline(ping)
    };
    let (one, sent) = (ping(), AtomicBool::new(false));
    let alone = [left_alone!(link.attempt(&one, &sent)), left_alone!(link.attempt(&one, &sent))];
    let answer = timeout(SOON, link.ask(&ping())).await.expect("another request goes on");
    answer.unwrap();
    // Nor does an attempt that failed meanwhile.
    drop(server);
    let fault = async { while link.ask(&ping()).await.is_ok() {} };
    timeout(SOON, fault).await.expect("the loss of the server is noticed");
    drop(alone);
}
