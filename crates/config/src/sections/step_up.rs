//! `step_up` of a route.

use std::time::Duration;

use super::super::declare::section;
use super::super::value;
use super::{DAY, SECOND};
use rotogate_core::session::step_up::StepUp;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    impl StepUp, read by read_step_up(section) {
        /// Accepted values of the token's claim `acr`.
        reload acr as some: Vec<Box<str>> = by { read_acr(section) },
        /// Maximum age of the user's login; 1s to 365d.
        reload max_age: Option<Duration> = get(value::duration_within(SECOND, 365 * DAY)),
    }
}

/// Reads `step_up` of a route (RFC 9470).
pub(super) fn of_route(section: &Section<'_>) -> StepUp {
    let table = section.section("step_up");
    let step_up = read_step_up(&table);
    table.finish();
    if step_up == StepUp::default() && !table.is_bad() {
        section.blame("step_up", "does not require anything; expected `acr = [\"…\"]`, `max_age = \"5m\"`, or both");
    }
    step_up
}

fn read_acr(table: &Section<'_>) -> Vec<Box<str>> {
    table.one_or_list("acr", acr).unwrap_or_default().into_iter().map(Into::into).collect()
}

/// Spaces separate the values of `acr_values`.
fn acr(v: &Raw) -> Result<String, String> {
    value::text(v).and_then(|acr| match acr.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(acr),
        false => Err("contains a space or another character that is not allowed in a challenge".to_owned()),
    })
}
