use super::*;
use crate::clock::SystemTime;
use crate::store::conformance::{self, ISSUER, LEEWAY};

fn pair() -> [Arc<MemoryNode>; 2] {
    let first = MemoryNode::first(ISSUER, LEEWAY, Arc::new(SystemTime::new()));
    let second = first.another();
    [Arc::new(first), Arc::new(second)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_nodes_on_a_memory_store_pass_the_conformance_suite() {
    conformance::run(|_, _| pair().into_iter().next().unwrap()).await;
    conformance::run_shared(async || pair()).await;
}

#[tokio::test]
async fn c37_what_one_node_wrote_back_keeps_out_nothing_later() {
    conformance::loss::c37_of_two_nodes_that_write_a_session_back_the_later_record_stays(pair()).await;
}
