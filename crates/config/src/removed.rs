//! Keys that `gateway.toml` had before version 0.1, and what to do instead. This table goes with version 0.2.

/// The keys, each with the full name that it had, and with what to do now. A name with a table ends the search for all
/// keys in it.
const REMOVED: &[(&str, &str)] = &[
    // Decision points.
    ("decision_points", POINTS),
    ("routes.decision", POINTS),
    // Transaction tokens.
    ("identity.trust_domain", TRANSACTIONS),
    ("upstreams.assertion_form", TRANSACTIONS),
    ("clients.exchange.trust_domain", TRANSACTIONS),
];

const POINTS: &str = "the gate asks no decision points; compare claims with `when`, or let the service, a layer of your program \
                      or a second filter of Envoy decide (docs/conditions.md)";
const TRANSACTIONS: &str =
    "there are no transaction tokens; an upstream gets an assertion (docs/assertion.md); remove the key";

/// What to do instead of a removed key. `None` for a key that never existed.
pub(crate) fn replacement(key: &str) -> Option<&'static str> {
    let name = key.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<String>();
    let name = name.replacen("directories.", "directory.", 1);
    REMOVED.iter().find(|(removed, _)| *removed == name).map(|(_, now)| *now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::Value;

    use super::*;
    use crate::parse;
    use crate::tests::reference::configurations;

    /// Adds a key to each table of this path. Returns whether there is one.
    fn add(value: &mut Value, path: &str) -> bool {
        match (value, path.split_once('.')) {
            (Value::Array(list), _) => list.iter_mut().fold(false, |found, entry| add(entry, path) | found),
            (Value::Table(table), Some((of, rest))) => {
                // A table that most configurations do not have.
                let is_table = ["dpop", "cors", "limits", "identity"].contains(&of);
                let inner = table.get_mut(of);
                match inner {
                    Some(inner) => add(inner, rest),
                    None if is_table => add(table.entry(of).or_insert(Value::Table(toml::Table::new())), rest),
                    None => false,
                }
            }
            (Value::Table(table), None) => {
                table.insert(path.to_owned(), true.into());
                true
            }
            _ => false,
        }
    }

    #[test]
    fn p65_check_says_of_each_removed_key_what_to_do_now() {
        let mut seen = BTreeSet::new();
        for text in configurations() {
            for (removed, now) in REMOVED {
                let mut root = Value::from(text.parse::<toml::Table>().unwrap());
                if !add(&mut root, removed) {
                    continue;
                }
                let Err(errors) = parse(&toml::to_string(&root).unwrap(), Path::new("gateway.toml"), &()) else {
                    continue;
                };
                let expected = format!("was removed: {now}");
                if errors.iter().any(|error| error.message == expected && replacement(&error.key) == Some(now)) {
                    seen.insert(*removed);
                }
            }
        }
        let unseen: Vec<_> = REMOVED.iter().map(|(removed, _)| *removed).filter(|key| !seen.contains(key)).collect();
        assert_eq!(unseen, [""; 0], "`check` accepts these, or gives another answer");
        assert_eq!(REMOVED.iter().map(|(removed, _)| removed).collect::<BTreeSet<_>>().len(), REMOVED.len(), "twice");
        assert_eq!(replacement("routes[3].decision"), Some(POINTS));
        assert_eq!(replacement("routes[3].path"), None);
    }
}
