//! Finds the requirement that makes a rule refuse a request.

use std::sync::Arc;

use super::Described;
use rotogate_core::claim::condition::unmet_condition;
use rotogate_core::denial::Denial;
use rotogate_core::policy::unmet_key;
use rotogate_core::route::Route;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::rule::Rule;
use rotogate_core::token::claims::AccessToken;

impl<M> Described<'_, M> {
    pub(super) fn demand(&self, rule: Rule, denial: Denial) -> Option<(Arc<str>, &'static str)> {
        if rule == Rule::Credential && self.unwanted_key().is_some() {
            return Some((Arc::clone(&self.route?.id), "credentials"));
        }
        let now = self.wall();
        self.demanding().find_map(|(route, path)| {
            let policy = &route.policy;
            let token = self.heard.token.as_ref();
            let key = match (rule, denial, token) {
                (Rule::Quota, Denial::QuotaExceeded(limit, _), _) => {
                    self.layer.gate.0.has_limit(policy, limit).then_some("rate")
                }
                (Rule::Condition, _, Some(token)) => Some(unmet(route, path.as_deref(), token)?.0),
                // A call rule that does not name issuers accepts all issuers.
                (Rule::Issuer, _, _) if path.is_none() && policy.issuers.is_empty() => None,
                (_, _, Some(token)) => unmet_key(rule, policy, token, now),
                (_, _, None) => None,
            };
            Some((Arc::clone(&route.id), key?))
        })
    }

    /// Describes unmet conditions by their claims and operators, without values.
    // Requirement K24.
    pub(super) fn unmet_words(&self, token: &AccessToken) -> String {
        let unmet = self.demanding().find_map(|(route, path)| unmet(route, path.as_deref(), token));
        unmet.map_or_else(|| "a condition is not met".to_owned(), |(_, words)| format!("not met: {words}"))
    }

    fn demanding(&self) -> impl Iterator<Item = (&Arc<Route>, Option<String>)> {
        let of_call = self.call_rules().iter().map(|rule| (rule, None));
        self.route.into_iter().map(|route| (route, Some(self.raw()))).chain(of_call)
    }
}

/// Returns the configuration key and the description of the unmet conditions. A call rule does not have a path.
fn unmet(route: &Route, path: Option<&str>, token: &AccessToken) -> Option<(&'static str, String)> {
    let path = path.and_then(|raw| CanonicalPath::parse(raw).ok());
    let param = |name: &str| {
        let mut params = route.params(path.as_ref()?.as_str());
        params.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    unmet_condition(route.policy.conditions.as_ref()?, &token.claims(), &param)
}
