//! The stronger login that a route may require (RFC 9470): `acr_values` and `max_age` of OpenID Connect. They are
//! passed from the refusal to the login and on to the provider, and are compared with the provider's answer: a weaker
//! login ends in an error, because otherwise the browser would be redirected in a loop.

#[cfg(any(feature = "browser-oidc", test))]
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

#[cfg(any(feature = "browser-oidc", test))]
use super::query_parameter;
#[cfg(any(feature = "browser-oidc", test))]
use rotogate_core::clock::Timestamp;
use rotogate_core::route::StepUp;

const ACR_VALUES: &str = "acr_values";
const MAX_AGE: &str = "max_age";
/// The longest `acr_values`, in bytes.
#[cfg(any(feature = "browser-oidc", test))]
const LONGEST: usize = 512;
/// How much the provider's clock may differ from ours.
#[cfg(any(feature = "browser-oidc", test))]
const LEEWAY: Duration = Duration::from_secs(60);

/// A login that a route requires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
pub(crate) struct AskedLogin {
    /// The accepted values of `acr`, separated by spaces. If empty, every value is accepted.
    #[serde(rename = "a", default)]
    acr_values: String,
    /// The longest time since the login, in seconds.
    #[serde(rename = "m", default)]
    max_age: Option<String>,
}

impl AskedLogin {
    /// The demands of a route's policy. The `acr_values` of a decision point replace those of the route, which the
    /// session already meets.
    pub(crate) fn of_route(step_up: Option<&StepUp>, acr_values: Option<&str>) -> Self {
        let of_route = || step_up.map(|step_up| step_up.acr.join(" ")).unwrap_or_default();
        Self {
            acr_values: acr_values.map_or_else(of_route, ToOwned::to_owned),
            max_age: step_up.and_then(|step_up| step_up.max_age).map(|age| age.as_secs().to_string()),
        }
    }

    /// The login that a link to the login requires. Any page may write such a link, because it can only require a
    /// stronger login.
    #[cfg(any(feature = "browser-oidc", test))]
    pub(crate) fn read(query: Option<&str>) -> Self {
        let is_good =
            |values: &String| values.len() <= LONGEST && values.bytes().all(|byte| matches!(byte, 0x20..0x7f));
        let max_age = query_parameter(query, MAX_AGE).and_then(|age| age.parse::<u32>().ok());
        Self {
            acr_values: query_parameter(query, ACR_VALUES).filter(is_good).unwrap_or_default(),
            max_age: max_age.map(|age| age.to_string()),
        }
    }

    /// The parameters of an authorization request.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let acr = Some(self.acr_values.as_str()).filter(|values| !values.is_empty()).map(|values| (ACR_VALUES, values));
        acr.into_iter().chain(self.max_age.as_deref().map(|age| (MAX_AGE, age))).collect()
    }

    /// Does a login with these claims meet the requirement?
    #[cfg(any(feature = "browser-oidc", test))]
    pub(crate) fn is_met(&self, acr: Option<&str>, auth_time: Option<Timestamp>, now: Timestamp) -> bool {
        let mut values = self.acr_values.split(' ').filter(|value| !value.is_empty()).peekable();
        let has_acr = values.peek().is_none() || acr.is_some_and(|acr| values.any(|value| value == acr));
        let is_fresh = self.max_age.as_deref().is_none_or(|age| {
            let age = age.parse().map(Duration::from_secs).unwrap_or_default();
            auth_time.is_some_and(|at| now.since(at) <= age + LEEWAY)
        });
        has_acr && is_fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn ago(seconds: u64) -> Option<Timestamp> {
        Some(Timestamp::from_secs(NOW.as_secs() - seconds))
    }

    #[test]
    fn a_login_is_what_was_asked_for_or_none() {
        let asked = AskedLogin::of_route(
            Some(&StepUp { acr: vec!["gold".into(), "silver".into()], max_age: Some(Duration::from_secs(300)) }),
            None,
        );
        assert_eq!(asked.pairs(), [("acr_values", "gold silver"), ("max_age", "300")]);
        let of_point = AskedLogin::of_route(
            Some(&StepUp { acr: Vec::new(), max_age: Some(Duration::from_secs(60)) }),
            Some("iron"),
        );
        assert_eq!(of_point.pairs(), [("acr_values", "iron"), ("max_age", "60")]);
        assert_eq!(AskedLogin::read(Some("to=%2Fx&acr_values=gold+silver&max_age=300")), asked);
        assert!(asked.is_met(Some("silver"), ago(300), NOW) && asked.is_met(Some("gold"), ago(0), NOW));
        for (acr, at) in [(None, ago(0)), (Some("gold silver"), ago(0)), (Some(""), ago(0)), (Some("gold"), None)] {
            assert!(!asked.is_met(acr, at, NOW), "{acr:?} {at:?}");
        }
        assert!(!asked.is_met(Some("gold"), ago(361), NOW), "longer ago than asked, and than clocks differ");
        for query in ["", "max_age=-1&acr_values=%00", "max_age=x", "max_age=99999999999"] {
            assert_eq!(AskedLogin::read(Some(query)), AskedLogin::default(), "{query}");
        }
        let long = format!("acr_values={}", "x".repeat(LONGEST + 1));
        assert!(AskedLogin::read(Some(&long)).pairs().is_empty());
        assert!(AskedLogin::default().is_met(None, None, NOW) && AskedLogin::of_route(None, None).pairs().is_empty());
    }
}
