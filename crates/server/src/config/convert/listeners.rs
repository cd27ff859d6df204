//! `listen` and `[[server.listeners]]`.
//!
//! The simple case has simple keys: `listen` is an address or several, and `tls` beside it is theirs. Listeners that
//! differ are written as tables, in which nothing comes from `[server]` but the bound on connections.

use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;

use super::super::raw::Section;
use super::super::types::{CertificateFiles, ClientAuth, ListenerConfig, TlsConfig};
use super::super::value;
use super::base::local;
use super::{collide, path_in};

/// A tenth of the default of `max_connections`: one address cannot take all places, and many users behind one address
/// do not notice.
const DEFAULT_CONNECTIONS_PER_ADDRESS: usize = 1000;

pub(super) fn all(server: &Section<'_>, dir: &Path, trusted: &[IpNet]) -> Vec<ListenerConfig> {
    let per_address = max_connections_per_address(server, DEFAULT_CONNECTIONS_PER_ADDRESS);
    let sections = server.sections("listeners");
    let mut found = simple(server, dir, per_address, sections.is_empty());
    for section in &sections {
        let address = section.require("address", "an address and port such as \"0.0.0.0:443\"", value::address);
        if let Some(address) = address {
            if let Some(other) = found.iter().find(|other| collide(address, other.address)) {
                section.blame("address", format!("{address} is taken by {}", other.key));
            }
            found.push(ListenerConfig {
                address,
                key: section.name("address"),
                tls: tls(section, dir),
                proxy_protocol: proxy_protocol(section, trusted),
                max_connections_per_address: max_connections_per_address(section, per_address),
            });
        }
        section.finish();
    }
    found
}

/// Those of `listen`.
fn simple(server: &Section<'_>, dir: &Path, per_address: usize, alone: bool) -> Vec<ListenerConfig> {
    let default = if alone { vec![local(8080)] } else { Vec::new() };
    let listen = server.one_or_list("listen", value::address).unwrap_or(default);
    if listen.is_empty() && !server.is_bad() && (alone || server.has("listen")) {
        server.blame("listen", "is empty; expected at least one address");
    }
    let all_read = !server.is_bad();
    for (index, one) in listen.iter().enumerate() {
        if all_read && listen.iter().take(index).any(|other| collide(*one, *other)) {
            server.blame_element("listen", index, format!("{one} is taken by another address of this list"));
        }
    }
    if listen.is_empty() && server.has("tls") {
        server.blame("tls", "is for the addresses of listen, and there are none; write it into [[server.listeners]]");
    }
    let tls = tls(server, dir);
    let one = |address: SocketAddr| ListenerConfig {
        address,
        key: server.name("listen"),
        tls: tls.clone(),
        proxy_protocol: false,
        max_connections_per_address: per_address,
    };
    listen.into_iter().map(one).collect()
}

fn max_connections_per_address(section: &Section<'_>, default: usize) -> usize {
    section.get("max_connections_per_address", value::count(1, 1_000_000)).unwrap_or(default)
}

fn proxy_protocol(section: &Section<'_>, trusted: &[IpNet]) -> bool {
    let wanted = section.get("proxy_protocol", value::boolean).unwrap_or(false);
    if wanted && trusted.is_empty() {
        let message = "needs server.trusted_proxies: the header says who the client is, so only a proxy that is \
                       listed there may connect";
        section.blame("proxy_protocol", message);
    }
    wanted
}

fn tls(listener: &Section<'_>, dir: &Path) -> Option<TlsConfig> {
    let section = listener.section("tls");
    if !listener.has("tls") {
        return None;
    }
    let pair = |section: &Section<'_>| {
        let cert = section.require("cert", "the file of the certificate chain, in PEM", path_in(dir));
        let key = section.require("key", "the file of the private key, in PEM", path_in(dir));
        Some(CertificateFiles { cert: cert?, key: key?, place: section.path().to_owned() })
    };
    let listed = section.sections("certificates");
    let certificates: Vec<_> = match section.has("certificates") {
        false => pair(&section).into_iter().collect(),
        true => {
            for key in ["cert", "key"] {
                if section.has(key) {
                    section.blame(key, "stands beside certificates; expected one of the two");
                }
                // Known, so that it is not blamed as unknown too.
                section.get(key, |_| Ok(()));
            }
            if listed.is_empty() && !section.is_bad() {
                section.blame("certificates", "is empty; expected at least one { cert = \"…\", key = \"…\" }");
            }
            listed.iter().filter_map(pair).collect()
        }
    };
    listed.iter().for_each(Section::finish);
    let client_auth = client_auth(&section, dir);
    section.finish();
    Some(TlsConfig { certificates, client_auth, key: listener.name("tls") })
}

/// Who names roots wants them used: `client_ca` alone means `required`.
fn client_auth(section: &Section<'_>, dir: &Path) -> ClientAuth {
    #[derive(Clone, Copy)]
    enum Who {
        Nobody,
        Some,
        All,
    }
    let roots = section.get("client_ca", path_in(dir));
    let words = [("none", Who::Nobody), ("optional", Who::Some), ("required", Who::All)];
    let default = if section.has("client_ca") { Who::All } else { Who::Nobody };
    match (section.get("client_auth", value::word(&words, &[])).unwrap_or(default), roots) {
        (Who::Nobody, _) => ClientAuth::None,
        (Who::Some, Some(roots)) => ClientAuth::Optional(roots),
        (Who::All, Some(roots)) => ClientAuth::Required(roots),
        (Who::Some | Who::All, None) => {
            if !section.has("client_ca") {
                section
                    .blame("client_auth", "needs client_ca: the file of the roots that client certificates come from");
            }
            ClientAuth::None
        }
    }
}
