//! The rules of a resource's calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::McpCalls;
use crate::mcp::Call;
use crate::route::Route;

/// The rules of a resource's calls.
#[derive(Debug, Default)]
pub struct CallRules(Vec<CallRule>);

/// One pattern of a rule.
#[derive(Clone, Debug)]
pub struct CallRule {
    /// The calls.
    pub calls: McpCalls,
    /// The route with the requirements for these calls.
    pub route: Arc<Route>,
    counts: Arc<[AtomicU64; 2]>,
}

impl CallRule {
    /// Counts a call.
    pub fn count(&self, is_permitted: bool) {
        self.counts[usize::from(is_permitted)].fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers of refused and of permitted calls.
    pub fn counted(&self) -> [u64; 2] {
        [&self.counts[0], &self.counts[1]].map(|count| count.load(Ordering::Relaxed))
    }
}

impl CallRules {
    /// The rules among these routes, in their order.
    ///
    /// # Errors
    /// Two rules have the same pattern, or there is no rule for all other calls.
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
            return Err(
                "no rule governs the calls that the others do not name; add one with calls = [\"*\"]".to_owned()
            );
        }
        Ok(Self(rules))
    }

    /// Continues the counts of the replaced rules.
    pub fn count_on(&mut self, old: &Self) {
        for rule in &mut self.0 {
            if let Some(known) = old.0.iter().find(|known| known.calls == rule.calls) {
                rule.counts = Arc::clone(&known.counts);
            }
        }
    }

    /// Each rule.
    pub fn iter(&self) -> impl Iterator<Item = &CallRule> {
        self.0.iter()
    }

    /// The rules that govern a call, in configuration order: the most specific one. A URI that a server may read in
    /// several ways is governed by each rule that could apply.
    pub fn of_call<'s>(&'s self, call: &Call<'_>) -> impl Iterator<Item = &'s CallRule> {
        let closest = self.0.iter().filter_map(|rule| Some((rule.calls.closeness(call)?, rule)));
        let closest = closest.max_by_key(|(closeness, _)| *closeness).map(|(_, rule)| rule);
        let is_ambiguous = call.method.as_deref() == Some(READ) && call.name.as_deref().is_some_and(is_ambiguous);
        self.0.iter().filter(move |rule| {
            closest.is_some_and(|closest| std::ptr::eq(closest, *rule))
                || (is_ambiguous && rule.calls.has_prefix_of(READ))
        })
    }
}

const READ: &str = "resources/read";

/// May a server read this URI as another one? It has dot segments, escapes of dots or slashes, a backslash, an empty segment,
/// or a scheme or a host in capitals.
fn is_ambiguous(uri: &str) -> bool {
    let lower = uri.to_ascii_lowercase();
    let after_scheme = uri.split_once("://");
    let path = after_scheme.map_or(uri, |(_, rest)| rest);
    let authority = path.split('/').next().unwrap_or_default();
    let scheme = after_scheme.map_or_else(|| uri.split(':').next().unwrap_or_default(), |(scheme, _)| scheme);
    ["%2e", "%2f", "%5c", "\\"].iter().any(|spelling| lower.contains(spelling))
        || path.split(['/', '?', '#']).any(|segment| matches!(segment, "." | ".."))
        || path.trim_start_matches('/').contains("//")
        || [scheme, authority].iter().any(|part| part.bytes().any(|byte| byte.is_ascii_uppercase()))
}
