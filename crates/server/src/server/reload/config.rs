//! Applies another `gateway.toml` to a running gate: the upstreams, and the bounds and certificates of the listeners.
//! Keys that decide about sessions and tokens are read at a start only; the log names those that differ.

use std::sync::Arc;

use super::{LastRead, Reloadable};
use crate::config::{Config, ServerConfig};
use crate::server::assemble;
use crate::server::tls::Tls;

impl Reloadable {
    /// Applies every key that a reload can. If one of them cannot be used, applies nothing.
    pub(super) fn apply(&mut self, new: Config, last_read: &mut LastRead) {
        let old = self.config.load_full();
        let restart_only = restart_only_changes(&old, &new);
        let server = with_restart_only_keys_of(&old.server, new.server);
        let now = Config { server, upstreams: new.upstreams, source: new.source, ..Config::clone(&old) };
        let LastRead { certificates, upstreams, own: _, issuers: _ } = LastRead::of(&now);
        if let Err(error) = self.install(&old, &now) {
            tracing::error!(error, "configuration not applied; the old one stays in force");
            return;
        }
        let changed = [("server", now.server != old.server), ("upstreams", now.upstreams != old.upstreams)];
        let changed: Vec<_> = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
        tracing::info!(changed = changed.join(", "), "configuration reloaded");
        if !restart_only.is_empty() {
            tracing::warn!(
                keys = restart_only.join(", "),
                "restart needed for changed keys: restart, or SIGUSR2 for an in-place upgrade"
            );
        }
        // These groups have other files now. The other groups are not affected by this reload.
        (last_read.certificates, last_read.upstreams) = (certificates, upstreams);
        self.config.store(Arc::new(now));
    }

    /// Everything that can fail comes before anything that takes effect.
    fn install(&self, old: &Config, now: &Config) -> Result<(), String> {
        let mut loaded = Vec::new();
        let of_listeners = self.listeners.iter().zip(old.server.listeners.iter().zip(&now.server.listeners));
        for (listener, (old, now)) in of_listeners.clone() {
            if let (Some(tls), Some(config)) = (&listener.tls, &now.tls)
                && old.tls != now.tls
            {
                loaded.push((tls, Tls::load(config).map_err(|wrong| wrong.to_string())?));
            }
        }
        let upstreams = self.proxy.replace(assemble::upstreams(now));
        upstreams.map_err(|error| format!("{:?}", rotogate::fault::Chain(&error)))?;
        loaded.into_iter().for_each(|(tls, loaded)| tls.replace(loaded));
        self.limits.set(&now.server);
        self.gate.set_bounds(&now.server.overload);
        of_listeners.for_each(|(listener, (_, now))| listener.addresses.set_max(now.max_connections_per_address));
        Ok(())
    }
}

/// The keys that differ but are read at a start only.
fn restart_only_changes(old: &Config, new: &Config) -> Vec<&'static str> {
    // A route names its upstream; the upstream's position in the list does not matter.
    let routes = |config: &Config| -> Vec<_> {
        let name = |place: usize| config.upstreams.get(place).map(|upstream| upstream.name.clone());
        config
            .routes
            .iter()
            .map(|route| (route.upstream.and_then(name), rotogate::route::Route { upstream: None, ..route.clone() }))
            .collect()
    };
    let differ = [
        ("server.listen", !are_the_same_sockets(&old.server, &new.server)),
        ("server.public_url", old.server.public_url != new.server.public_url),
        ("server.hosts", old.server.hosts != new.server.hosts),
        ("server.trusted_proxies", old.server.trusted_proxies != new.server.trusted_proxies),
        ("server.workers", old.server.workers != new.server.workers),
        ("admin", old.admin != new.admin),
        ("issuer", old.issuer != new.issuer),
        ("issuers", old.issuers != new.issuers),
        ("sessions", old.sessions != new.sessions),
        ("store", old.store != new.store),
        ("directory", old.directory != new.directory),
        ("limits", old.limits != new.limits),
        ("cors", old.cors != new.cors),
        ("clients", old.clients != new.clients),
        ("endpoints", old.endpoints != new.endpoints),
        ("identity", old.identity != new.identity),
        ("routes", routes(old) != routes(new)),
        ("log", old.log != new.log),
        ("access_log", old.access_log != new.access_log),
        ("server.request_id_header", old.server.request_id_header != new.server.request_id_header),
    ];
    differ.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}

/// `new`, with the values of `old` for every key that is read at a start only.
fn with_restart_only_keys_of(old: &ServerConfig, new: ServerConfig) -> ServerConfig {
    let listeners = if are_the_same_sockets(old, &new) { new.listeners } else { old.listeners.clone() };
    let (public_url, hosts) = (old.public_url.clone(), old.hosts.clone());
    let (trusted_proxies, request_id_header) = (old.trusted_proxies.clone(), old.request_id_header.clone());
    ServerConfig { listeners, public_url, hosts, trusted_proxies, workers: old.workers, request_id_header, ..new }
}

fn are_the_same_sockets(old: &ServerConfig, new: &ServerConfig) -> bool {
    let sockets = |config: &ServerConfig| -> Vec<_> {
        let one = |it: &crate::config::ListenerConfig| (it.address, it.proxy_protocol, it.tls.is_some());
        config.listeners.iter().map(one).collect()
    };
    sockets(old) == sockets(new)
}
