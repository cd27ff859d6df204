//! The results of conditions that are kept with a verified token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{Condition, ConditionVerdict, Conditions};

/// The most routes whose results a token keeps. A token that is used on more is judged anew on some.
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
    of: u64,
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
        Self::new(of.id, when, any)
    }

    pub(super) fn new(of: u64, when: Option<Box<[BoundParam]>>, any: Vec<Box<[BoundParam]>>) -> Self {
        let decided = match &when {
            None => Some(false),
            Some(_) if any.is_empty() => Some(false),
            Some(when) if when.is_empty() && any.iter().any(|list| list.is_empty()) => Some(true),
            Some(_) => None,
        };
        Self { of, decided, when: when.unwrap_or_default(), any }
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

/// The results of one token.
#[derive(Debug, Default)]
pub struct KeptVerdicts(ArcSwapOption<Vec<Arc<KeptConditions>>>);

impl KeptVerdicts {
    /// The conditions for this token, whose claims `claims` returns. They are read once for each route.
    pub fn get(&self, of: &Conditions, claims: impl FnOnce() -> Map<String, Value>) -> Arc<KeptConditions> {
        let kept = self.0.load();
        let list = kept.as_deref().map(Vec::as_slice).unwrap_or_default();
        if let Some(known) = list.iter().find(|known| known.of == of.id) {
            return Arc::clone(known);
        }
        let judged = Arc::new(KeptConditions::judged(of, &claims()));
        // The oldest leaves. Of two at the same time one is lost, and judged again.
        let rest = list.iter().skip((list.len() + 1).saturating_sub(MAX_KEPT)).cloned();
        self.0.store(Some(Arc::new(rest.chain([Arc::clone(&judged)]).collect())));
        judged
    }
}
