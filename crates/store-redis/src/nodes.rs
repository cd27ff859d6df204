//! The rows of the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::RedisInner;
use super::script::{NODES, bytes, unexpected};
use rotogate_core::store::{NodeRow, NodeSeen, StoreError};

impl RedisInner {
    pub(super) async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        let asked = within.as_millis().to_string().into_bytes();
        let first = self.partitions.first();
        let mut answer = self.run(first, &NODES, vec![first.keys.named("n")], vec![asked]).await?;
        if answer.status != "nodes" {
            return Err(answer.unknown());
        }
        let now = answer.time;
        // A scan may return a node twice.
        let mut nodes = BTreeMap::new();
        let mut found = answer.list()?.into_iter();
        while let (Some(id), Some(age), Some(row)) = (found.next(), found.next(), found.next()) {
            let (Some(id), Value::Int(age), Some(row)) = (bytes(id), age, bytes(row)) else {
                return Err(unexpected("no row of a node"));
            };
            let by = Duration::from_millis(age.unsigned_abs());
            // The beat is ahead of now, because the server's clock was ahead.
            let beat = if age < 0 { now.plus(by) } else { now.minus(by) };
            nodes.insert(id, NodeSeen { row: NodeRow::decode(&row)?, beat });
        }
        Ok(nodes.into_values().collect())
    }
}
