//! Tokens with a wrong signature under a known `kid`.

use std::time::Duration;

use super::LiveKeys;
use crate::clock::Timestamp;
use crate::denial::Denial;

impl LiveKeys {
    /// Returns the denial for a token with a wrong signature, if its issuer may have replaced the key under the same
    /// `kid`. The flag is true if a fetch of the issuer's keys is due, requested or in progress.
    ///
    /// Returns `None` if the token is not newer than the issuer's last response, or if keys are not fetched.
    ///
    /// With `has_effects`, a fetch is requested if the cooldown permits one.
    pub(in crate::token) fn mistaken(
        &self,
        now: Timestamp,
        issued_at: Option<Timestamp>,
        leeway: Duration,
        has_effects: bool,
    ) -> Option<(Denial, bool)> {
        self.fetch?;
        let mut fetching = self.fetching();
        let is_newer = |at: Timestamp| fetching.answered.is_none_or(|answered| at > answered.minus(leeway));
        if !issued_at.is_none_or(is_newer) {
            return None;
        }
        let last_asked = fetching.last_wanted.max(fetching.last_suspected);
        let (denial, is_due) = self.judge_missing((&fetching, last_asked), now, issued_at, leeway);
        fetching.is_suspected |= is_due && has_effects;
        self.ask_if(is_due && has_effects, &mut fetching);
        let is_pending = is_due || fetching.is_wanted || fetching.is_under_way;
        matches!(denial, Denial::KeysUnavailable(_)).then_some((denial, is_pending))
    }
}
