//! `rotogate check`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{At, Done, Failure, running, runtime};
use crate::config::{self, Config, ConfigError, ConfigErrors, ProcessEnv, StoreConfig};
use crate::server::{self, Taken};
use rotogate::private_file;

/// The addresses that the gate has which asks for this check, and which its successor need not find free. An older program
/// passes the variable over, because it does not begin like our others.
pub(super) const HELD: &str = "_ROTOGATE_HELD";
/// How long a running gate may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<At>,
    /// Where a gate would listen.
    listen: Vec<SocketAddr>,
    /// With `--print`.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

pub(super) fn run(path: &Path, print: bool, strict: bool, output: Output) -> Done {
    let config = config::load(path, &ProcessEnv).map_err(|errors| wrong(&errors))?;
    let warnings = runtime()?.block_on(check(&config)).map_err(|errors| wrong(&errors))?;
    let printed = print.then(|| config.to_toml());
    let checked = Checked {
        file: path,
        ok: true,
        warnings: warnings.iter().map(At::of).collect(),
        listen: config.server.addresses().chain([config.admin.listen]).collect(),
        configuration: printed.clone(),
    };
    output.write(&checked, || {
        // What is printed besides the configuration is a comment to it.
        let begin = if print { "# " } else { "" };
        let mut text: String = warnings.iter().map(|warning| format!("{begin}warning: {warning}\n")).collect();
        text.push_str(&format!("{begin}{}: good", path.display()));
        if let Some(printed) = printed {
            text.push('\n');
            text.push_str(printed.trim_end());
        }
        text
    })?;
    if strict && !warnings.is_empty() {
        return Err(Failure::Failed(format!("{}: {} warnings, and --strict", path.display(), warnings.len())));
    }
    Ok(())
}

/// What could not be looked at is neither good nor bad, and the exit code says so.
fn wrong(errors: &ConfigErrors) -> Failure {
    let mut at: Vec<ConfigError> = errors.iter().cloned().collect();
    for error in at.iter_mut().filter(|error| error.unchecked) {
        error.message = format!("not checked: {}", error.message);
    }
    Failure::Configuration(at)
}

async fn check(config: &Config) -> Result<Vec<ConfigError>, ConfigErrors> {
    let prepared = server::prepare(config).await;
    let (used, mut doubtful) = addresses(config).await;
    match (prepared, ConfigErrors::new(used)) {
        (Ok(prepared), None) => {
            let mut warnings = prepared.warnings;
            warnings.append(&mut doubtful);
            Ok(warnings)
        }
        (Err(wrong), None) | (Ok(_), Some(wrong)) => Err(wrong),
        (Err(wrong), Some(used)) => Err(wrong.and(used)),
    }
}

/// Which addresses another program has, and which one has of which it cannot be said whether it is the gate that runs on
/// this configuration.
async fn addresses(config: &Config) -> (Vec<ConfigError>, Vec<ConfigError>) {
    let held = std::env::var(HELD).unwrap_or_default();
    let held: Vec<SocketAddr> = held.split(',').filter_map(|address| address.parse().ok()).collect();
    let mut taken = server::taken(config, &held);
    let mut may_be_ours = false;
    if taken.iter().any(|taken| taken.is_in_use) {
        match of_running_gate(config).await {
            Some(ours) => taken.retain(|taken| !(taken.is_in_use && ours.contains(&taken.address))),
            None => may_be_ours = store_is_in_use(config),
        }
    }
    let (mut wrong, mut doubtful) = (Vec::new(), Vec::new());
    for Taken { key, address, is_denied, is_in_use, message } in taken {
        if is_in_use && may_be_ours {
            let what = format!(
                "{address} is in use: by the gate that runs on this store, as it seems, but that does not answer on {} \
                 (admin.listen)",
                config.admin.listen
            );
            doubtful.push(config.blame(&key, what));
        } else {
            wrong.push(ConfigError { unchecked: is_denied, ..config.blame(&key, message) });
        }
    }
    (wrong, doubtful)
}

#[derive(Deserialize)]
struct Status {
    listeners: Vec<SocketAddr>,
}

/// Where the gate listens that runs on this configuration: it knows our admin token. `None` if none answers.
async fn of_running_gate(config: &Config) -> Option<Vec<SocketAddr>> {
    let asked = async {
        let response = running::ask(config, Method::GET, "/v1/status").await.ok().flatten()?;
        let body = running::read(response).await.ok()?;
        serde_json::from_slice::<Status>(&body).ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().map(|status| status.listeners)
}

fn store_is_in_use(config: &Config) -> bool {
    let StoreConfig::Redb { path, .. } = &config.store else { return false };
    let file = private_file::open_private(path, false);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}
