//! Suggestions for misspelled names.

use super::{Node, ValueOrigin};

/// Suggests `TABLE__KEY` for an environment variable `TABLE_KEY`.
pub(super) fn variable_meant(node: &Node, key: &str, known: &[&str]) -> Option<String> {
    let ValueOrigin::Env(name) = &node.key else { return None };
    let table = known.iter().filter(|table| key.strip_prefix(**table).is_some_and(|rest| rest.starts_with('_')));
    let table = table.max_by_key(|table| table.len())?;
    // `name` is the path of the table, followed by the key.
    let at = name.len().checked_sub(key.len())?;
    let (head, tail) = (name.get(..at + table.len())?, name.get(at + table.len() + 1..)?);
    (!tail.is_empty()).then(|| format!("{head}__{tail}"))
}

/// Returns the known name closest to `found`, if it is similar enough.
pub fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let within = (found.chars().count() / 3).clamp(1, 3);
    // Truncation limits the work. All known keys are shorter.
    let found: String = found.chars().take(64).collect();
    let near = known.iter().map(|name| (strsim::osa_distance(&found, name), *name)).min()?;
    (near.0 <= within).then_some(near.1)
}
