//! What a running gate takes up without a stop: keys, the keys of other issuers and certificates when their files change,
//! and of `gateway.toml`, when it is told to, what [`config`] can apply. Users are watched by their directory. What is
//! broken is not taken: the old one stays, and the log says so.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

pub(super) use self::files::Seen;
use super::ServerError;
use super::addresses::Addresses;
use super::assemble;
use super::connection::Limits;
use super::listener::Listener;
use super::shed::InFlight;
use super::tls::Tls;
use crate::config::Config;
use crate::gate::Gate;
use crate::proxy::Proxy;
use crate::token::keyring::Keyring;
use crate::token::verify::IssuerRules;

mod config;
mod files;

/// How long to wait for more changes after one: editors and importers write several files.
const SETTLE: Duration = Duration::from_millis(200);
/// After this long without any event the files are read again all the same: an event may be missed, and requirement J16
/// gives a removed key a second.
const ANYHOW: Duration = Duration::from_secs(30);

/// What of the gate can be another while it runs.
pub(super) struct Live {
    /// In force.
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) gate: Gate,
    pub(super) proxy: Proxy,
    pub(super) limits: Arc<Limits>,
    pub(super) in_flight: Arc<InFlight>,
    /// In the order of the configuration.
    pub(super) listeners: Vec<OfListener>,
    /// The rules for every issuer trusted besides us.
    pub(super) trusted: Vec<IssuerRules>,
}

/// What of a listener can be another.
pub(super) struct OfListener {
    tls: Option<Arc<Tls>>,
    addresses: Arc<Addresses>,
}

impl OfListener {
    pub(super) fn new(listener: &Listener) -> Self {
        Self { tls: listener.tls(), addresses: Arc::clone(listener.addresses()) }
    }
}

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watching {
    configs: mpsc::Sender<Config>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    /// Takes up another configuration, as far as that goes without a start.
    pub(super) async fn take(&self, config: Config) {
        // The task is there as long as this is.
        let _ = self.configs.send(config).await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the keyring's folder, the files of other issuers' keys, and those of certificates, which were `seen` before
/// they were read.
pub(super) fn watch(mut live: Live, mut seen: Seen) -> Result<Watching, ServerError> {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event, too, and we read them.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })
    .map_err(|error| ServerError::new(format!("files cannot be watched for changes: {error}")))?;
    follow(&mut watcher, &seen)?;
    let (configs, mut asked) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                config = asked.recv() => {
                    let Some(config) = config else { return };
                    if live.take(config, &mut seen) && let Err(error) = follow(&mut watcher, &seen) {
                        tracing::error!(%error, "changes of these files will be seen late");
                    }
                }
                changed = tokio::time::timeout(ANYHOW, changes.recv()) => {
                    if matches!(changed, Ok(None)) {
                        return;
                    }
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                    live.look(&mut seen);
                }
            }
        }
    });
    Ok(Watching { configs, task })
}

/// Has changes reported.
fn follow(watcher: &mut RecommendedWatcher, seen: &Seen) -> Result<(), ServerError> {
    for folder in seen.folders() {
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(|error| ServerError::new(format!("{} cannot be watched: {error}", folder.display())))?;
    }
    Ok(())
}

impl Live {
    /// Reads again what changed. What could not be used is tried again: mending a file's mode changes neither its size
    /// nor its time.
    fn look(&mut self, seen: &mut Seen) {
        let now = Seen::of(&self.config.load());
        if now.keys != seen.keys && self.reload_keys() {
            seen.keys = now.keys;
        }
        for ((listener, now), seen) in self.listeners.iter().zip(now.certificates).zip(&mut seen.certificates) {
            if let Some(tls) = &listener.tls
                && now != *seen
                && reload_certificates(tls)
            {
                *seen = now;
            }
        }
        let changed = files::changed(&seen.upstreams, &now.upstreams);
        if !changed.is_empty() {
            match self.proxy.reload_certificates(&changed) {
                Ok(()) => {
                    let files: Vec<_> = changed.iter().map(|file| file.to_string_lossy()).collect();
                    tracing::info!(
                        files = files.join(", "),
                        "certificates towards upstreams changed and were read again"
                    );
                    seen.upstreams = now.upstreams;
                }
                Err(error) => tracing::error!(
                    error = ?crate::denial::Chain(&error),
                    "certificates towards upstreams changed but cannot be used; the old ones stay in force"
                ),
            }
        }
    }

    /// False if anything of it could not be used. A broken file of another issuer does not keep a key of ours in force
    /// that was taken out.
    fn reload_keys(&mut self) -> bool {
        let refused = |error: &str| {
            tracing::error!(error, "the keys changed but cannot be used; the old ones stay in force");
            false
        };
        let config = self.config.load();
        let whole = match assemble::trusted_issuers(&config) {
            Ok(rules) => {
                self.trusted = rules;
                true
            }
            Err(error) => refused(&error.to_string()),
        };
        let keys = match Keyring::load(&config.issuer.keys) {
            Ok(keys) => keys,
            Err(error) => return refused(&error.to_string()),
        };
        match self.gate.set_keys(keys, self.trusted.clone()) {
            Ok(()) => tracing::info!(keys = %config.issuer.keys.display(), "the keys changed and were read again"),
            Err(error) => return refused(&error.to_string()),
        }
        whole
    }
}

/// False if they could not be used. Of a pair that is written one by one the first half does not fit yet.
fn reload_certificates(tls: &Tls) -> bool {
    match tls.reload() {
        Ok(()) => {
            tracing::info!(key = tls.key(), "certificates changed and were read again");
            true
        }
        Err(error) => {
            tracing::error!(error, "certificates changed but cannot be used; the old ones stay in force");
            false
        }
    }
}
