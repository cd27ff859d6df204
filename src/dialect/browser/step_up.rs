//! Step-up authentication (RFC 9470): a route may require `acr_values` and `max_age` of OpenID Connect. The gate sends
//! the requirement to the provider, and checks the provider's response. The login URL contains the route's reason. With
//! this reason, the gate detects a target that refuses every login.

#[cfg(any(feature = "browser-oidc", test))]
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

#[cfg(any(feature = "browser-oidc", test))]
use super::query_parameter;
#[cfg(any(feature = "browser-oidc", test))]
use rotogate_core::bounds::MAX_ACR_VALUES;
use rotogate_core::session::step_up::StepUp;

const ACR_VALUES: &str = "acr_values";
const MAX_AGE: &str = "max_age";
const REFUSED: &str = "refused";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
pub(crate) struct AskedLogin {
    /// The accepted `acr` values, separated by spaces. An empty string accepts every value.
    #[serde(rename = "a", default)]
    acr_values: String,
    /// In seconds since the login.
    #[serde(rename = "m", default)]
    max_age: Option<String>,
    /// Why the route refused a live session, if it requires no stronger login.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl AskedLogin {
    pub(crate) fn of_route(step_up: Option<&StepUp>) -> Self {
        Self {
            acr_values: step_up.map(|step_up| step_up.acr.join(" ")).unwrap_or_default(),
            max_age: step_up.and_then(|step_up| step_up.max_age).map(|age| age.as_secs().to_string()),
            refused: None,
        }
    }

    /// Adds the reason why a route refused a live session.
    pub(crate) fn after(mut self, refused: &str) -> Self {
        self.refused = self.is_plain().then(|| refused.to_owned());
        self
    }

    /// Returns whether any login is sufficient.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Reads a login link. Any website can create such a link, but the link can only require a stronger login.
    #[cfg(any(feature = "browser-oidc", test))]
    pub(crate) fn read(query: Option<&str>) -> Self {
        let is_good =
            |values: &String| values.len() <= MAX_ACR_VALUES && values.bytes().all(|byte| matches!(byte, 0x20..0x7f));
        let max_age = query_parameter(query, MAX_AGE).and_then(|age| age.parse::<u32>().ok());
        let is_word = |word: &String| word.len() <= 40 && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
        Self {
            acr_values: query_parameter(query, ACR_VALUES).filter(is_good).unwrap_or_default(),
            max_age: max_age.map(|age| age.to_string()),
            refused: query_parameter(query, REFUSED).filter(is_word),
        }
    }

    /// The parameters for an authorization request to the provider.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let acr = Some(self.acr_values.as_str()).filter(|values| !values.is_empty()).map(|values| (ACR_VALUES, values));
        acr.into_iter().chain(self.max_age.as_deref().map(|age| (MAX_AGE, age))).collect()
    }

    /// The parameters for a link to the login.
    pub(crate) fn link(&self) -> Vec<(&str, &str)> {
        let refused = self.refused.as_deref().map(|refused| (REFUSED, refused));
        self.pairs().into_iter().chain(refused).collect()
    }

    /// Converts the requirement to the type that routes use, so that both checks accept the same logins.
    #[cfg(any(feature = "browser-oidc", test))]
    pub(crate) fn step_up(&self) -> StepUp {
        StepUp {
            acr: self.acr_values.split(' ').filter(|value| !value.is_empty()).map(Box::from).collect(),
            max_age: self.age(),
        }
    }

    #[cfg(any(feature = "browser-oidc", test))]
    pub(crate) fn age(&self) -> Option<Duration> {
        self.max_age.as_deref().map(|age| age.parse().map(Duration::from_secs).unwrap_or_default())
    }
}

#[cfg(any(feature = "browser-oidc", test))]
impl std::fmt::Display for AskedLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (name, value)) in self.link().into_iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_what_was_asked_for_or_none() {
        let five = Some(Duration::from_secs(300));
        let of_route = StepUp { acr: vec!["gold".into(), "silver".into()], max_age: five };
        let asked = AskedLogin::of_route(Some(&of_route));
        assert_eq!(asked.pairs(), [("acr_values", "gold silver"), ("max_age", "300")]);
        assert_eq!(asked.to_string(), "acr_values=gold silver, max_age=300");
        // The conversion preserves the route's requirement.
        assert_eq!((asked.step_up(), asked.age()), (of_route, five));
        assert_eq!(AskedLogin::read(Some("to=%2Fx&acr_values=gold+silver&max_age=300")), asked);
        for query in ["", "max_age=-1&acr_values=%00", "max_age=x&refused=%3Cb", "max_age=99999999999"] {
            assert!(AskedLogin::read(Some(query)).is_plain(), "{query}");
        }
        let long = format!("acr_values={}", "x".repeat(MAX_ACR_VALUES + 1));
        assert!(AskedLogin::read(Some(&long)).pairs().is_empty());
        assert!(AskedLogin::of_route(None).is_plain() && AskedLogin::default().step_up() == StepUp::default());
    }

    #[test]
    fn the_outcome_of_a_live_session_goes_to_the_login_and_not_to_the_provider() {
        let refused = AskedLogin::default().after("wrong_issuer");
        assert_eq!((refused.link(), refused.pairs()), (vec![("refused", "wrong_issuer")], Vec::new()));
        assert_eq!(AskedLogin::read(Some("refused=wrong_issuer")), refused);
        assert!(!refused.is_plain() && refused.step_up() == StepUp::default());
        let gold = AskedLogin::of_route(Some(&StepUp { acr: vec!["gold".into()], max_age: None }));
        assert_eq!(gold.clone().after("insufficient_authentication"), gold);
    }
}
