//! Durations with a required maximum. A test prints a duration, but does not fail, because a busy machine is not the
//! gate's fault. `bash tests/long.sh figures` reports exceeded maxima.

use std::time::Duration;

/// Prints a time and its maximum, with `met` or `not met`.
pub fn print_time(what: &str, took: Duration, at_most: Duration) {
    let met = if took <= at_most { "met" } else { "not met" };
    eprintln!("figure: {what}: {took:.2?}, at most {at_most:?}: {met}");
}
