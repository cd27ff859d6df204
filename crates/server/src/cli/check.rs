//! `rotogate check`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{At, CommandResult, Failure, admin_client, runtime};
use crate::server::{self, Inspected, UnavailableAddress};
use rotogate_config::{Config, ConfigError, ConfigErrors, ProcessEnv, RedbSettings, StoreConfig};
use rotogate_core::private_file;

/// The environment variable with the addresses that the running gate occupies, and which need not be free. Older
/// programs ignore the variable because of its prefix.
pub(super) const HELD_VAR: &str = "_ROTOGATE_HELD";
/// How long the check waits for the status of a running gate.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct CheckReport<'a> {
    file: &'a Path,
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<At>,
    listen: Vec<SocketAddr>,
    /// The relays that keep responses until their tokens are used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    relays: Vec<KeepingRelay<'a>>,
    /// The results of `--online`.
    #[serde(flatten)]
    found: &'a Inspected,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

/// A relay, and the routes on which its tokens are used.
#[derive(Serialize)]
struct KeepingRelay<'a> {
    path: &'a str,
    routes: Vec<&'a str>,
}

/// The options of the command.
#[derive(Clone, Copy)]
pub(super) struct CheckOptions {
    pub(super) print: bool,
    pub(super) strict: bool,
    pub(super) online: bool,
}

pub(super) fn run(path: &Path, options: CheckOptions, output: Output) -> CommandResult {
    let CheckOptions { print, strict, online } = options;
    let config = rotogate_config::load(path, &ProcessEnv).map_err(|errors| wrong(&errors))?;
    let (warnings, found) = runtime()?.block_on(check(&config, online)).map_err(|errors| wrong(&errors))?;
    let printed = print.then(|| config.to_toml());
    let checked = CheckReport {
        file: path,
        ok: true,
        warnings: warnings.iter().map(At::new).collect(),
        listen: config.addresses().map(|(address, _)| address).collect(),
        relays: config.relay_routes().into_iter().map(|(path, routes)| KeepingRelay { path, routes }).collect(),
        found: &found,
        configuration: printed.clone(),
    };
    output.write(&checked, || {
        // With `--print`, all lines outside the configuration become TOML comments.
        let begin = if print { "# " } else { "" };
        let mut text: String = warnings.iter().map(|warning| format!("{begin}warning: {warning}\n")).collect();
        text.extend(found.directory.iter().map(|line| format!("{begin}directory: {line}\n")));
        text.extend(found.issuers.iter().map(|line| format!("{begin}{line}\n")));
        text.extend(found.store.iter().map(|line| format!("{begin}store: {line}\n")));
        text.extend(found.resources.iter().map(|line| format!("{begin}resource {line}\n")));
        for KeepingRelay { path, routes } in checked.relays.iter().filter(|relay| !relay.routes.is_empty()) {
            text.push_str(&format!("{begin}relay {path}: keeps a response until a token is used on "));
            text.push_str(&format!("{}\n", routes.join(", ")));
        }
        text.push_str(&format!("{begin}{}: valid", path.display()));
        if let Some(printed) = printed {
            text.push('\n');
            text.push_str(printed.trim_end());
        }
        text
    })?;
    if strict && !warnings.is_empty() {
        return Err(Failure::Failed(format!(
            "{}: {} warnings, which `--strict` treats as errors",
            path.display(),
            warnings.len()
        )));
    }
    Ok(())
}

/// The exit code is different if some files could not be examined.
fn wrong(errors: &ConfigErrors) -> Failure {
    let mut at: Vec<ConfigError> = errors.iter().cloned().collect();
    for error in at.iter_mut().filter(|error| error.unchecked) {
        error.message = format!("not checked: {}", error.message);
    }
    Failure::Configuration(at)
}

/// Returns the warnings, and the results of `--online`.
async fn check(config: &Config, online: bool) -> Result<(Vec<ConfigError>, Inspected), ConfigErrors> {
    let plan = server::prepare(config).await;
    let (used, mut warnings) = addresses(config).await;
    match (plan, ConfigErrors::new(used)) {
        (Ok(plan), None) => {
            let mut found = if online { plan.inspect(config).await? } else { Inspected::default() };
            let mut all = plan.warnings;
            all.append(&mut found.warnings);
            all.append(&mut warnings);
            Ok((all, found))
        }
        (Err(wrong), None) | (Ok(_), Some(wrong)) => Err(wrong),
        (Err(wrong), Some(used)) => Err(wrong.and(used)),
    }
}

/// Returns errors for occupied addresses, and warnings for addresses that may belong to the running gate.
async fn addresses(config: &Config) -> (Vec<ConfigError>, Vec<ConfigError>) {
    let held = std::env::var(HELD_VAR).unwrap_or_default();
    let held: Vec<SocketAddr> = held.split(',').filter_map(|address| address.parse().ok()).collect();
    let mut unavailable = server::unavailable_addresses(config, &held);
    let mut may_be_ours = false;
    if unavailable.iter().any(|unavailable| unavailable.is_in_use) {
        match running_gate_addresses(config).await {
            Some(ours) => {
                unavailable.retain(|taken| !(taken.is_in_use && ours.contains(&taken.address)));
            }
            None => may_be_ours = store_is_in_use(config),
        }
    }
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    for UnavailableAddress { key, address, is_denied, is_in_use, message } in unavailable {
        if is_in_use && may_be_ours {
            let what = format!(
                "{address} is in use, probably by the gate that runs on this store, but no gate responds on {} \
                 (`admin.listen`)",
                config.admin.listen
            );
            warnings.push(config.blame(&key, what));
        } else {
            wrong.push(ConfigError { unchecked: is_denied, ..config.blame(&key, message) });
        }
    }
    (wrong, warnings)
}

#[derive(Deserialize)]
struct StatusReply {
    listeners: Vec<SocketAddr>,
}

async fn running_gate_addresses(config: &Config) -> Option<Vec<SocketAddr>> {
    let gate = config.admin.access();
    let asked = admin_client::request(&gate, Method::GET, "/v1/status");
    let StatusReply { listeners } = tokio::time::timeout(STATUS_TIMEOUT, asked).await.ok()?.ok()?;
    Some(listeners)
}

fn store_is_in_use(config: &Config) -> bool {
    let StoreConfig::Redb(RedbSettings { path, .. }) = &config.store else { return false };
    let file = private_file::open_private(path, false);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}
