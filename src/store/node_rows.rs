//! The rows of the nodes, as the stores keep them that gates share.

use super::shared::NodeRow;
use super::versions::Versions;
use super::{StoreError, WriteOutcome};

/// A row as a beat sends it. Before the row proper are the versions of records that the node reads from, reads to and writes.
pub(super) fn encode(row: &NodeRow, versions: &Versions) -> Result<Vec<u8>, StoreError> {
    let versions = versions.in_row();
    let [from, to, writes] = versions;
    let row = NodeRow { reads: [from, to], writes, ..row.clone() };
    Ok([versions.as_slice(), &row.encode()?].concat())
}

pub(super) fn decode(bytes: &[u8]) -> Result<NodeRow, StoreError> {
    let Some((versions, row)) = bytes.split_first_chunk::<3>() else {
        return Err(StoreError::new("the row of a node is too short").with_outcome(WriteOutcome::NotDone));
    };
    if row.is_empty() {
        // A version that says no more.
        let [from, to, writes] = *versions;
        return Ok(NodeRow { reads: [from, to], writes, ..NodeRow::default() });
    }
    NodeRow::decode(row)
}
