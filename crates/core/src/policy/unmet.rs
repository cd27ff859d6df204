//! Finds the configuration key that a token does not satisfy.

use super::{judge_issuer, judge_roles, judge_step_up};
use crate::clock::Timestamp;
use crate::route::RoutePolicy;
use crate::rule::Rule;
use crate::token::claims::AccessToken;

/// Returns the `[[routes]]` key that makes this rule refuse the token. Ignores conditions and limits.
pub fn unmet_key(rule: Rule, policy: &RoutePolicy, token: &AccessToken, now: Timestamp) -> Option<&'static str> {
    match rule {
        Rule::Credential if token.is_api_key() && !policy.credentials.key => Some("credentials"),
        Rule::Proof if policy.dpop_required && token.bound_to().is_none() => Some("dpop"),
        Rule::Proof if policy.certificate_required && token.certificate().is_none() => Some("certificate_bound"),
        Rule::Issuer if judge_issuer(policy, token).is_err() => Some("issuers"),
        Rule::Scope if !policy.scopes.iter().all(|one| policy.has(&token.scope, one)) => Some("scopes"),
        Rule::Scope if !policy.grants(&token.scope) => Some("any_scope"),
        Rule::Role if judge_roles(policy, &[], &policy.all_roles, token).is_err() => Some("all_roles"),
        Rule::Role if judge_roles(policy, &policy.roles, &[], token).is_err() => Some("roles"),
        Rule::StepUp if judge_step_up(policy, token, now).is_err() => {
            let acr = policy.step_up.as_ref().map(|step_up| &step_up.acr).filter(|acr| !acr.is_empty());
            let has_acr = |acr: &Vec<Box<str>>| token.login().0.is_some_and(|has| acr.iter().any(|one| **one == *has));
            Some(if acr.is_none_or(has_acr) { "step_up.max_age" } else { "step_up.acr" })
        }
        _ => None,
    }
}
