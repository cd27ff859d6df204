//! `implies`: scopes that contain others.

use std::collections::{BTreeMap, BTreeSet};

use crate::session::Scope;

/// For each scope, the scopes that imply it, directly or through other scopes.
// Requirement M10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Implied {
    /// As configured.
    given: BTreeMap<String, Scope>,
    /// For each scope, all scopes that contain it.
    by: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Implied {
    /// Builds the closure from each scope and the scopes that it implies.
    ///
    /// # Errors
    /// The scopes of a circle.
    pub fn new(given: impl IntoIterator<Item = (String, Scope)>) -> Result<Self, String> {
        let given: BTreeMap<String, Scope> = given.into_iter().collect();
        let mut by: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
        for wide in given.keys() {
            let mut reached: BTreeSet<&str> = BTreeSet::new();
            let mut next = vec![wide.as_str()];
            while let Some(scope) = next.pop() {
                for narrow in given.get(scope).into_iter().flat_map(Scope::iter) {
                    if narrow == wide {
                        return Err(format!("\"{wide}\" implies itself, by way of \"{scope}\""));
                    }
                    if reached.insert(narrow) {
                        next.push(narrow);
                    }
                }
            }
            for narrow in reached {
                by.entry(narrow.into()).or_default().insert(wide.as_str().into());
            }
        }
        Ok(Self { given, by })
    }

    /// Does a token with these scopes have the scope `asked`?
    pub fn has(&self, granted: &Scope, asked: &str) -> bool {
        granted.contains(asked)
            || self.by.get(asked).is_some_and(|wider| wider.iter().any(|scope| granted.contains(scope)))
    }

    /// As configured.
    pub const fn given(&self) -> &BTreeMap<String, Scope> {
        &self.given
    }
}
