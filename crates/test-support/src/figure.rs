//! Times that a requirement bounds. A test prints them and does not fail for them: a busy machine is no fault of the
//! gate. `bash tests/long.sh figures` runs these tests alone and says which bounds are not met.

use std::time::Duration;

/// Prints a time and its bound, `met` or `not met`.
pub fn print_time(what: &str, took: Duration, at_most: Duration) {
    let met = if took <= at_most { "met" } else { "not met" };
    eprintln!("figure: {what}: {took:.2?}, at most {at_most:?}: {met}");
}
