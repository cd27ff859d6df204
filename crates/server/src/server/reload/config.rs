//! Another `gateway.toml` for a gate that runs: its upstreams, and how its listeners bound clients and show themselves.
//! Everything else is what sessions and tokens are made by, and is read at a start only; what of it differs is named in
//! the log.

use std::sync::Arc;

use super::{Live, Seen};
use crate::config::{Config, ServerConfig};
use crate::server::assemble;
use crate::server::tls::Tls;

impl Live {
    /// Takes up all that can be, or nothing where a part of that cannot be used.
    pub(super) fn take(&mut self, new: Config, seen: &mut Seen) {
        let old = self.config.load_full();
        let later = at_a_start(&old, &new);
        let server = kept(&old.server, new.server);
        let now = Config { server, upstreams: new.upstreams, source: new.source, ..Config::clone(&old) };
        let Seen { certificates, upstreams, own: _, issuers: _ } = Seen::of(&now);
        if let Err(error) = self.apply(&old, &now) {
            tracing::error!(error, "the configuration cannot be taken up; the old one stays in force");
            return;
        }
        let changed = [("server", now.server != old.server), ("upstreams", now.upstreams != old.upstreams)];
        let changed: Vec<_> = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
        tracing::info!(changed = changed.join(", "), "the configuration was read again");
        if !later.is_empty() {
            tracing::warn!(
                keys = later.join(", "),
                "these changed too, but are read at a start only: restart, as SIGUSR2 does"
            );
        }
        // A file that both name may have changed before this; the keys did not concern us.
        (seen.certificates, seen.upstreams) = (certificates, upstreams);
        self.config.store(Arc::new(now));
    }

    /// Whatever can fail comes before whatever takes effect.
    fn apply(&self, old: &Config, now: &Config) -> Result<(), String> {
        let mut loaded = Vec::new();
        let of_listeners = self.listeners.iter().zip(old.server.listeners.iter().zip(&now.server.listeners));
        for (live, (old, now)) in of_listeners.clone() {
            if let (Some(tls), Some(config)) = (&live.tls, &now.tls)
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
        of_listeners.for_each(|(live, (_, now))| live.addresses.set_most(now.max_connections_per_address));
        Ok(())
    }
}

/// The keys that differ and are read at a start only.
fn at_a_start(old: &Config, new: &Config) -> Vec<&'static str> {
    // A route names its upstream, whose place in the list is nothing.
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

/// The new one, with what stays as it was.
fn kept(old: &ServerConfig, new: ServerConfig) -> ServerConfig {
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
