//! Reads `gateway.toml` into a [`Config`], or reports all its problems. An environment variable can override each
//! value.
//!
//! `ROTOGATE_STORE__PATH` sets `path` of `[store]`. A number selects an element of a list (`ROTOGATE_CLIENTS__0__ID`).
//! The elements of a list of plain values are separated by commas. A variable that begins with `ROTOGATE_` but does not
//! name a key is an error. `ROTOGATE_CONFIG`, `ROTOGATE_LOG` and `ROTOGATE_FAILPOINT` are not keys. Variables that
//! Kubernetes or Docker create for a service named rotogate are ignored. Relative paths are relative to the directory
//! of the file.
//!
//! ```
//! let errors = rotogate_config::parse("[sessions]\nacess_ttl = \"5m\"", "gateway.toml".as_ref(), &()).unwrap_err();
//! assert!(errors.to_string().starts_with("gateway.toml:2:1: sessions.acess_ttl: unknown key; did you mean access_ttl?"));
//! ```

mod declare;
mod env;
mod logs;
mod otlp_env;
mod print;
mod removed;
mod sections;
mod source;
pub mod value;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use declare::DeclaredKeys;
pub use env::{Env, ProcessEnv};
pub use logs::{
    AccessLogConfig, AuditLogConfig, LogAddresses, LogConfig, LogFormat, LogOutput, OnAuditFailure, RouteLog, Sample,
};
pub use rotogate_kit::config::{ConfigError, ConfigErrors};
pub use sections::*;
pub use source::KeyOrigin;
pub use source::Source;

use rotogate_core::private_file::{self, trusted};
use rotogate_kit::config::{Problems, Section, parse_sound};

/// A configuration file with all keys, their defaults and their meanings.
///
/// ```
/// rotogate_config::parse(rotogate_config::REFERENCE, "gateway.toml".as_ref(), &())?;
/// # Ok::<(), rotogate_config::ConfigErrors>(())
/// ```
pub const REFERENCE: &str = include_str!("../reference.toml");

const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads a configuration file, and applies the environment variables.
///
/// # Errors
/// All problems of the configuration, or an error if the file cannot be read.
pub fn load(path: &Path, env: &dyn Env) -> Result<Config, ConfigErrors> {
    let text = String::from_utf8(read(path)?).map_err(|error| {
        let what = format!("is not UTF-8 text, from byte {} on", error.utf8_error().valid_up_to());
        ConfigErrors::one(path.display().to_string(), what)
    })?;
    parse(&text, path, env)
}

/// Reads only the settings for access to a running gate. The rest of the file may be invalid.
///
/// # Errors
/// The file cannot be read, or one of these keys is invalid.
// Requirement O28.
pub fn load_access(path: &Path, env: &dyn Env) -> Result<AdminAccess, ConfigErrors> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let name = path.display().to_string();
    let (passed_over, problems) = (Problems::new(&name, &text), Problems::new(&name, &text));
    let (mut root, _) = parse_sound(&text, &passed_over);
    env::overlay(&mut root, env, &passed_over);
    let admin = Section::root(&root, &problems).section("admin");
    let access = sections::read_access(&admin, path.parent().unwrap_or(Path::new("")));
    problems.into_errors().map_or(Ok(access), Err)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    let fail = |what: String| ConfigErrors::one(path.display().to_string(), what);
    if let Err(error) = std::fs::metadata(path)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Err(fail(format!(
            "cannot be read: {error}. Name a configuration file with `--config FILE`, or create one with `rotogate \
             init`"
        )));
    }
    if let Some(why) = private_file::denied(path) {
        let source = path.display().to_string();
        let error = ConfigError { source, position: None, key: String::new(), message: why, unchecked: true };
        return Err(ConfigErrors::single(error));
    }
    trusted::read(path, MAX_FILE_BYTES).map_err(|what| ConfigErrors::said(path, &what))
}

/// Reads a configuration from `text`. Errors name `file`, and relative paths are relative to its directory.
///
/// # Errors
/// All problems of the configuration.
pub fn parse(text: &str, file: &Path, env: &dyn Env) -> Result<Config, ConfigErrors> {
    let name = file.display().to_string();
    let problems = Problems::new(&name, text).with_removed(removed::replacement);
    let config = rotogate_kit::config::parse(text, &problems).map(|mut root| {
        let passed_over = env::overlay(&mut root, env, &problems);
        otlp_env::overlay(&mut root, env);
        let base = file.parent().unwrap_or(Path::new(""));
        let config = sections::read(&Section::root(&root, &problems), base);
        let source = Source::new(file, &root, passed_over, &problems);
        Config { source: std::sync::Arc::new(source), ..config }
    });
    let warnings = problems.warnings();
    match (problems.into_errors(), config) {
        (None, Some(config)) => Ok(Config { warnings, ..config }),
        (Some(errors), _) => Err(errors),
        // Without a tree there is at least one problem, so this arm is never used.
        (None, None) => Err(ConfigErrors::one(name.clone(), "cannot be read".to_owned())),
    }
}
