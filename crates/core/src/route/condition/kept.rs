//! The results of conditions that are kept with a verified token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{Condition, ConditionVerdict, Conditions};
use crate::claim::ClaimPath;

/// The most routes whose results a token keeps, and the most claims. A token that is used on more is judged again on
/// some.
pub(super) const MAX_KEPT: usize = 8;

/// A parameter of the path, and its required value.
#[derive(Clone, Debug)]
pub(super) struct BoundParam {
    name: Box<str>,
    value: Box<str>,
}

/// The comparisons of a list that remain for the path; `None` if one comparison is false already.
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

/// The conditions of a route for the claims of one token.
#[derive(Clone, Debug)]
pub struct KeptConditions {
    decided: Option<bool>,
    when: Box<[BoundParam]>,
    /// The lists of comparisons of which one must hold.
    any: Vec<Box<[BoundParam]>>,
}

impl KeptConditions {
    /// Judges the claims of a token. Comparisons with the path remain open.
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

    /// The result; `None` if it depends on the path.
    pub const fn decided(&self) -> Option<bool> {
        self.decided
    }

    /// Do the conditions hold for a path with these parameters?
    pub fn hold<'p>(&self, param: impl Fn(&str) -> Option<&'p str>) -> bool {
        let is = |bound: &BoundParam| param(&bound.name) == Some(&*bound.value);
        self.decided.unwrap_or_else(|| self.when.iter().all(is) && self.any.iter().any(|list| list.iter().all(is)))
    }
}

/// What was read once from the claims of one token: the results of conditions, by the conditions, and the claims that
/// limits count by, by their paths.
#[derive(Clone, Debug, Default)]
struct Kept {
    conditions: Vec<(u64, Arc<KeptConditions>)>,
    counted: Vec<(ClaimPath, Option<String>)>,
}

/// Reads and changes one of the lists.
type Lists<K, V> = (fn(&Kept) -> &Vec<(K, V)>, fn(&mut Kept) -> &mut Vec<(K, V)>);

/// What was read once from the claims of one token. It takes one word while nothing was read.
#[derive(Debug, Default)]
pub struct KeptOfToken(ArcSwapOption<Kept>);

impl KeptOfToken {
    /// The conditions for this token, whose claims `claims` returns. They are judged once for each route.
    pub fn conditions(&self, of: &Conditions, claims: impl FnOnce() -> Map<String, Value>) -> Arc<KeptConditions> {
        let judge = || Arc::new(KeptConditions::judged(of, &claims()));
        self.get(&of.id, (|kept| &kept.conditions, |kept| &mut kept.conditions), judge)
    }

    /// The value by which a limit counts, which `read` makes of the claim at this path. It is read once.
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
        // The oldest leaves. Of two at the same time one is lost, and read again.
        list.drain(..(list.len() + 1).saturating_sub(MAX_KEPT));
        list.push((key.clone(), value.clone()));
        self.0.store(Some(Arc::new(next)));
        value
    }
}
