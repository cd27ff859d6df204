//! Operations on the configuration.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use super::problem::{Code, Finding, Refusal};
use crate::server::build::prepare::prepare;
use crate::server::listen::sockets::unavailable_addresses;
use crate::server::operate::reload::{ReloadSource, read_again};
use rotogate_config::{Config, ConfigErrors, DeclaredKeys, KeyOrigin, ProcessEnv};

/// The end of every message about a refused reload.
pub(crate) const KEPT: &str = "the old configuration stays in use";
/// Why a reload of a file is refused that is not the checked file.
pub(super) const STALE: &str = "the file changed since it was checked: check again";
const MASKED: &str = "(masked)";

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

/// Returns every key with its value, and masks secrets.
fn values(config: &Config) -> Vec<(String, toml::Value)> {
    values_in(&config.to_toml())
}

/// Returns every key in a TOML document with its value. A list of plain values counts as one value.
fn values_in(text: &str) -> Vec<(String, toml::Value)> {
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
    add("", toml::Value::Table(text.parse().unwrap_or_default()), &mut all);
    all
}

/// Returns the changes that a reload of `new` and a restart would make, and masks secrets.
fn changes(in_force: &Config, new: &Config) -> Vec<ConfigChange> {
    let mut applied = new.clone();
    let kept = applied.keep(in_force);
    let at_restart = differing(&applied, new);
    let needs_restart = |key: &str| {
        let is_below = |name: &String| key.strip_prefix(&**name).is_some_and(|rest| rest.starts_with(['.', '[']));
        at_restart.iter().chain(&kept).any(|name| name == key || is_below(name))
    };
    let (old_values, new_values) = (values(in_force), values(new));
    let mut keys = differing(in_force, new);
    keys.extend(changed_secrets(in_force, new, &new_values));
    let change = |key: String| ConfigChange {
        old: value_of(&old_values, &key),
        new: value_of(&new_values, &key),
        restart: needs_restart(&key),
        key,
    };
    keys.into_iter().map(change).collect()
}

/// Returns the keys of secrets that differ between the files. The masked values are equal.
fn changed_secrets(in_force: &Config, new: &Config, masked: &[(String, toml::Value)]) -> Vec<String> {
    let (old_file, new_file) = (values_in(in_force.source.text()), values_in(new.source.text()));
    let find = |all: &[(String, toml::Value)], key: &str| all.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let is_masked = |value: &toml::Value| value.as_str().is_some_and(|text| text.contains(MASKED));
    let secrets = masked.iter().filter(|(_, value)| is_masked(value)).map(|(key, _)| key);
    let was_there = values(in_force);
    let is_other = |key: &&String| {
        let (old, new) = (find(&old_file, key), find(&new_file, key));
        old.is_some() && new.is_some() && old != new && find(&was_there, key) == find(masked, key)
    };
    secrets.filter(is_other).cloned().collect()
}

/// Returns the value of a key. An element of a list of tables has the values of all its keys.
fn value_of(values: &[(String, toml::Value)], key: &str) -> Option<Value> {
    let json = |value: &toml::Value| serde_json::to_value(value).unwrap_or_default();
    if let Some((_, value)) = values.iter().find(|(known, _)| known == key) {
        return Some(json(value));
    }
    let part = |(known, value): &(String, toml::Value)| {
        let rest = known.strip_prefix(key)?.strip_prefix('.')?;
        Some((rest.to_owned(), json(value)))
    };
    let parts: serde_json::Map<_, _> = values.iter().filter_map(part).collect();
    (!parts.is_empty()).then_some(Value::Object(parts))
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

/// A setting whose value in the file differs from the value in use. Secrets are masked.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfigChange {
    pub(super) key: String,
    /// The value in use. Absent if the key is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old: Option<Value>,
    /// The value in the file. Absent if the key was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<Value>,
    /// Whether the new value needs a restart, or an in-place upgrade.
    pub(super) restart: bool,
}

/// The result of a check.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct CheckResult {
    pub(super) file: String,
    /// Whether a start or a reload would accept the configuration.
    pub(super) ok: bool,
    /// The problems for which a start or a reload would refuse the configuration.
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    /// The keys whose value differs from the value in use.
    changed: Vec<String>,
    /// The changed settings with their values.
    pub(super) changes: Vec<ConfigChange>,
    /// The value for `digest` of a reload of this file. Absent if the file is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
}

impl CheckResult {
    /// The changes that a reload applies, or those that need a restart.
    pub(super) fn changes_at(&self, restart: bool) -> impl Iterator<Item = &ConfigChange> {
        self.changes.iter().filter(move |change| change.restart == restart)
    }
}

/// Returns a keyed digest of the checked configuration and the one in force. Without the key, the digest does not help
/// to guess a secret in the file.
fn digest_of(in_force: &Config, checked: &Config) -> Option<String> {
    static KEY: LazyLock<Option<hmac::Key>> =
        LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());
    let mut texts = hmac::Context::with_key(KEY.as_ref()?);
    for config in [in_force, checked] {
        texts.update(config.source.text().as_bytes());
        texts.update(&[0]);
    }
    let digest = texts.sign();
    let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(digest)
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
            let changes = changes(&in_force, &config);
            let changed = changes.iter().map(|change| change.key.clone()).collect();
            CheckResult { warnings, changed, changes, digest: digest_of(&in_force, &config), ..found }
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

/// The parameters of a reload.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReloadQuery {
    /// The `digest` of a check. If the file or the configuration in use has changed since, the reload is refused with
    /// 409.
    pub(super) digest: Option<String>,
}

/// Reads the configuration again, as SIGHUP does, and waits until it takes effect. The status is 422, with a list of
/// the problems, if the configuration is invalid. In that case, the old configuration stays in use.
#[utoipa::path(
    post, path = "/v1/config/reload", operation_id = "reload_config", tag = "config", params(ReloadQuery),
    responses((status = 200, description = "done", body = ReloadResult))
)]
pub(super) async fn reload(state: &AdminState, query: ReloadQuery) -> Result<ReloadResult, Refusal> {
    let before = state.config.load_full();
    let file = before.source.file();
    let config = read_again(file).await.map_err(|errors| {
        state.outcomes.set(ReloadSource::Configuration, true);
        let what = format!("the configuration is invalid, so {KEPT}");
        Refusal::new(Code::InvalidConfiguration, what).with_errors(findings(&errors))
    })?;
    // The digest is of the text that is applied, so the file cannot change in between.
    if query.digest.is_some_and(|checked| Some(checked) != digest_of(&before, &config)) {
        let what = format!("{STALE}. Until then, {KEPT}");
        return Err(Refusal::new(Code::StaleCheck, what));
    }
    let wanted = config.clone();
    if !state.reloader.apply(config).await {
        let what = format!("the configuration was not applied, so {KEPT}; the log says why");
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
