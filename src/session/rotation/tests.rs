//! The table, row by row. Its exploration is in `tests/exploration.rs`.
