//! The metrics of security events: streams, and receivers.

use std::fmt;

use super::output::ScrapeOutput;
use rotogate_kit::metric_families as names;
use rotogate_signals::{Receivers, Streams};

/// Writes whether each stream is alive, and the outcomes of events for receivers.
pub(super) fn write((streams, receivers): (&Streams, &Receivers), output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
    let mut alive = output.family(&names::STREAM_ALIVE)?;
    for (issuer, is_alive) in streams.alive() {
        alive.add([&issuer], u64::from(is_alive))?;
    }
    let all = receivers.figures();
    let mut events = output.family(&names::RECEIVER_EVENTS)?;
    for one in &all {
        for (result, number) in one.results {
            events.add([&*one.name, result], number)?;
        }
    }
    let mut waiting = output.family(&names::RECEIVER_WAITING)?;
    for one in &all {
        waiting.add([&one.name], one.waiting)?;
    }
    let mut lag = output.family(&names::RECEIVER_LAG)?;
    for one in &all {
        if let Some(time) = one.lag {
            lag.add([&one.name], time.as_secs_f64())?;
        }
    }
    Ok(())
}
