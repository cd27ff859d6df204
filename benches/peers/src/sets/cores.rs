//! Several workers. Not part of a whole run: it needs more processors than most machines have.

use super::{Cell, ROTOGATE, Set, Weight};

pub const CORES: &str = "cores";

pub fn set() -> Set {
    let cells = [1, 2, 4, 8]
        .map(|workers| Cell { workers, connections: 32 * workers, ..Cell::of(ROTOGATE) }.named(format!("{workers}")));
    Set {
        key: CORES,
        title: "Workers: RS256, 1000 tokens used before",
        note: "Load and upstream have processors of their own.",
        cells: cells.into(),
        base: "1",
        weight: Weight::ByWorkers,
    }
}
