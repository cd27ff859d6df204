//! The environment, behind a trait so that tests can supply one.

use std::collections::BTreeMap;

/// A source of environment variables.
pub trait Env {
    /// Every variable whose name is UTF-8, in any order; `None` for a value that is not.
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

/// No variables.
impl Env for () {
    fn vars(&self) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
}

/// Whether Kubernetes or a Docker link made this variable for a service named `rotogate` or `rotogate-…`: every
/// container beside such a service has them. `rest` is the name after `ROTOGATE_`.
pub(super) fn is_of_a_service(rest: &str, value: &str) -> bool {
    // A name with two consecutive underscores is one of our keys.
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !is_name(rest) || rest.contains("__") {
        return false;
    }
    // After the name of the service. The rest of that name is empty for `rotogate` alone.
    let words: Vec<&str> = rest.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    (0..words.len()).any(|at| match words.get(at..).unwrap_or_default() {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        // A port set by an operator is a number; this one is always a URL.
        ["PORT"] => value.contains("://"),
        ["PORT", number, "TCP" | "UDP" | "SCTP"]
        | ["PORT", number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => is_number(number),
        _ => false,
    })
}
