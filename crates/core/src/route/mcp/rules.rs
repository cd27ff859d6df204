//! The rules for MCP calls to a resource.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pattern::{EXACT, READ};
use super::{McpCalls, uri};
use crate::mcp::Call;
use crate::route::Route;

/// The rules for MCP calls to a resource.
#[derive(Debug, Default)]
pub struct CallRules(Vec<CallRule>);

/// One pattern of a rule.
#[derive(Clone, Debug)]
pub struct CallRule {
    /// The calls that match.
    pub calls: McpCalls,
    /// The route whose policy applies to the calls.
    pub route: Arc<Route>,
    counts: Arc<[AtomicU64; 2]>,
}

impl CallRule {
    /// Counts a call as permitted or refused.
    pub fn count(&self, is_permitted: bool) {
        self.counts[usize::from(is_permitted)].fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers of refused and permitted calls.
    pub fn counted(&self) -> [u64; 2] {
        [&self.counts[0], &self.counts[1]].map(|count| count.load(Ordering::Relaxed))
    }
}

impl CallRules {
    /// Collects the MCP call rules of the routes, in their order.
    ///
    /// # Errors
    /// Two rules have the same pattern, or a rule for `*` is missing.
    pub fn new<'r>(routes: impl Iterator<Item = &'r Route>) -> Result<Self, String> {
        let mut rules: Vec<CallRule> = Vec::new();
        for route in routes {
            let governing = Arc::new(route.clone());
            for calls in &route.calls {
                if rules.iter().any(|known| known.calls == *calls) {
                    return Err(format!("two rules govern the calls \"{calls}\"; remove one of the two"));
                }
                rules.push(CallRule { calls: calls.clone(), route: Arc::clone(&governing), counts: Arc::default() });
            }
        }
        if !rules.is_empty() && !rules.iter().any(|rule| rule.calls.is_general()) {
            return Err("no rule applies to calls that are not listed; add a rule with calls = [\"*\"]".to_owned());
        }
        Ok(Self(rules))
    }

    /// Continues to use the counters of the old rules.
    pub fn count_on(&mut self, old: &Self) {
        for rule in &mut self.0 {
            if let Some(known) = old.0.iter().find(|known| known.calls == rule.calls) {
                rule.counts = Arc::clone(&known.counts);
            }
        }
    }

    /// Iterates over the rules.
    pub fn iter(&self) -> impl Iterator<Item = &CallRule> {
        self.0.iter()
    }

    /// The rules for a call, in configuration order. Usually only the most specific rule applies.
    ///
    /// If servers may disagree about which resource the call's URI names, all rules that name resources apply. A rule
    /// for exactly this URI takes precedence.
    pub fn of_call<'s>(&'s self, call: &Call<'_>) -> impl Iterator<Item = &'s CallRule> {
        let closest = self.0.iter().filter_map(|rule| Some((rule.calls.closeness(call)?, rule)));
        let closest = closest.max_by_key(|(closeness, _)| *closeness);
        let is_read = call.method.as_deref() == Some(READ) && closest.is_some_and(|(closeness, _)| closeness < EXACT);
        let is_ambiguous = is_read && call.name.as_deref().is_some_and(|uri| !uri::has_one_spelling(uri));
        self.0.iter().filter(move |rule| {
            closest.is_some_and(|(_, closest)| std::ptr::eq(closest, *rule)) || (is_ambiguous && rule.calls.names(READ))
        })
    }
}
