//! Tokens that do not fit the key of their name.

use std::time::Duration;

use super::LiveKeys;
use crate::clock::Timestamp;
use crate::denial::Denial;

impl LiveKeys {
    /// The refusal of a token that does not fit the key of its name, and whether a fetch that is asked for or under way
    /// may decide: the issuer may have put another key under that name. `None` if the token is no newer than the
    /// issuer's last answer, if the keys are not fetched, and if a fetch has just not helped a token without `iat`.
    /// With `has_effects`, asks for an attempt to fetch keys, if one is due.
    // The cooldown bounds the fetches. The limits bound the tokens: see `TokenRefusal`.
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
