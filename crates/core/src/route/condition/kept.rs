//! The results of conditions that are kept with a verified token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{Condition, ConditionVerdict, Conditions};

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

/// The values that were read once from the claims of one token, each under its key.
#[derive(Debug)]
pub struct KeptOfToken<K, V>(ArcSwapOption<Vec<(K, V)>>);

impl<K, V> Default for KeptOfToken<K, V> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<K: Clone + PartialEq, V: Clone> KeptOfToken<K, V> {
    /// The value under this key, which `read` makes of the claims the first time.
    pub fn get(&self, key: &K, read: impl FnOnce() -> V) -> V {
        let kept = self.0.load();
        let list = kept.as_deref().map(Vec::as_slice).unwrap_or_default();
        if let Some((_, known)) = list.iter().find(|(known, _)| known == key) {
            return known.clone();
        }
        let value = read();
        // The oldest leaves. Of two at the same time one is lost, and read again.
        let rest = list.iter().skip((list.len() + 1).saturating_sub(MAX_KEPT)).cloned();
        self.0.store(Some(Arc::new(rest.chain([(key.clone(), value.clone())]).collect())));
        value
    }
}

/// The results of the conditions of routes for one token, by the conditions.
pub type KeptVerdicts = KeptOfToken<u64, Arc<KeptConditions>>;

impl KeptVerdicts {
    /// The conditions for this token, whose claims `claims` returns. They are read once for each route.
    pub fn judged(&self, of: &Conditions, claims: impl FnOnce() -> Map<String, Value>) -> Arc<KeptConditions> {
        self.get(&of.id, || Arc::new(KeptConditions::judged(of, &claims())))
    }
}
