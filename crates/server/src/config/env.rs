//! The environment, as something that a test can make up.

use std::collections::BTreeMap;

/// Where environment variables come from.
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

/// No variables at all.
impl Env for () {
    fn vars(&self) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
}

/// Was a variable, whose name goes on with `rest` behind `ROTOGATE_`, made by Kubernetes or by a Docker link for a service
/// of the name `rotogate` or `rotogate-…`? Every container beside such a service has them.
pub(super) fn is_of_a_service(rest: &str, value: &str) -> bool {
    // A name with two underscores in a row is one of our keys.
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !is_name(rest) || rest.contains("__") {
        return false;
    }
    // Behind the name of the service, which is empty here where it is `rotogate` alone.
    let words: Vec<&str> = rest.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    (0..words.len()).any(|at| match words.get(at..).unwrap_or_default() {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        // A port that a person writes is a number; this one is always a URL.
        ["PORT"] => value.contains("://"),
        ["PORT", number, "TCP" | "UDP" | "SCTP"]
        | ["PORT", number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => is_number(number),
        _ => false,
    })
}
