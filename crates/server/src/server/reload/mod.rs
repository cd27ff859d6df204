//! What a running gate takes up without a stop: keys, the keys of other issuers and certificates when their files change,
//! and of `gateway.toml`, when it is told to, what [`config`] can apply. Users are watched by their directory. What is
//! broken is not taken: the old one stays, and the log says so, once for each change. What belongs to one issuer or
//! listener concerns no other.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

pub(super) use self::files::Seen;
use super::addresses::Addresses;
use super::assemble;
use super::connection::Limits;
use super::listener::Listener;
use super::tls::Tls;
use crate::config::Config;
use crate::proxy::Proxy;
use crate::stamp::LOOK_EVERY;
use rotogate::clock::Timestamp;
use rotogate::gate::Gate;
use rotogate::token::keyring::Keyring;
use rotogate::token::verify::IssuerRules;

mod config;
mod files;

/// For so long the keys of another issuer stay in force whose file is broken or gone. Then its tokens are refused: a key
/// that was to be taken out does not stay because of a file that nobody mends.
const BROKEN_FOR: Duration = Duration::from_secs(24 * 3600);

/// What of the gate can be another while it runs.
pub(super) struct Live {
    /// In force.
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) gate: Gate,
    pub(super) proxy: Proxy,
    pub(super) limits: Arc<Limits>,
    /// In the order of the configuration.
    pub(super) listeners: Vec<OfListener>,
    /// The issuers trusted besides us, in the order of the configuration.
    pub(super) trusted: Vec<Trusted>,
}

/// An issuer trusted besides us.
pub(super) struct Trusted {
    rules: IssuerRules,
    /// Since when its file says something else, which cannot be used.
    broken_since: Option<Timestamp>,
    /// That was too long ago.
    dropped: bool,
}

impl Trusted {
    pub(super) fn new(rules: IssuerRules) -> Self {
        Self { rules, broken_since: None, dropped: false }
    }

    fn is_over(&self) -> bool {
        self.broken_since.is_some_and(|since| files::now() >= since.plus(BROKEN_FOR))
    }
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

/// Watches our own keys, the files of other issuers' keys, and those of certificates, which were `seen` before they were
/// read.
pub(super) fn watch(mut live: Live, mut seen: Seen) -> Watching {
    let (configs, mut asked) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                config = asked.recv() => {
                    let Some(config) = config else { return };
                    live.take(config, &mut seen);
                }
                _ = looks.tick() => live.look(&mut seen),
            }
        }
    });
    Watching { configs, task }
}

impl Live {
    /// Reads again what changed.
    fn look(&mut self, seen: &mut Seen) {
        let config = self.config.load_full();
        self.look_at_keys(&config, seen);
        let listeners = config.server.listeners.iter().zip(&self.listeners);
        for ((config, listener), group) in listeners.zip(&mut seen.certificates) {
            if let Some(tls) = &listener.tls
                && group.changed(|| files::of_listener(config)).is_some()
            {
                reload_certificates(tls, group);
            }
        }
        if let Some(changed) = seen.upstreams.changed(|| files::of_upstreams(&config)) {
            match self.proxy.reload_certificates(&changed) {
                Ok(()) => {
                    let files: Vec<_> = changed.iter().map(|file| file.to_string_lossy()).collect();
                    let files = files.join(", ");
                    tracing::info!(files, "certificates towards upstreams changed and were read again");
                    seen.upstreams.taken();
                }
                Err(error) if seen.upstreams.refuse() => tracing::error!(
                    error = ?rotogate::fault::Chain(&error),
                    "certificates towards upstreams changed but cannot be used; the old ones stay in force"
                ),
                Err(_) => {}
            }
        }
    }

    /// Keys of ours and of other issuers, each for itself: what is broken of one keeps no key of another in force.
    fn look_at_keys(&mut self, config: &Config, seen: &mut Seen) {
        let mut own = None;
        if seen.own.changed(|| files::own(config)).is_some() {
            match Keyring::load(&config.issuer.keys) {
                Ok(keys) => own = Some(Arc::new(keys)),
                Err(error) if seen.own.refuse() => tracing::error!(
                    error = ?rotogate::fault::Chain(&error),
                    "our keys changed but cannot be used; the old ones stay in force"
                ),
                Err(_) => {}
            }
        }
        let mut issuers = Vec::new();
        for (place, (issuer, group)) in config.issuers.iter().zip(&mut seen.issuers).enumerate() {
            let Some(trusted) = self.trusted.get_mut(place) else { continue };
            if group.changed(|| files::of_issuer(issuer)).is_some() {
                match assemble::trusted_issuer_again(issuer) {
                    Ok(rules) => {
                        *trusted = Trusted::new(rules);
                        issuers.push(place);
                    }
                    Err(error) => {
                        trusted.broken_since.get_or_insert_with(files::now);
                        if group.refuse() {
                            let until = humantime::format_duration(BROKEN_FOR);
                            tracing::error!(
                                %error,
                                issuer = %issuer.url,
                                "the keys of an issuer changed but cannot be used; the old ones stay in force for {until}"
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
                issuers.push(place);
                if trusted.dropped {
                    tracing::error!(
                        issuer = %issuer.url,
                        "the file of an issuer's keys has been broken for too long: its tokens are refused"
                    );
                }
            }
        }
        if own.is_none() && issuers.is_empty() {
            return;
        }
        let keyring = own.clone().unwrap_or_else(|| self.gate.keyring());
        let rules = self.trusted.iter().filter(|trusted| !trusted.dropped).map(|trusted| trusted.rules.clone());
        match self.gate.swap_keys(keyring, rules.collect()) {
            Ok(other) => {
                if own.is_some() {
                    seen.own.taken();
                    let signing = self.gate.keyring().signer().kid().to_owned();
                    tracing::info!(keys = %config.issuer.keys.display(), signing, "our keys changed and were read again");
                }
                for place in issuers {
                    let (Some(issuer), Some(group)) = (config.issuers.get(place), seen.issuers.get_mut(place)) else {
                        continue;
                    };
                    if self.trusted.get(place).is_some_and(|trusted| trusted.broken_since.is_none()) {
                        group.taken();
                        tracing::info!(issuer = %issuer.url, other, "the keys of an issuer were read again");
                    }
                }
            }
            Err(error) => {
                if own.is_some() {
                    seen.own.refuse();
                }
                tracing::error!(
                    error = ?rotogate::fault::Chain(&error),
                    "the keys changed but cannot be used; the old ones stay in force"
                );
            }
        }
    }
}

/// Of a pair that is written one by one the first half does not fit yet.
fn reload_certificates(tls: &Tls, group: &mut files::Group) {
    match tls.reload() {
        Ok(()) => {
            tracing::info!(key = tls.key(), "certificates changed and were read again");
            group.taken();
        }
        Err(error) if group.refuse() => {
            tracing::error!(%error, "certificates changed but cannot be used; the old ones stay in force");
        }
        Err(_) => {}
    }
}
