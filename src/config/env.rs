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
