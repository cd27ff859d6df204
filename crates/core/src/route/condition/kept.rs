//! The results of conditions, which are cached with a verified token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{Condition, ConditionVerdict, Conditions};
use crate::claim::ClaimPath;

/// The largest number of routes whose results are cached with a token, and the largest number of cached claims. If a
/// token is used on more routes, some conditions are evaluated again.
pub(super) const MAX_KEPT: usize = 8;

/// A path parameter and its required value.
#[derive(Clone, Debug)]
pub(super) struct BoundParam {
    name: Box<str>,
    value: Box<str>,
}

/// Evaluates a list of conditions. Returns the comparisons that depend on the path, or `None` if any other comparison
/// is false.
pub(super) fn settle(list: &[Condition], claims: &Map<String, Value>) -> Option<Box<[BoundParam]>> {
    let mut left = Vec::new();
    for one in list {
        match one.judge(claims) {
            ConditionVerdict::Known(true) => {}
            ConditionVerdict::Known(false) => return None,
            ConditionVerdict::Param(name, value) => left.push(BoundParam { name: name.into(), value: value.into() }),
        }
    }
    Some(left.into())
}

/// The conditions of a route, evaluated for the claims of one token.
#[derive(Clone, Debug)]
pub struct KeptConditions {
    decided: Option<bool>,
    when: Box<[BoundParam]>,
    /// The comparisons that remain of each list of `when_any`. All comparisons of at least one list must be true.
    any: Vec<Box<[BoundParam]>>,
}

impl KeptConditions {
    /// Evaluates the conditions for the claims of a token. Comparisons with path parameters are left undecided.
    pub fn judged(of: &Conditions, claims: &Map<String, Value>) -> Self {
        let when = settle(&of.when, claims);
        let any = match of.when_any.as_slice() {
            [] => vec![Box::default()],
            tables => tables.iter().filter_map(|table| settle(table, claims)).collect(),
        };
        Self::new(when, any)
    }

    pub(super) fn new(when: Option<Box<[BoundParam]>>, any: Vec<Box<[BoundParam]>>) -> Self {
        let decided = match &when {
            None => Some(false),
            Some(_) if any.is_empty() => Some(false),
            Some(when) if when.is_empty() && any.iter().any(|list| list.is_empty()) => Some(true),
            Some(_) => None,
        };
        Self { decided, when: when.unwrap_or_default(), any }
    }

    /// Whether the conditions are met. `None` if that depends on the path.
    pub const fn decided(&self) -> Option<bool> {
        self.decided
    }

    /// Whether the conditions are met for a path with these parameters.
    pub fn hold<'p>(&self, param: impl Fn(&str) -> Option<&'p str>) -> bool {
        let is = |bound: &BoundParam| param(&bound.name) == Some(&*bound.value);
        self.decided.unwrap_or_else(|| self.when.iter().all(is) && self.any.iter().any(|list| list.iter().all(is)))
    }
}

/// Results that were computed from the claims of one token. They are the results of conditions, stored with the number
/// of the conditions, and the values by which rate limits count, stored with the path of the claim.
#[derive(Clone, Debug, Default)]
struct Kept {
    conditions: Vec<(u64, Arc<KeptConditions>)>,
    counted: Vec<(ClaimPath, Option<String>)>,
}

/// Functions that return one of the two lists of [`Kept`], for reading and for changing it.
type Lists<K, V> = (fn(&Kept) -> &Vec<(K, V)>, fn(&mut Kept) -> &mut Vec<(K, V)>);

/// A cache of what was computed from the claims of one token. While it is empty, it has the size of one pointer.
#[derive(Debug, Default)]
pub struct KeptOfToken(ArcSwapOption<Kept>);

impl KeptOfToken {
    /// The conditions as evaluated for this token. `claims` returns the token's claims. The conditions are evaluated
    /// once for each route.
    pub fn conditions(&self, of: &Conditions, claims: impl FnOnce() -> Map<String, Value>) -> Arc<KeptConditions> {
        let judge = || Arc::new(KeptConditions::judged(of, &claims()));
        self.get(&of.id, (|kept| &kept.conditions, |kept| &mut kept.conditions), judge)
    }

    /// The value by which a rate limit counts, which `read` derives from the claim at this path. The value is cached.
    pub fn counted(&self, path: &ClaimPath, read: impl FnOnce() -> Option<String>) -> Option<String> {
        self.get(path, (|kept| &kept.counted, |kept| &mut kept.counted), read)
    }

    fn get<K: Clone + PartialEq, V: Clone>(
        &self,
        key: &K,
        (list, list_mut): Lists<K, V>,
        read: impl FnOnce() -> V,
    ) -> V {
        let kept = self.0.load();
        let known = kept.as_deref().and_then(|kept| list(kept).iter().find(|(known, _)| known == key));
        if let Some((_, value)) = known {
            return value.clone();
        }
        let value = read();
        let mut next = kept.as_deref().cloned().unwrap_or_default();
        let list = list_mut(&mut next);
        // The oldest entry is dropped. If two threads add entries at the same time, one entry is lost and is computed
        // again later.
        list.drain(..(list.len() + 1).saturating_sub(MAX_KEPT));
        list.push((key.clone(), value.clone()));
        self.0.store(Some(Arc::new(next)));
        value
    }
}
