//! Reloads of a running gate. Changed key files, credentials and certificates are read again. On SIGHUP, [`config`]
//! applies `gateway.toml`. An invalid file is logged once, and its old content stays in use.

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

/// How long an issuer's keys stay in use while its file is invalid or missing. Otherwise a removed key could stay in
/// use forever.
const BROKEN_KEYS_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Reads a configuration again, checks it as at startup, and logs the errors.
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

struct Reloadable {
    in_force: Arc<InForce>,
    gate: Gate,
    /// In the order of the configuration.
    trusted: Vec<IssuerState>,
}

#[derive(Clone)]
struct IssuerState {
    rules: IssuerRules,
    broken_since: Option<Timestamp>,
    /// Whether the keys were dropped after [`BROKEN_KEYS_GRACE`].
    dropped: bool,
}

impl IssuerState {
    fn new(rules: IssuerRules) -> Self {
        Self { rules, broken_since: None, dropped: false }
    }

    fn in_force(all: &[Self]) -> Vec<IssuerRules> {
        all.iter().filter(|trusted| !trusted.dropped).map(|trusted| trusted.rules.clone()).collect()
    }

    fn is_over(&self) -> bool {
        self.broken_since.is_some_and(|since| files::now() >= since.plus(BROKEN_KEYS_GRACE))
    }
}

#[derive(Debug)]
struct ReloadRequest {
    config: Config,
    context: Option<Context>,
    done: Option<oneshot::Sender<bool>>,
}

/// Watches files and applies configurations. Dropping this value ends the task.
#[derive(Debug)]
pub(crate) struct ReloadTask {
    _task: TaskGuard,
    asks: Reloader,
    in_force: Arc<InForce>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reloader(mpsc::Sender<ReloadRequest>);

impl Reloader {
    /// Applies a configuration, and returns whether this succeeded. The log contains the reason for a failure.
    pub(crate) async fn apply(&self, config: Config) -> bool {
        let (done, is_done) = oneshot::channel();
        let asked = ReloadRequest { config, context: Context::current(), done: Some(done) };
        // Sending fails while the gate stops.
        self.0.send(asked).await.is_ok() && is_done.await.unwrap_or(false)
    }
}

impl ReloadTask {
    pub(crate) async fn apply(&self, config: Config) {
        // The send cannot fail, because the task runs until this handle is dropped.
        let _ = self.asks.0.send(ReloadRequest { config, context: None, done: None }).await;
    }

    pub(crate) fn reloader(&self) -> Reloader {
        self.asks.clone()
    }

    pub(crate) fn refuse(&self) {
        self.in_force.outcomes.set(ReloadSource::Configuration, true);
    }
}

/// Starts to watch the files. `last_read` describes the files as they were before the gate first read them.
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
            // Installing the same configuration reads the files of clients and endpoints again.
            match self.install(&config, &config).await {
                Ok(()) => {
                    tracing::info!("client and provider files reloaded");
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

    fn read_upstream_files(&self, config: &Config, changed: &[PathBuf]) -> Result<(), ServerError> {
        let serving = self.in_force.serving.load();
        let proxy = serving.proxy.with_files(changed).map_err(ServerError::part)?;
        self.in_force.serving.store(Arc::new(serving.with_proxy(config, proxy)?));
        Ok(())
    }

    /// Reloads each key source separately, so that an invalid file does not affect the others.
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

/// Reloads certificates. If only one of the two files was replaced so far, they do not match until the next check.
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
