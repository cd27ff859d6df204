//! The rows of the nodes.

use super::super::StoreError;
use super::super::node_rows;
use super::super::shared::{NODE_HEARD_WITHIN, NodeSeen};
use super::Inner;
use super::call::{Answer, Arg};
use super::record::time;

impl Inner {
    pub(super) async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        let within = Arg::Big(i64::try_from(NODE_HEARD_WITHIN.as_millis()).unwrap_or(i64::MAX));
        let rows = self.all_by(&self.commands, "rg_nodes", self.known.history(), vec![within]).await?;
        let seen =
            |row: &Answer| Ok(NodeSeen { row: node_rows::decode(row.get("o_said")?)?, beat: time(row.get("o_beat")?) });
        rows.iter().map(seen).collect()
    }
}
