//! Preparation of a start (requirement O12). The preparation does not bind sockets, lock the store or create files.
//! `rotogate check`, starts, reloads and upgrades all use [`prepare`] and thus apply the same rules.

use std::sync::Arc;

use serde::Serialize;

use super::files::LastRead;
use super::findings::Findings;
use super::issuers::{self, RemoteIssuers};
use super::mcp_probe;
#[cfg(any(feature = "postgres", feature = "redis"))]
use super::shared;
use rotogate::gate::GateBuilder;
use rotogate_config::{Config, ConfigError, ConfigErrors, DirectoryConfig};
use rotogate_core::directory::Directory;
use rotogate_core::password::Passwords;
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::IssuerRules;
use rotogate_directories::users::FileDirectory;
use rotogate_directories::{AccountDirectory, Directories, DirectoryMetrics, RemoteDirectory};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Inspected {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) directory: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) issuers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) store: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip)]
    pub(crate) warnings: Vec<ConfigError>,
}

/// A valid configuration with the files that were read.
#[derive(Debug)]
pub struct StartPlan {
    pub(crate) warnings: Vec<ConfigError>,
    /// The state of the files before they were read.
    pub(crate) last_read: Option<LastRead>,
    pub(crate) builder: GateBuilder,
    /// The issuers that `builder` uses.
    pub(crate) remote_issuers: RemoteIssuers,
    pub(crate) trusted: Vec<IssuerRules>,
    pub(crate) directories: Vec<DirectoryPlan>,
    pub(crate) metrics: DirectoryMetrics,
    pub(crate) passwords: Arc<Passwords>,
}

impl StartPlan {
    /// Returns a line per response.
    ///
    /// # Errors
    /// A system does not respond, or does not satisfy the configuration.
    pub(crate) async fn inspect(&self, config: &Config) -> Result<Inspected, ConfigErrors> {
        let (mut lines, mut wrong, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (section, planned) in config.directories.iter().zip(&self.directories) {
            let DirectoryPlan::Remote(directory) = planned else { continue };
            let found = match directory.inspect().await {
                Ok(found) => found,
                Err(message) => {
                    wrong.push(config.blame(&section.key, message));
                    continue;
                }
            };
            if let Some(key) = found.lacks_account
                && let Some(endpoint) = config.endpoints.iter().find(|endpoint| endpoint.may_have_account())
            {
                let message = format!(
                    "does not give users an account, so logins at {} with an account are refused (`no_account`), even \
                     if the password is correct",
                    endpoint.path
                );
                warnings.push(config.blame(&format!("{}.{key}", section.key), message));
            }
            let named = config.directories.len() > 1;
            let line = |line| if named { format!("{}: {line}", section.name) } else { line };
            lines.extend(found.lines.into_iter().map(line));
        }
        #[cfg(any(feature = "postgres", feature = "redis"))]
        let store = shared::inspect(config).await;
        #[cfg(not(any(feature = "postgres", feature = "redis")))]
        let store: Result<_, ConfigErrors> = Ok(Vec::new());
        let mut wrong = ConfigErrors::new(wrong);
        let mut good = |found: Result<Vec<String>, ConfigErrors>| {
            found.unwrap_or_else(|errors| {
                wrong = wrong.take().into_iter().chain([errors]).reduce(ConfigErrors::and);
                Vec::new()
            })
        };
        let issuers = issuers::inspect(config).await.map(|(lines, more)| {
            warnings.extend(more);
            lines
        });
        let issuers = good(issuers);
        let store = good(store);
        let resources = good(mcp_probe::inspect(config).await);
        wrong.map_or(Ok(Inspected { issuers, directory: lines, store, resources, warnings }), Err)
    }
}

/// Prepares a start. Must be called within a Tokio runtime.
///
/// # Errors
/// Every problem that would make a start fail, with its line and key.
pub async fn prepare(config: &Config) -> Result<StartPlan, ConfigErrors> {
    let last_read = LastRead::new(config);
    let mut findings = Findings::new(config);
    findings.suspicious();
    let keyring = findings.keys();
    findings.store();
    findings.logs();
    findings.admin_token();
    findings.certificates();
    #[cfg(feature = "otel")]
    findings.tracing();
    let trusted = findings.trusted();
    let passwords = Arc::new(Passwords::new(config.limits.max_password_checks, config.limits.password_queue));
    let metrics = DirectoryMetrics::default();
    let directories = findings.directories(&passwords, &metrics);
    let remote_issuers = RemoteIssuers::default();
    let builder = findings.builder(&remote_issuers);
    // If the rules of an issuer are missing, the trial build would also report each route that names this issuer.
    let is_whole = trusted.len() == config.issuers.len();
    if is_whole
        && let Ok(builder) = builder.clone()
        && let Some(keyring) = keyring.or_else(|| Keyring::generate(Algorithm::EdDsa).ok())
    {
        let builder = trusted.iter().cloned().fold(builder, GateBuilder::trusted_issuer);
        let builder = builder.keys(keyring).passwords(Arc::clone(&passwords));
        let trial = match shared(config, &directories, &passwords) {
            Some(directory) => builder.directory(directory),
            None => builder,
        };
        findings.gate(trial).await;
    }
    let Findings { warnings, wrong, .. } = findings;
    let last_read = Some(last_read);
    match (ConfigErrors::new(wrong), builder) {
        (None, Ok(builder)) => {
            Ok(StartPlan { warnings, last_read, builder, remote_issuers, trusted, directories, metrics, passwords })
        }
        (Some(wrong), Ok(_)) | (None, Err(wrong)) => Err(wrong),
        (Some(wrong), Err(more)) => Err(wrong.and(more)),
    }
}

/// Returns `None` if the only directory is a users file that does not exist yet.
fn shared(config: &Config, planned: &[DirectoryPlan], passwords: &Arc<Passwords>) -> Option<Arc<dyn Directory>> {
    let entry = |(section, planned): (&DirectoryConfig, &DirectoryPlan)| {
        Some(AccountDirectory { accounts: section.accounts.clone(), directory: planned.directory()? })
    };
    let all: Vec<_> = config.directories.iter().zip(planned).filter_map(entry).collect();
    if all.is_empty() { None } else { Some(Arc::new(Directories::new(all, Arc::clone(passwords)))) }
}

#[derive(Debug)]
pub(crate) enum DirectoryPlan {
    File(Arc<FileDirectory>),
    NewFile,
    Remote(RemoteDirectory),
}

impl DirectoryPlan {
    pub(crate) fn directory(&self) -> Option<Arc<dyn Directory>> {
        match self {
            Self::File(directory) => Some(Arc::clone(directory) as _),
            Self::NewFile => None,
            Self::Remote(directory) => Some(Arc::new(directory.clone())),
        }
    }
}
