//! The reloads of a running gate. When files change, the gate reloads its own keys, the keys of trusted issuers and
//! clients, its credentials at providers, and certificates. On SIGHUP, [`config`] applies those keys of `gateway.toml`
//! that a reload can apply. The users file has its own watcher. If a file is invalid, the old content stays in use, and
//! the problem is logged once for each change. An invalid file of one issuer or listener does not affect other issuers
//! or listeners.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use self::in_force::{InForce, ListenerInForce};
pub(crate) use self::outcomes::{Outcomes, ReloadSource};
use crate::audit;
use crate::server::build::files::{self, FileGroup, LastRead};
use crate::server::build::issuer_rules::load_issuer_and_log;
use crate::server::build::prepare::prepare;
use crate::server::error::ServerError;
use crate::server::listen::tls::Tls;
use rotogate::Gate;
use rotogate::gate::PreparedKeys;
use rotogate_config::{Config, ConfigErrors, ProcessEnv, TrustedIssuer};
use rotogate_core::clock::Timestamp;
use rotogate_core::context::{Context, inherited};
use rotogate_core::fault::Chain;
use rotogate_core::task::TaskGuard;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::IssuerRules;
use rotogate_kit::file_stamp::CHECK_INTERVAL;

mod config;
mod in_force;
mod outcomes;

/// How long the keys of an issuer stay in use while its file is invalid or missing. After that, the issuer's tokens are
/// refused. Otherwise an invalid file could keep a removed key in use forever.
const BROKEN_KEYS_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Reads a configuration again, and checks it as a start does. Logs the errors.
///
/// # Errors
/// Returns every problem that would make a start fail.
pub async fn read_again(path: &Path) -> Result<Config, ConfigErrors> {
    let read = async {
        let config = rotogate_config::load(path, &ProcessEnv)?;
        let plan = prepare(&config).await?;
        Ok(Config { warnings: plan.warnings, ..config })
    };
    read.await.inspect_err(|errors: &ConfigErrors| {
        tracing::error!(
            target: "rotogate::audit",
            event = "config_reload_refused",
            %errors,
            "configuration invalid; the old one stays in force"
        );
    })
}

/// A running gate, and the state that only its reloads need.
struct Reloadable {
    in_force: Arc<InForce>,
    /// The gate with the current rules.
    gate: Gate,
    /// The trusted issuers, in the order of the configuration.
    trusted: Vec<IssuerState>,
}

/// A trusted issuer.
#[derive(Clone)]
struct IssuerState {
    rules: IssuerRules,
    /// The time since which the issuer's file has been unusable.
    broken_since: Option<Timestamp>,
    /// Whether the keys were dropped because the file has been unusable for [`BROKEN_KEYS_GRACE`].
    dropped: bool,
}

impl IssuerState {
    fn new(rules: IssuerRules) -> Self {
        Self { rules, broken_since: None, dropped: false }
    }

    /// Returns the rules of all issuers whose keys are not dropped.
    fn in_force(all: &[Self]) -> Vec<IssuerRules> {
        all.iter().filter(|trusted| !trusted.dropped).map(|trusted| trusted.rules.clone()).collect()
    }

    fn is_over(&self) -> bool {
        self.broken_since.is_some_and(|since| files::now() >= since.plus(BROKEN_KEYS_GRACE))
    }
}

/// A configuration to apply.
#[derive(Debug)]
struct ReloadRequest {
    config: Config,
    /// The operator's request, for the audit log.
    context: Option<Context>,
    /// Notifies the caller that waits for the outcome of the reload.
    done: Option<oneshot::Sender<bool>>,
}

/// The task that watches files and applies configurations. If this value is dropped, the task ends.
#[derive(Debug)]
pub(crate) struct ReloadTask {
    _task: TaskGuard,
    asks: Reloader,
    in_force: Arc<InForce>,
}

/// A handle with which to request that the task applies a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Reloader(mpsc::Sender<ReloadRequest>);

impl Reloader {
    /// Applies another configuration, as far as a reload can. Returns whether it was applied. If not, the log contains
    /// the reason.
    pub(crate) async fn apply(&self, config: Config) -> bool {
        let (done, is_done) = oneshot::channel();
        let asked = ReloadRequest { config, context: Context::current(), done: Some(done) };
        // Sending fails while the gate stops.
        self.0.send(asked).await.is_ok() && is_done.await.unwrap_or(false)
    }
}

impl ReloadTask {
    /// Applies another configuration, as far as a reload can.
    pub(crate) async fn apply(&self, config: Config) {
        // The task lives as long as this handle.
        let _ = self.asks.0.send(ReloadRequest { config, context: None, done: None }).await;
    }

    /// Returns a handle for requesting reloads from this task.
    pub(crate) fn reloader(&self) -> Reloader {
        self.asks.clone()
    }

    /// Records that another configuration is invalid.
    pub(crate) fn refuse(&self) {
        self.in_force.outcomes.set(ReloadSource::Configuration, true);
    }
}

/// Starts to watch the gate's keys, the keys of trusted issuers, and certificates. `last_read` is the state of the
/// files before they were first read.
pub(crate) fn watch(in_force: &Arc<InForce>, mut last_read: LastRead) -> ReloadTask {
    let mut reloadable = Reloadable {
        in_force: Arc::clone(in_force),
        gate: in_force.gate.clone(),
        trusted: in_force.trusted.iter().cloned().map(IssuerState::new).collect(),
    };
    let told = Arc::clone(in_force);
    let (configs, mut asked) = mpsc::channel::<ReloadRequest>(1);
    let task = TaskGuard::spawn(async move {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                asked = asked.recv() => {
                    let Some(ReloadRequest { config, context, done }) = asked else { return };
                    let is_applied = inherited(context, reloadable.apply(config, &mut last_read)).await;
                    told.outcomes.set(ReloadSource::Configuration, !is_applied);
                    // The caller may have stopped waiting.
                    let _ = done.map(|done| done.send(is_applied));
                }
                _ = checks.tick() => reloadable.poll_files(&mut last_read).await,
            }
            told.outcomes.follow(&last_read);
        }
    });
    ReloadTask { _task: task, asks: Reloader(configs), in_force: Arc::clone(in_force) }
}

impl Reloadable {
    /// Reloads the files that changed.
    async fn poll_files(&mut self, last_read: &mut LastRead) {
        let config = self.in_force.config.load_full();
        self.poll_keys(&config, last_read);
        let listeners = config.listeners().zip(&self.in_force.listeners);
        for ((config, listener), group) in listeners.zip(&mut last_read.certificates) {
            if let Some(tls) = &listener.tls
                && group.changed(|| files::of_listener(config)).is_some()
            {
                reload_certificates(tls, group);
            }
        }
        if let Some(changed) = last_read.upstreams.changed(|| files::of_upstreams(&config)) {
            match self.read_upstream_files(&config, &changed) {
                Ok(()) => {
                    let files: Vec<_> = changed.iter().map(|file| file.to_string_lossy()).collect();
                    let files = files.join(", ");
                    tracing::info!(files, "files of upstreams reloaded");
                    last_read.upstreams.mark_applied();
                }
                Err(error) if last_read.upstreams.mark_refused() => {
                    tracing::error!(%error, "files of upstreams changed but cannot be used; the old ones stay in \
                                             force");
                }
                Err(_) => {}
            }
        }
        if last_read.clients.changed(|| files::of_clients(&config)).is_some() {
            // Installing the same configuration again rebuilds the clients and endpoints, and they then read their
            // files again.
            match self.install(&config, &config).await {
                Ok(()) => {
                    tracing::info!("files of clients and providers reloaded");
                    last_read.clients.mark_applied();
                }
                Err(error) if last_read.clients.mark_refused() => tracing::error!(
                    %error,
                    "files of clients or providers changed but cannot be used; the old ones stay in force"
                ),
                Err(_) => {}
            }
        }
    }

    /// Reads certificates, keys and credentials for upstreams again.
    fn read_upstream_files(&self, config: &Config, changed: &[PathBuf]) -> Result<(), ServerError> {
        let serving = self.in_force.serving.load();
        let proxy = serving.proxy.with_files(changed).map_err(ServerError::part)?;
        self.in_force.serving.store(Arc::new(serving.with_proxy(config, proxy)?));
        Ok(())
    }

    /// Reloads the gate's keys and the keys of each trusted issuer separately, so that one invalid file does not
    /// prevent the reload of other keys.
    fn poll_keys(&mut self, config: &Config, last_read: &mut LastRead) {
        let own = read_own_keys(config, &mut last_read.own);
        let issuers = config.issuers.iter().zip(&mut last_read.issuers).enumerate();
        let issuers = issuers.filter_map(|(at, (issuer, group))| self.poll_issuer(at, issuer, group).then_some(at));
        let issuers: Vec<_> = issuers.collect();
        if own.is_none() && issuers.is_empty() {
            return;
        }
        let former = self.gate.keyring();
        let keyring = own.clone().unwrap_or_else(|| Arc::clone(&former));
        match PreparedKeys::new(&self.gate, keyring, IssuerState::in_force(&self.trusted)) {
            Ok(keys) => {
                let other = keys.put_in_force(&self.gate);
                if own.is_some() {
                    last_read.own.mark_applied();
                    let signing = self.gate.keyring().signer().kid().to_owned();
                    tracing::info!(keys = %config.issuer.keys.display(), signing, "the gate's own keys reloaded");
                    audit::write_found_keys(&former, &self.gate.keyring());
                }
                for index in issuers {
                    let (Some(issuer), Some(group)) = (config.issuers.get(index), last_read.issuers.get_mut(index))
                    else {
                        continue;
                    };
                    if self.trusted.get(index).is_some_and(|trusted| trusted.broken_since.is_none()) {
                        group.mark_applied();
                        tracing::info!(issuer = %issuer.url, other, "issuer keys reloaded");
                    }
                }
            }
            Err(error) => {
                if own.is_some() {
                    last_read.own.mark_refused();
                }
                tracing::error!(
                    error = ?Chain(&error),
                    "keys changed but cannot be used; the old ones stay in force. Correct the key or the \
                     `[[issuers]]` entry that `error` names"
                );
            }
        }
    }

    /// Reads the files of an issuer if they changed. Returns whether its rules differ from the current ones.
    fn poll_issuer(&mut self, index: usize, issuer: &TrustedIssuer, group: &mut FileGroup) -> bool {
        let Some(trusted) = self.trusted.get_mut(index) else { return false };
        let mut differs = false;
        if group.changed(|| files::of_issuer(issuer)).is_some() {
            match load_issuer_and_log(issuer) {
                Ok(mut rules) => {
                    self.in_force.remote_issuers.renew(&mut rules, issuer);
                    *trusted = IssuerState::new(rules);
                    differs = true;
                }
                Err(error) => {
                    trusted.broken_since.get_or_insert_with(files::now);
                    if group.mark_refused() {
                        let until = humantime::format_duration(BROKEN_KEYS_GRACE);
                        tracing::error!(
                            %error,
                            issuer = %issuer.url,
                            "issuer keys changed but cannot be used; the old ones stay in force for {until}"
                        );
                    }
                }
            }
        }
        if !group.is_refused() {
            trusted.broken_since = None;
        }
        if trusted.is_over() != trusted.dropped {
            trusted.dropped = trusted.is_over();
            differs = true;
            if trusted.dropped {
                tracing::error!(
                    issuer = %issuer.url,
                    "issuer keys broken for a day, so the issuer's tokens are refused. Correct the file that \
                     `rotogate check` names"
                );
            }
        }
        differs
    }
}

/// Returns the gate's own keys, if their files changed and can be used.
fn read_own_keys(config: &Config, group: &mut FileGroup) -> Option<Arc<Keyring>> {
    group.changed(|| files::own(config))?;
    match Keyring::load(&config.issuer.keys) {
        Ok(keys) => return Some(Arc::new(keys)),
        Err(error) if group.mark_refused() => tracing::error!(
            error = ?Chain(&error),
            "the gate's own keys changed but cannot be used; the old ones stay in force"
        ),
        Err(_) => {}
    }
    None
}

/// Reloads certificates. A certificate and its key do not match while only one of the two files has been replaced. In
/// that case, the next check finds both files replaced.
fn reload_certificates(tls: &Tls, group: &mut FileGroup) {
    match tls.reload() {
        Ok(()) => {
            tracing::info!(key = tls.key(), "certificates reloaded");
            group.mark_applied();
        }
        Err(error) if group.mark_refused() => {
            tracing::error!(%error, "certificates changed but cannot be used; the old ones stay in force");
        }
        Err(_) => {}
    }
}
