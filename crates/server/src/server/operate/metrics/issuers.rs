//! The metrics of the issuers whose keys are fetched.

use std::fmt;

use super::output::ScrapeOutput;
use crate::server::build::issuers::RemoteIssuers;
use rotogate::remote_keys::RemoteStatus;
use rotogate_core::clock::Timestamp;
use rotogate_core::token::IgnoredCause;
use rotogate_kit::metric_families as names;

/// The states, in the order of their numbers in the metrics.
const STATES: [&str; 4] = ["empty", "fresh", "aging", "stale"];

/// Label values are bounded: names come from the configuration, causes from closed sets (requirement I43).
pub(super) fn write(issuers: &RemoteIssuers, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
    let all = issuers.statuses();
    type ReadStatus = fn(&RemoteStatus) -> Option<u64>;
    let state: ReadStatus = |status| STATES.iter().position(|state| *state == status.state).map(|at| at as u64);
    let gauges: [(_, ReadStatus); 4] = [
        (&names::ISSUER_KEYS, |status| u64::try_from(status.keys).ok()),
        (&names::ISSUER_STATE, state),
        (&names::ISSUER_LAST_SUCCESS, |status| status.last_success.map(Timestamp::as_secs)),
        (&names::ISSUER_WAITING, |status| u64::try_from(status.waiting).ok()),
    ];
    for (family, read) in gauges {
        let mut gauge = output.family(family)?;
        for (issuer, status) in &all {
            if let Some(value) = read(status) {
                gauge.add([issuer], value)?;
            }
        }
    }
    let mut refused = output.family(&names::ISSUER_REFUSED_KEYS)?;
    for (issuer, status) in &all {
        for cause in IgnoredCause::ALL {
            let count = status.ignored.iter().filter(|ignored| ignored.cause == cause).count();
            refused.add([issuer, cause.word()], count)?;
        }
    }
    let mut fetches = output.family(&names::ISSUER_FETCHES)?;
    for (issuer, result, count) in issuers.fetches() {
        fetches.add([&issuer, result], count)?;
    }
    let mut unknown = output.family(&names::ISSUER_UNKNOWN_KID)?;
    for (issuer, status) in &all {
        unknown.add([issuer], status.unknown_kids)?;
    }
    Ok(())
}
