//! The rows of the nodes.

use std::time::Duration;

use super::PostgresInner;
use super::call::{Arg, ResultRow};
use super::record::time;
use rotogate_core::store::{NodeRow, NodeSeen, StoreError};

impl PostgresInner {
    pub(super) async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        let asked = Arg::Big(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
        let rows = self.all_by(&self.commands, "rg_nodes", self.known.history(), vec![asked]).await?;
        let seen = |row: &ResultRow| {
            Ok(NodeSeen { row: NodeRow::decode(row.get("o_said")?)?, beat: time(row.get("o_beat")?) })
        };
        rows.iter().map(seen).collect()
    }
}
