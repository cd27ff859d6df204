//! Times for which a requirement sets a maximum. A test prints them, but does not fail if they are exceeded,
//! because a busy machine is not a fault of the gate. `bash tests/long.sh figures` runs only these tests and
//! reports the exceeded maxima.

use std::time::Duration;

/// Prints a time and its maximum, with `met` or `not met`.
pub fn print_time(what: &str, took: Duration, at_most: Duration) {
    let met = if took <= at_most { "met" } else { "not met" };
    eprintln!("figure: {what}: {took:.2?}, at most {at_most:?}: {met}");
}
