//! Applies another `gateway.toml` to a running gate, completely or not at all. Keys that are read only at startup keep
//! their value, and the log names the changed ones.

use std::sync::Arc;

use super::{IssuerState, Reloadable};
use crate::server::build::assemble;
use crate::server::build::files::{FileGroup, LastRead};
use crate::server::build::issuer_rules::load_issuer_and_log;
use crate::server::build::issuers::NextIssuers;
use crate::server::error::{KeyFault, ServerError};
use crate::server::listen::tls::Tls;
use crate::trace::Tracer;
use crate::{audit, log};
use rotogate::gate::PreparedKeys;
use rotogate_config::{AccessLogConfig, AuditLogConfig, Config, DeclaredKeys, LogConfig, TrustedIssuer};

impl Reloadable {
    /// Applies every key that a reload can apply. If one value is unusable, nothing changes and the result is `false`.
    pub(super) async fn apply(&mut self, new: Config, last_read: &mut LastRead) -> bool {
        let old = self.in_force.config.load_full();
        let mut now = new;
        let restart_only = now.keep(&old);
        let read = LastRead::new(&now);
        if let Err(error) = self.install(&old, &now).await {
            tracing::error!(
                target: "rotogate::audit",
                event = "config_reload_refused",
                %error,
                "configuration not applied; the old one stays in force"
            );
            return false;
        }
        let changed = now.changed(&old);
        tracing::info!(
            target: "rotogate::audit",
            event = "config_reload",
            changed = listed(&changed),
            config.hash = now.hash(),
            config.hash_before = old.hash(),
            "configuration reloaded"
        );
        audit::write_changed_clients(&old.clients, &now.clients);
        if !restart_only.is_empty() {
            Arc::make_mut(&mut now.source).keep_text(&old.source);
            tracing::warn!(
                keys = restart_only.join(", "),
                "restart needed for changed keys of gateway.toml: restart the gate, or upgrade it in place with SIGUSR2"
            );
        }
        last_read.certificates.iter_mut().zip(read.certificates).for_each(|(group, read)| group.follow(read));
        last_read.upstreams.follow(read.upstreams);
        last_read.clients.follow(read.clients);
        follow_issuers(&old, &now, &mut last_read.issuers, read.issuers);
        self.in_force.config.store(Arc::new(now));
        true
    }

    /// Prepares all parts before it uses any of them, because the preparation can fail.
    pub(super) async fn install(&mut self, old: &Config, now: &Config) -> Result<(), ServerError> {
        let in_force = Arc::clone(&self.in_force);
        let mut loaded = Vec::new();
        let of_listeners = in_force.listeners.iter().zip(old.listeners().zip(now.listeners()));
        for (listener, (old, now)) in of_listeners.clone() {
            if let (Some(tls), Some(config)) = (&listener.tls, &now.tls)
                && old.tls != now.tls
            {
                loaded.push((tls, Tls::load(config)?));
            }
        }
        let directories = in_force.directories.prepare(&now.directories)?;
        let is_same = now.issuers == old.issuers && now.clients == old.clients;
        let issuers = if is_same { None } else { Some(self.issuers(old, now).await?) };
        let upstreams = (now.upstreams.clone(), now.server.trusted_proxies.clone());
        let serving = in_force.serving.load();
        let proxy = serving.proxy.with_upstreams(upstreams.0, upstreams.1).map_err(ServerError::part)?;
        let states = issuers.as_ref().map_or(&self.trusted, |issuers| &issuers.states);
        let builder = assemble::builder(now, &in_force.remote_issuers)?;
        let builder = match &issuers {
            Some(issuers) => issuers.remote.given_to(builder, now),
            None => in_force.remote_issuers.given_to(builder, now),
        };
        let builder = states.iter().fold(builder, |builder, state| builder.trusted_issuer(state.rules.clone()));
        let rules = self.gate.prepare_rules(builder).map_err(ServerError::part)?;
        let state = serving.replaced_by(now, rules.gate().clone(), proxy)?;
        let tracer = Tracer::start(now, serving.tracer.as_ref());
        let state = state.traced_by(tracer.map_err(|(key, message)| KeyFault::new(key, message))?);
        if logs_of(now) != logs_of(old) {
            let filter = log::filter(now.log.level).map_err(ServerError::Unusable)?;
            let lines = (now.server.workers.get(), now.issuer.url.as_str());
            let logs = log::prepare(&now.log, &now.access_log, &now.audit_log, lines, filter);
            let logs = logs.map_err(|error| ServerError::Unusable(error.to_string()))?;
            log::replace(logs).map_err(ServerError::Unusable)?;
        }
        // The steps below cannot fail.
        loaded.into_iter().for_each(|(tls, loaded)| tls.replace(loaded));
        in_force.directories.replace(directories);
        if let Some(NextRules { states, remote, keys }) = issuers {
            keys.put_in_force(&self.gate);
            in_force.remote_issuers.replace(remote);
            self.trusted = states;
            if now.issuers != old.issuers {
                log_issuers(old, now);
            }
        }
        self.gate = self.gate.use_rules(rules);
        in_force.serving.store(Arc::new(state));
        in_force.limits.set(&now.server);
        self.gate.set_bounds(&now.server.overload);
        of_listeners.for_each(|(listener, (_, now))| listener.addresses.set_max(now.max_connections_per_address));
        let asked = in_force.listeners.iter().filter_map(|listener| listener.questions.as_ref());
        asked.zip(&now.authorizers).for_each(|(questions, authorizer)| questions.trust(&now.server, authorizer));
        Ok(())
    }
}

fn logs_of(config: &Config) -> (&LogConfig, &AccessLogConfig, &AuditLogConfig) {
    (&config.log, &config.access_log, &config.audit_log)
}

struct NextRules {
    states: Vec<IssuerState>,
    remote: NextIssuers,
    keys: PreparedKeys,
}

impl Reloadable {
    /// Returns the rules for each issuer. An unchanged issuer keeps its rules, even if its key file became invalid.
    async fn issuers(&self, old: &Config, now: &Config) -> Result<NextRules, ServerError> {
        let mut states = Vec::new();
        for issuer in &now.issuers {
            let known = old.issuers.iter().position(|known| known == issuer);
            states.push(match known.and_then(|place| self.trusted.get(place)) {
                Some(state) => state.clone(),
                None => IssuerState::new(load_issuer_and_log(issuer)?),
            });
        }
        let mut rules: Vec<_> = states.iter().map(|state| state.rules.clone()).collect();
        let remote = self.in_force.remote_issuers.prepare(now, &mut rules).await?;
        for (state, rules) in states.iter_mut().zip(rules) {
            state.rules = rules;
        }
        let in_force = IssuerState::in_force(&states);
        let keys = PreparedKeys::new(&self.gate, self.gate.keyring(), in_force);
        let keys = keys.map_err(ServerError::part)?;
        Ok(NextRules { states, remote, keys })
    }
}

/// Joins names for a log line. `None` if there are no names, because log lines have no empty values.
fn listed(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(", "))
}

fn log_issuers(old: &Config, now: &Config) {
    let named = |all: &[TrustedIssuer], name: &str| all.iter().find(|issuer| issuer.name == name).cloned();
    let only_in = |one: &Config, other: &Config| {
        let only = one.issuers.iter().filter(|issuer| named(&other.issuers, &issuer.name).is_none());
        listed(&only.map(|issuer| issuer.name.as_str()).collect::<Vec<_>>())
    };
    let is_other = |issuer: &&TrustedIssuer| named(&old.issuers, &issuer.name).is_some_and(|known| known != **issuer);
    let changed: Vec<_> = now.issuers.iter().filter(is_other).map(|issuer| issuer.name.as_str()).collect();
    tracing::info!(
        added = only_in(now, old),
        removed = only_in(old, now),
        changed = listed(&changed),
        "issuers reloaded"
    );
}

/// An unchanged issuer keeps its group, because its files were not read again.
fn follow_issuers(old: &Config, now: &Config, last_read: &mut Vec<FileGroup>, mut read: Vec<FileGroup>) {
    if old.issuers == now.issuers {
        return;
    }
    let mut known: Vec<_> = std::mem::take(last_read).into_iter().map(Some).collect();
    for (issuer, group) in now.issuers.iter().zip(&mut read) {
        let place = old.issuers.iter().position(|known| known == issuer);
        if let Some(same) = place.and_then(|place| known.get_mut(place)?.take()) {
            *group = same;
        }
    }
    *last_read = read;
}
