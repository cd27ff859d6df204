//! C3: scripts write exactly the decisions of the rules.

use std::ops::RangeInclusive;

use super::site::Site;
use super::*;
use rotogate_core::store::agreement;

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

/// A node may presume a state from before another node's write.
#[tokio::test]
async fn c3_an_entry_and_a_record_that_another_node_has_changed_since_are_decided_over_anew() {
    let server = Server::start(&[]);
    agreement::decides_anew([server.connect("rg").await, server.connect("rg").await]).await;
}

/// A steady stream of new sessions does not prevent a not-before of these sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c3_a_not_before_of_all_comes_through_while_sessions_begin_and_outlives_them() {
    let server = Server::start(&[]);
    agreement::outlives_what_begins([server.connect("rg").await, server.connect("rg").await]).await;
}

/// Two nodes whose inserts do not take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_however_many_sessions_begin_at_two_nodes_no_more_live_than_may() {
    let server = Server::start(&[]);
    conformance::races::no_more_live_than_may(&[server.connect("rg").await, server.connect("rg").await]).await;
}
