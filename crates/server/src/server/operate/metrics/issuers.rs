//! Metrics of the issuers whose keys are fetched.

use std::fmt;

use super::output::ScrapeOutput;
use crate::server::build::issuers::RemoteIssuers;
use rotogate::remote_keys::RemoteStatus;
use rotogate_core::token::IgnoredCause;
use rotogate_kit::metric_families as names;

/// The metric is the index in this list.
const STATES: [&str; 4] = ["empty", "fresh", "aging", "stale"];

/// All label values are configured names or fixed causes (requirement I43).
pub(super) fn write(issuers: &RemoteIssuers, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
    let all = issuers.statuses();
    let state = |status: &RemoteStatus| STATES.iter().position(|state| *state == status.state);
    output.each(&names::ISSUER_KEYS, all.iter().map(|(issuer, status)| (issuer, status.keys)))?;
    output.each(&names::ISSUER_STATE, all.iter().filter_map(|(issuer, status)| Some((issuer, state(status)?))))?;
    let successes = all.iter().filter_map(|(issuer, status)| Some((issuer, status.last_success?.as_secs())));
    output.each(&names::ISSUER_LAST_SUCCESS, successes)?;
    output.each(&names::ISSUER_WAITING, all.iter().map(|(issuer, status)| (issuer, status.waiting)))?;
    let mut refused = output.family(&names::ISSUER_REFUSED_KEYS)?;
    for (issuer, status) in &all {
        for cause in IgnoredCause::ALL {
            let count = status.ignored.iter().filter(|ignored| ignored.cause == cause).count();
            refused.add([issuer, cause.word()], count)?;
        }
    }
    let fetches = issuers.fetches();
    output.all(
        &names::ISSUER_FETCHES,
        fetches.iter().map(|(issuer, result, count)| ([issuer.as_str(), *result], *count)),
    )?;
    output.each(&names::ISSUER_UNKNOWN_KID, all.iter().map(|(issuer, status)| (issuer, status.unknown_kids)))
}
