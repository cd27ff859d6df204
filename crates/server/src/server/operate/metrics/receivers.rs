//! The metrics of security events: streams, and receivers.

use std::fmt;

use super::output::ScrapeOutput;
use rotogate_kit::metric_families as names;
use rotogate_signals::{Receivers, Streams};

/// Writes whether each stream is alive, and the outcomes of events for receivers.
pub(super) fn write((streams, receivers): (&Streams, &Receivers), output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
    output.each(
        &names::STREAM_ALIVE,
        streams.alive().into_iter().map(|(issuer, is_alive)| (issuer, u64::from(is_alive))),
    )?;
    let all = receivers.figures();
    let events = all.iter().flat_map(|one| one.results.map(|(result, number)| ([&*one.name, result], number)));
    output.all(&names::RECEIVER_EVENTS, events)?;
    output.each(&names::RECEIVER_WAITING, all.iter().map(|one| (&one.name, one.waiting)))?;
    let lags = all.iter().filter_map(|one| Some((&one.name, one.lag?.as_secs_f64())));
    output.each(&names::RECEIVER_LAG, lags)
}
