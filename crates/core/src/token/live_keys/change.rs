//! The differences between old and new keys.

use std::collections::BTreeSet;

use crate::token::keyring::KeyPrint;
use crate::token::verify::keys::IssuerKeys;

/// The differences between two sets of keys. Each key is represented by its `kid`, escaped for logs. A key without a
/// `kid` is represented by an empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// The new keys.
    pub added: Vec<String>,
    /// The removed keys.
    pub left: Vec<String>,
    /// Each `kid` that now identifies another key.
    pub reused: Vec<String>,
}

impl KeyChange {
    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.left.is_empty() && self.reused.is_empty()
    }

    pub(super) fn between(old: Option<&IssuerKeys>, new: Option<&IssuerKeys>) -> Self {
        let named = |keys: Option<&IssuerKeys>| -> Vec<(String, KeyPrint)> {
            keys.into_iter().flat_map(IssuerKeys::prints).map(|(kid, print)| (shown(kid), print)).collect()
        };
        let (old, new) = (named(old), named(new));
        let has = |all: &[(String, KeyPrint)], print| all.iter().any(|(_, known)| *known == print);
        let names: BTreeSet<_> = old.iter().map(|(kid, _)| kid).collect();
        let (mut added, mut reused) = (Vec::new(), Vec::new());
        for (kid, print) in &new {
            if old.contains(&(kid.clone(), *print)) {
                continue;
            }
            if names.contains(kid) { &mut reused } else { &mut added }.push(kid.clone());
        }
        let left = old.iter().filter(|(_, print)| !has(&new, *print)).map(|(kid, _)| kid.clone());
        Self { left: left.filter(|kid| !reused.contains(kid)).collect(), added, reused }
    }
}

/// The `kid` comes from outside, so it is escaped.
pub(super) fn shown(kid: Option<&str>) -> String {
    kid.unwrap_or_default().chars().take(64).flat_map(char::escape_default).collect()
}
