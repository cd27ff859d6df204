//! C3: the function writes exactly the decisions of the rules.

use super::*;
use rotogate_core::store::agreement;

#[tokio::test]
async fn c3_operations_do_what_the_rules_say() {
    let server = Server::start(&[]);
    for seed in 1..=4 {
        agreement::agrees_with_the_rules(&*server.connect(&schema()).await, seed, 2500).await;
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
