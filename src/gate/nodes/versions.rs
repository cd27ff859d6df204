//! Whether this gate and the others of its store can read each other's records.

use super::RUNS_FOR;
use crate::clock::Timestamp;
use crate::store::NodeSeen;

/// Refuses a store on which gates run that write what this one cannot read, or that cannot read what it writes.
///
/// # Errors
/// Which gates, and what to do.
pub(in crate::gate) fn check([from, to]: [u8; 2], others: &[NodeSeen], now: Timestamp) -> Result<(), String> {
    let running: Vec<_> = others.iter().filter(|seen| now.since(seen.beat) <= RUNS_FOR).cloned().collect();
    let written = unreadable([from, to], &running);
    // A row that does not say is of a gate that reads the first version.
    let reads = |seen: &NodeSeen| seen.row.reads[1].max(1);
    let behind: Vec<_> = running.iter().filter(|seen| reads(seen) < from).map(|seen| &*seen.row.node).collect();
    let (nodes, why) = match (written.is_empty(), behind.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => (written.join(", "), "write records that it cannot read"),
        (true, false) => (behind.join(", "), "cannot read what it writes"),
    };
    Err(format!(
        "this gate reads records of version {from} to {to}, and gates of the store that run {why}: {nodes}. Start this gate with \
         the release that those have; from there, exchange the gates by the next release, one after the other. A gate that \
         ended counts for {} s",
        RUNS_FOR.as_secs()
    ))
}

/// The gates that write records which this one cannot read.
pub(super) fn unreadable([from, to]: [u8; 2], nodes: &[NodeSeen]) -> Vec<Box<str>> {
    let unreadable = nodes.iter().filter(|seen| seen.row.writes != 0 && !(from..=to).contains(&seen.row.writes));
    unreadable.map(|seen| seen.row.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeRow;

    #[test]
    fn c30_a_gate_does_not_start_beside_those_whose_records_it_cannot_read_or_that_cannot_read_its_own() {
        let check = |own, reads, writes, ago: u64| {
            let row = NodeRow { node: "b".into(), reads, writes, ..NodeRow::default() };
            let beat = Timestamp::from_secs(1000 - ago);
            super::check(own, &[NodeSeen { row, beat }], Timestamp::from_secs(1000)).err().unwrap_or_default()
        };
        for (own, reads, writes) in [
            ([1, 1], [1, 1], 1),
            ([1, 1], [1, 2], 1),
            ([1, 2], [1, 1], 1),
            ([1, 2], [1, 2], 2),
            ([2, 3], [1, 2], 2),
            ([1, 1], [0, 0], 0),
        ] {
            assert_eq!(check(own, reads, writes, 0), "", "{own:?} {reads:?} {writes}");
        }
        let said = check([1, 1], [1, 2], 2, 20);
        assert!(said.contains("version 1 to 1") && said.contains("cannot read: b."), "{said}");
        let said = check([2, 3], [1, 1], 1, 0);
        assert!(said.contains("write records that it cannot read: b."), "{said}");
        let said = check([2, 3], [0, 0], 0, 0);
        assert!(said.contains("cannot read what it writes: b."), "{said}");
        assert_eq!(check([1, 1], [1, 2], 2, 21), "", "it does not run any more");
    }
}
