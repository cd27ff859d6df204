//! Step-up authentication (RFC 9470).

use std::time::Duration;

use crate::clock::Timestamp;

/// How, and how recently, a caller must have logged in (RFC 9470). A token that lacks a required claim is refused.
///
/// ```
/// use std::time::Duration;
/// use rotogate::route::{RoutePolicy, StepUp};
///
/// let step_up = StepUp { acr: vec!["gold".into()], max_age: Some(Duration::from_secs(300)) };
/// let pay = RoutePolicy { step_up: Some(step_up), ..RoutePolicy::default() };
/// assert!(pay.is_stricter_than(&RoutePolicy::default()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// The accepted values of `acr`. If the list is empty, any value is accepted.
    pub acr: Vec<Box<str>>,
    /// The longest time since `auth_time`.
    pub max_age: Option<Duration>,
}

impl StepUp {
    /// The issuer's clock may be ahead by `leeway`.
    pub(crate) fn is_met(
        &self,
        (acr, auth_time): (Option<&str>, Option<Timestamp>),
        leeway: Duration,
        now: Timestamp,
    ) -> bool {
        let has_acr = self.acr.is_empty() || acr.is_some_and(|acr| self.acr.iter().any(|one| **one == *acr));
        let is_fresh = self
            .max_age
            .is_none_or(|max_age| auth_time.is_some_and(|at| at <= now.plus(leeway) && now.since(at) <= max_age));
        has_acr && is_fresh
    }

    /// Returns the accepted values of `acr_values`, or `None` if none is accepted.
    #[doc(hidden)]
    pub fn accepted_of(&self, acr_values: &str) -> Option<Box<str>> {
        let is_accepted = |acr: &&str| self.acr.is_empty() || self.acr.iter().any(|one| **one == **acr);
        let accepted: Vec<_> = acr_values.split(' ').filter(|acr| !acr.is_empty()).filter(is_accepted).collect();
        (!accepted.is_empty()).then(|| accepted.join(" ").into())
    }

    /// Returns whether a login that satisfies `other` can fail this requirement.
    pub(crate) fn is_stricter_than(&self, other: &Self) -> bool {
        let by_acr =
            !self.acr.is_empty() && (other.acr.is_empty() || other.acr.iter().any(|one| !self.acr.contains(one)));
        let by_age = self.max_age.is_some_and(|ours| other.max_age.is_none_or(|theirs| theirs > ours));
        by_acr || by_age
    }
}
