//! Durations with a required maximum. An exceeded maximum does not fail a test, because the machine may be busy.
//! `bash tests/long.sh figures` reports exceeded maxima.

use std::time::Duration;

/// Prints a time and its maximum, with `met` or `not met`.
pub fn print_time(what: &str, took: Duration, at_most: Duration) {
    let met = if took <= at_most { "met" } else { "not met" };
    eprintln!("figure: {what}: {took:.2?}, at most {at_most:?}: {met}");
}
