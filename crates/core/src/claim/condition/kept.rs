//! The results of conditions, cached with a verified token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{Condition, ConditionVerdict, Conditions};
use crate::claim::ClaimPath;

/// The maximum number of routes or claims whose results are cached. Others are computed again.
pub(super) const MAX_KEPT: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct BoundParam {
    name: Box<str>,
    value: Box<str>,
}

/// Returns the comparisons that depend on the path, or `None` if another comparison is false.
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

/// A route's conditions, evaluated for the claims of one token.
#[derive(Clone, Debug)]
pub struct KeptConditions {
    decided: Option<bool>,
    when: Box<[BoundParam]>,
    any: Vec<Box<[BoundParam]>>,
}

impl KeptConditions {
    /// Evaluates the conditions for these claims, except comparisons with path parameters.
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

    /// Whether the conditions are met, or `None` if the result depends on the path.
    pub const fn decided(&self) -> Option<bool> {
        self.decided
    }

    /// Returns whether these path parameters meet the conditions.
    pub fn hold<'p>(&self, param: impl Fn(&str) -> Option<&'p str>) -> bool {
        let is = |bound: &BoundParam| param(&bound.name) == Some(&*bound.value);
        self.decided.unwrap_or_else(|| self.when.iter().all(is) && self.any.iter().any(|list| list.iter().all(is)))
    }
}

#[derive(Clone, Debug, Default)]
struct Kept {
    conditions: Vec<(u64, Arc<KeptConditions>)>,
    counted: Vec<(ClaimPath, Option<String>)>,
}

type Lists<K, V> = (fn(&Kept) -> &Vec<(K, V)>, fn(&mut Kept) -> &mut Vec<(K, V)>);

/// A cache for the claims of one token. An empty cache has the size of a pointer.
#[derive(Debug, Default)]
pub struct KeptOfToken(ArcSwapOption<Kept>);

impl KeptOfToken {
    /// The conditions for this token, evaluated once for each route. `claims` returns the token's claims.
    pub fn conditions(&self, of: &Conditions, claims: impl FnOnce() -> Map<String, Value>) -> Arc<KeptConditions> {
        let judge = || Arc::new(KeptConditions::judged(of, &claims()));
        self.get(&of.id, (|kept| &kept.conditions, |kept| &mut kept.conditions), judge)
    }

    /// Returns the value of the claim at `path`, for a rate limit. Calls `read` if the value is not cached.
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
        // If two threads add an entry at once, one entry is lost, and is computed again later.
        list.drain(..(list.len() + 1).saturating_sub(MAX_KEPT));
        list.push((key.clone(), value.clone()));
        self.0.store(Some(Arc::new(next)));
        value
    }
}
