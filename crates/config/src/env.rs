//! Environment variables, which override the values of the file.

use std::collections::BTreeMap;

use rotogate_kit::config::{Node, Problems, Value, ValueOrigin};

const PREFIX: &str = "ROTOGATE_";
const NOT_KEYS: [&str; 3] = ["ROTOGATE_CONFIG", "ROTOGATE_LOG", "ROTOGATE_FAILPOINT"];
/// The maximum number of parts in a variable name. Every configuration key has fewer parts.
const MAX_DEPTH: usize = 8;

/// A source of environment variables.
pub trait Env {
    /// All variables with a UTF-8 name, in any order. `None` if a value is not UTF-8.
    fn vars(&self) -> Vec<(String, Option<String>)>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn vars(&self) -> Vec<(String, Option<String>)> {
        let text = |s: std::ffi::OsString| s.into_string().ok();
        let mut vars: Vec<_> =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)))).collect();
        vars.sort();
        vars
    }
}

impl Env for BTreeMap<String, String> {
    fn vars(&self) -> Vec<(String, Option<String>)> {
        self.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect()
    }
}

impl Env for () {
    fn vars(&self) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
}

/// Recognises variables that Kubernetes or Docker create for a service named `rotogate` or `rotogate-…`. `rest` is the
/// name after `ROTOGATE_`.
fn is_of_a_service(rest: &str, value: &str) -> bool {
    // A variable with two consecutive underscores is a configuration key.
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !is_name(rest) || rest.contains("__") {
        return false;
    }
    // The service's name may have any number of words, so try every suffix.
    let words: Vec<&str> = rest.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    (0..words.len()).any(|at| match words.get(at..).unwrap_or_default() {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        // Orchestrators set a URL. A plain number is probably an operator's mistake.
        ["PORT"] => value.contains("://"),
        ["PORT", number, "TCP" | "UDP" | "SCTP"]
        | ["PORT", number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => is_number(number),
        _ => false,
    })
}

/// Applies each variable `ROTOGATE_A__B` as the value of `a.b`. Returns the ignored variables that an orchestrator
/// created.
pub(super) fn overlay(root: &mut Node, env: &dyn Env, problems: &Problems<'_>) -> Vec<String> {
    let mut passed_over = Vec::new();
    for (name, value) in env.vars() {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        if NOT_KEYS.contains(&name.as_str()) {
            continue;
        }
        if is_of_a_service(path, value.as_deref().unwrap_or_default()) {
            passed_over.push(name);
            continue;
        }
        let origin = ValueOrigin::Env(name.clone());
        let Some(value) = value else {
            problems.add(Some(&origin), "", "is not UTF-8 text".to_owned());
            continue;
        };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if keys.len() > MAX_DEPTH || keys.iter().any(String::is_empty) {
            problems.add(
                Some(&origin),
                "",
                "does not name a configuration key; expected `ROTOGATE_SECTION__KEY`".to_owned(),
            );
            continue;
        }
        if let Err(what) = set(root, &keys, &value, &origin) {
            problems.add(Some(&origin), &keys.join("."), what);
        }
    }
    passed_over
}

fn set(node: &mut Node, keys: &[String], text: &str, origin: &ValueOrigin) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        return match node.value {
            Value::Table(_) => Err("is a table of configuration keys; add `__` and the name of a key".to_owned()),
            Value::List(ref list) if list.iter().any(|n| matches!(n.value, Value::Table(_))) => {
                Err("is a list of tables; name an element and one of its keys, as in `ROTOGATE_CLIENTS__0__ID`"
                    .to_owned())
            }
            _ => {
                node.value = Value::Env(text.to_owned());
                node.origin = origin.clone();
                Ok(())
            }
        };
    };
    match &mut node.value {
        Value::Table(table) => {
            let empty = || Node {
                value: if rest.is_empty() { Value::Env(String::new()) } else { Value::Table(BTreeMap::new()) },
                origin: origin.clone(),
                key: origin.clone(),
            };
            set(table.entry(key.clone()).or_insert_with(empty), rest, text, origin)
        }
        Value::List(list) => {
            let len = list.len();
            match key.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                Some(element) => set(element, rest, text, origin),
                None => Err(format!(
                    "this element does not exist: the index must be less than {len}, the length of the list in the file"
                )),
            }
        }
        _ => Err("is not a table, so it has no configuration keys".to_owned()),
    }
}
