//! Guesses which known name the user meant by an unknown name.

use super::{Node, ValueOrigin};

/// The environment variable that was probably meant, if the variable that was found has one underscore instead of two
/// between table and key.
pub(super) fn variable_meant(node: &Node, key: &str, known: &[&str]) -> Option<String> {
    let ValueOrigin::Env(name) = &node.key else { return None };
    let table = known.iter().filter(|table| key.strip_prefix(**table).is_some_and(|rest| rest.starts_with('_')));
    let table = table.max_by_key(|table| table.len())?;
    // The full name consists of the path of this table and the key.
    let at = name.len().checked_sub(key.len())?;
    let (head, tail) = (name.get(..at + table.len())?, name.get(at + table.len() + 1..)?);
    (!tail.is_empty()).then(|| format!("{head}__{tail}"))
}

/// The known name that was probably meant.
pub fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let within = (found.chars().count() / 3).clamp(1, 3);
    // Keys are shorter than 64 characters. Truncating longer names limits the work.
    let found: String = found.chars().take(64).collect();
    let near = known.iter().map(|name| (strsim::osa_distance(&found, name), *name)).min()?;
    (near.0 <= within).then_some(near.1)
}
