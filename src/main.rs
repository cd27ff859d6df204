//! The `rotogate` binary.
fn main() {}
