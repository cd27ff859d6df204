//! A Redis cluster that a test starts.

use std::time::Duration;

use crate::redis::Redis;
use crate::server::free_port;

const TRIES: u32 = 600;
const SLOTS: usize = 16_384;
const PRIMARIES: usize = 3;

/// The three primaries, followed by their replicas in the same order.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
    ids: Vec<String>,
}

impl RedisCluster {
    pub fn start(replicas: bool, settings: &[&str]) -> Self {
        let count = if replicas { 2 * PRIMARIES } else { PRIMARIES };
        let start = |_| {
            let bus = free_port();
            let own = format!("--cluster-port {bus}");
            let mut all = vec!["--cluster-enabled yes", "--cluster-node-timeout 1000", "--repl-diskless-sync-delay 0"];
            all.push(&own);
            all.extend(settings);
            (Redis::start(&all), bus)
        };
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..count).map(start).unzip();
        let ids = nodes.iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
        let cluster = Self { nodes, ids };
        for (n, node) in cluster.nodes.iter().take(PRIMARIES).enumerate() {
            let (first, end) = (n * SLOTS / PRIMARIES, (n + 1) * SLOTS / PRIMARIES);
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
        }
        for (node, bus) in cluster.nodes.iter().zip(&buses).skip(1) {
            cluster.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus.to_string()]);
        }
        let knows_all = |node: &Redis| node.cli(&["CLUSTER", "INFO"]).contains(&format!("cluster_known_nodes:{count}"));
        cluster.until("all nodes know each other", || cluster.nodes.iter().all(knows_all));
        for (primary, replica) in cluster.ids.iter().zip(cluster.nodes.iter().skip(PRIMARIES)) {
            replica.cli(&["CLUSTER", "REPLICATE", primary]);
        }
        let is_linked = |node: &Redis| node.cli(&["INFO", "replication"]).contains("master_link_status:up");
        cluster.until("the replicas follow", || cluster.nodes.iter().skip(PRIMARIES).all(is_linked));
        cluster.until_whole();
        cluster
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..TRIES {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the cluster did not reach the expected state: {what}");
    }

    /// Waits until every running node reports that all slots are served.
    pub fn until_whole(&self) {
        let is_whole = |node: &Redis| {
            !node.is_running() || node.cli(&["CLUSTER", "INFO"]).lines().any(|line| line.trim() == "cluster_state:ok")
        };
        self.until("all slots are served", || self.nodes.iter().all(is_whole));
    }

    /// Waits until a replica has replaced its primary.
    pub fn until_promoted(&self, replica: usize) {
        self.until("the replica is promoted", || self.nodes[replica].cli(&["ROLE"]).starts_with("master"));
    }

    pub fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// Returns the node that serves a key's slot.
    pub fn node_of(&self, key: &str) -> usize {
        let slot: usize = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap();
        (0..PRIMARIES).find(|n| slot < (n + 1) * SLOTS / PRIMARIES).unwrap()
    }
}
