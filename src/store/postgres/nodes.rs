//! The rows of the nodes.

use std::time::Duration;

use super::super::StoreError;
use super::super::node_rows;
use super::super::shared::{NODE_HEARD_WITHIN, NodeSeen};
use super::Inner;
use super::call::{Answer, Arg};
use super::record::time;

impl Inner {
    pub(super) async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        let asked = Arg::Big(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
        let rows = self.all_by(&self.commands, "rg_nodes", self.known.history(), vec![asked]).await?;
        let seen = |row: &Answer| {
            Ok::<_, StoreError>(NodeSeen {
                row: node_rows::decode(row.get("o_said")?)?,
                beat: time(row.get("o_beat")?),
            })
        };
        let nodes = rows.iter().map(seen).collect::<Result<Vec<_>, _>>()?;
        if within == NODE_HEARD_WITHIN {
            self.versions.agree(nodes.iter().map(|seen| &seen.row));
        }
        Ok(nodes)
    }
}
