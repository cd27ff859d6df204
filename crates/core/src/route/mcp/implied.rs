//! Scopes that imply other scopes (the configuration key `implies`).

use std::collections::{BTreeMap, BTreeSet};

use crate::session::Scope;

/// For each scope, the scopes that imply it, directly or indirectly.
// Requirement M10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Implied {
    given: BTreeMap<String, Scope>,
    by: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Implied {
    /// Computes the transitive closure of directly implied scopes.
    ///
    /// # Errors
    /// A scope implies itself. The message names a scope of the cycle.
    pub fn new(given: impl IntoIterator<Item = (String, Scope)>) -> Result<Self, String> {
        let given: BTreeMap<String, Scope> = given.into_iter().collect();
        let mut by: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
        for wide in given.keys() {
            let mut reached: BTreeSet<&str> = BTreeSet::new();
            let mut next = vec![wide.as_str()];
            while let Some(scope) = next.pop() {
                for narrow in given.get(scope).into_iter().flat_map(Scope::iter) {
                    if narrow == wide {
                        return Err(format!("\"{wide}\" implies itself through \"{scope}\""));
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

    /// Whether `granted` has the scope `asked`, directly or by implication.
    pub fn has(&self, granted: &Scope, asked: &str) -> bool {
        granted.contains(asked)
            || self.by.get(asked).is_some_and(|wider| wider.iter().any(|scope| granted.contains(scope)))
    }

    /// The directly implied scopes from the configuration.
    pub const fn given(&self) -> &BTreeMap<String, Scope> {
        &self.given
    }
}
