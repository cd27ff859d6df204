//! Operations on the configuration.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::AdminState;
use super::problem::{Code, Finding, Refusal};
use crate::server::build::prepare::prepare;
use crate::server::listen::sockets::unavailable_addresses;
use crate::server::operate::reload::{ReloadSource, read_again};
use rotogate_config::{Config, ConfigErrors, KeyOrigin, ProcessEnv};

/// The configuration in use.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ConfigInfo {
    /// The path of the configuration file.
    pub(crate) file: String,
    /// The configuration as `rotogate check --print` prints it, with all defaults and with masked secrets.
    pub(super) toml: String,
    /// The values, each with its source.
    pub(crate) values: Vec<ConfigValue>,
}

/// A value of the configuration.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ConfigValue {
    /// The key, such as `server.workers` or `routes[1].path`.
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) source: ValueSource,
    /// The line in the file, if the file sets the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The environment variable, if a variable sets the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variable: Option<String>,
}

/// The source of a value.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ValueSource {
    Default,
    File,
    Environment,
}

impl ValueSource {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
        }
    }
}

/// Shows the configuration in use. Secrets are masked, and each value has its source.
#[utoipa::path(
    get, path = "/v1/config", operation_id = "show_config", tag = "config",
    responses((status = 200, description = "done", body = ConfigInfo))
)]
pub(super) fn show(state: &AdminState) -> ConfigInfo {
    ConfigInfo::new(&state.config.load())
}

impl ConfigInfo {
    pub(crate) fn new(config: &Config) -> Self {
        let value = |(key, value): (String, toml::Value)| {
            let (source, line, variable) = match config.source.origin(&key) {
                KeyOrigin::Default => (ValueSource::Default, None, None),
                KeyOrigin::File(line) => (ValueSource::File, line, None),
                KeyOrigin::Environment(variable) => (ValueSource::Environment, None, Some(variable)),
            };
            ConfigValue { key, value: serde_json::to_value(value).unwrap_or_default(), source, line, variable }
        };
        Self {
            file: config.source.file().display().to_string(),
            toml: config.to_toml(),
            values: values(config).into_iter().map(value).collect(),
        }
    }
}

/// Returns every key with its value, and masks secrets. A list of plain values counts as one value.
fn values(config: &Config) -> Vec<(String, toml::Value)> {
    fn add(key: &str, value: toml::Value, to: &mut Vec<(String, toml::Value)>) {
        match value {
            toml::Value::Table(table) => {
                let begin = if key.is_empty() { String::new() } else { format!("{key}.") };
                table.into_iter().for_each(|(name, value)| add(&format!("{begin}{name}"), value, to));
            }
            toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
                list.into_iter().enumerate().for_each(|(index, value)| add(&format!("{key}[{index}]"), value, to));
            }
            value => to.push((key.to_owned(), value)),
        }
    }
    let mut all = Vec::new();
    add("", toml::Value::Table(config.to_toml().parse().unwrap_or_default()), &mut all);
    all
}

fn differing(in_force: &Config, other: &Config) -> Vec<String> {
    let (ours, theirs) = (values(in_force), values(other));
    let only = |one: &[(String, toml::Value)], other: &[(String, toml::Value)]| -> BTreeSet<String> {
        one.iter().filter(|pair| !other.contains(pair)).map(|(key, _)| key.clone()).collect()
    };
    let all: BTreeSet<String> = only(&ours, &theirs).union(&only(&theirs, &ours)).cloned().collect();
    // If only one of the configurations has an array element, the whole element is reported as one key.
    let is_in = |values: &[(String, toml::Value)], element: &str| {
        values
            .iter()
            .any(|(key, _)| key.strip_prefix(element).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let told = |key: &String| {
        let ends = key.match_indices(']').map(|(at, _)| key.get(..=at).unwrap_or_default());
        let new = ends.into_iter().find(|element| is_in(&ours, element) != is_in(&theirs, element));
        new.unwrap_or(key).to_owned()
    };
    let told: BTreeSet<String> = all.iter().map(told).collect();
    told.into_iter().collect()
}

/// The result of a check.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct CheckResult {
    file: String,
    /// Whether a start or a reload would accept the configuration.
    ok: bool,
    /// The problems for which a start or a reload would refuse the configuration.
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// The keys whose value differs from the value in use.
    changed: Vec<String>,
}

/// Checks the configuration file, as `rotogate check` does. Does not change anything.
#[utoipa::path(
    post, path = "/v1/config/check", operation_id = "check_config", tag = "config",
    responses((status = 200, description = "done", body = CheckResult))
)]
pub(super) async fn check(state: &AdminState) -> CheckResult {
    let in_force = state.config.load_full();
    let file = in_force.source.file();
    let found = CheckResult { file: file.display().to_string(), ok: true, ..CheckResult::default() };
    match examine(file, &state.listening).await {
        Ok(config) => {
            let warnings = config.warnings.iter().map(Finding::new).collect();
            CheckResult { warnings, changed: differing(&in_force, &config), ..found }
        }
        Err(errors) => CheckResult { ok: false, errors: findings(&errors), ..found },
    }
}

async fn examine(file: &Path, held: &[std::net::SocketAddr]) -> Result<Config, ConfigErrors> {
    let config = rotogate_config::load(file, &ProcessEnv)?;
    let taken = unavailable_addresses(&config, held);
    let taken = ConfigErrors::new(taken.into_iter().map(|taken| config.blame(&taken.key, taken.message)).collect());
    match (prepare(&config).await, taken) {
        (Ok(plan), None) => Ok(Config { warnings: plan.warnings, ..config }),
        (Err(wrong), None) | (Ok(_), Some(wrong)) => Err(wrong),
        (Err(wrong), Some(taken)) => Err(wrong.and(taken)),
    }
}

fn findings(errors: &ConfigErrors) -> Vec<Finding> {
    errors.iter().map(Finding::new).collect()
}

/// The result of a reload.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadResult {
    file: String,
    /// The keys whose new values have taken effect.
    applied: Vec<String>,
    /// The keys whose new values need a restart, or an in-place upgrade.
    restart_needed: Vec<String>,
    warnings: Vec<Finding>,
}

impl std::fmt::Display for ReloadResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, applied, restart_needed, warnings } = self;
        match applied.len() {
            0 => write!(f, "{file} reloaded: nothing changed")?,
            _ => write!(f, "{file} reloaded: {}", applied.join(", "))?,
        }
        if !restart_needed.is_empty() {
            write!(f, "\nthese keys take effect after `rotogate upgrade`: {}", restart_needed.join(", "))?;
        }
        warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {}: {}", warning.key, warning.detail))
    }
}

/// Reads the configuration again, as SIGHUP does, and waits until it takes effect. The status is 422, with a list of
/// the problems, if the configuration is invalid. In that case, nothing has changed.
#[utoipa::path(
    post, path = "/v1/config/reload", operation_id = "reload_config", tag = "config",
    responses((status = 200, description = "done", body = ReloadResult))
)]
pub(super) async fn reload(state: &AdminState) -> Result<ReloadResult, Refusal> {
    let before = state.config.load_full();
    let file = before.source.file();
    let config = read_again(file).await.map_err(|errors| {
        state.outcomes.set(ReloadSource::Configuration, true);
        let what = "the configuration cannot be used; the old one stays in force";
        Refusal::new(Code::InvalidConfiguration, what).with_errors(findings(&errors))
    })?;
    let wanted = config.clone();
    if !state.reloader.apply(config).await {
        let what = "the configuration was not applied; the log says why. The old one stays in force";
        return Err(Refusal::new(Code::InvalidConfiguration, what));
    }
    let now = state.config.load_full();
    Ok(ReloadResult {
        file: file.display().to_string(),
        applied: differing(&before, &now),
        restart_needed: differing(&now, &wanted),
        warnings: wanted.warnings.iter().map(Finding::new).collect(),
    })
}
