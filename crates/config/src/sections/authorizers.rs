//! `[[authorizers]]`: listeners to which other proxies send authorization requests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use toml::Value;

use super::super::declare::section;
use super::super::print::Print;
use super::super::value;
use super::listeners::{self, ClientAuth, ListenerConfig, TlsConfig};
use super::{AdminConfig, ServerConfig, collide, loopback};
use rotogate::gate::Neighbour;
use rotogate_kit::config::Section;

section! {
    /// An entry of `[[authorizers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AuthorizerConfig, read by read_keys(section, kind: AuthorizerKind, listen: SocketAddr, others: &Others<'_>) {
        /// Required: Kind of proxy that sends the authorization requests: `"nginx"`, `"traefik"`, `"caddy"`,
        /// `"haproxy"`, `"envoy"` (over HTTP), or `"ext-authz"` (Envoy over gRPC, docs/ext-authz.md). It decides from
        /// which headers the gate reads the original request.
        restart kind: AuthorizerKind = by { kind },
        /// Required: Address of the listener for authorization requests. Only the proxies should be able to reach it.
        restart listen: SocketAddr = by { listen },
        /// Networks of the proxies that may send authorization requests. Required, unless `tls` requires a client
        /// certificate. Default: the value in `[server]`.
        restart trusted_proxies: Option<Vec<IpNet>> = list(value::network),
        /// TLS settings, with the same keys as `tls` of `[[server.listeners]]`.
        restart tls: Option<TlsConfig> = by { listeners::read_tls(section, others.dir) },
        /// Audience of the assertion (see `[identity]`) that the gate adds to its responses. Unset: no assertion.
        restart assertion_audience: Option<String> = get(value::text),
        /// Name by which `listeners` of a route refers to this listener.
        restart name: Option<Arc<str>> = by { listeners::name(section, others.listeners()) },
        /// The listener that results from the keys above.
        no_key listener: ListenerConfig = by {
            ListenerConfig {
                address: listen,
                name: name.clone(),
                key: section.name("listen"),
                tls: tls.clone(),
                proxy_protocol: false,
                max_connections_per_address: others.server.max_connections_per_address,
            }
        },
    }
}

/// The other listeners. An authorizer must not repeat their addresses or names.
struct Others<'a> {
    dir: &'a Path,
    server: &'a ServerConfig,
    above: &'a [AuthorizerConfig],
}

impl<'a> Others<'a> {
    fn listeners(&self) -> impl Iterator<Item = &'a ListenerConfig> {
        self.server.listeners.iter().chain(self.above.iter().map(|other| &other.listener))
    }
}

/// `kind` of an authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizerKind {
    /// Authorization requests are HTTP requests from this kind of proxy, which decides which headers are trusted.
    ForwardAuth(Neighbour),
    /// Authorization requests are gRPC calls to Envoy's `envoy.service.auth.v3.Authorization/Check`.
    ExtAuthz,
}

impl AuthorizerKind {
    /// The value of `kind`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ForwardAuth(neighbour) => neighbour.name(),
            Self::ExtAuthz => "ext-authz",
        }
    }

    /// The protocol, as a label of metrics.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::ForwardAuth(_) => "forward-auth",
            Self::ExtAuthz => "ext-authz",
        }
    }

    fn all() -> Vec<(&'static str, Self)> {
        let all = Neighbour::ALL.into_iter().map(Self::ForwardAuth).chain([Self::ExtAuthz]);
        all.map(|kind| (kind.word(), kind)).collect()
    }
}

impl AuthorizerConfig {
    /// The networks of the proxies that may send authorization requests. The list is empty if the listener requires a
    /// client certificate instead.
    pub fn trusted<'a>(&'a self, server: &'a ServerConfig) -> &'a [IpNet] {
        self.trusted_proxies.as_deref().unwrap_or(&server.trusted_proxies)
    }
}

pub(super) fn read(
    sections: &[Section<'_>],
    dir: &Path,
    server: &ServerConfig,
    admin: &AdminConfig,
) -> Vec<AuthorizerConfig> {
    let mut found: Vec<AuthorizerConfig> = Vec::new();
    for section in sections {
        let others = Others { dir, server, above: &found };
        let kind = section.require(
            "kind",
            "the proxy that sends the authorization requests, such as \"nginx\"",
            value::word(&AuthorizerKind::all(), &[]),
        );
        let listen = section.require("listen", "an address and port such as \"127.0.0.1:8082\"", value::address);
        if let Some(address) = listen {
            let taken = others.listeners().map(|other| (other.address, other.key.as_str())).chain(admin.addresses());
            if let Some((_, by)) = taken.into_iter().find(|(other, _)| collide(address, *other)) {
                section.blame("listen", format!("{address} is already used by `{by}`; choose another address or port"));
            }
        }
        // Read the other keys even if `kind` or `listen` is invalid.
        let asked = (kind.unwrap_or(AuthorizerKind::ExtAuthz), listen.unwrap_or(loopback(0)));
        let authorizer = read_keys(section, asked.0, asked.1, &others);
        let proves = authorizer.tls.as_ref().is_some_and(|tls| matches!(tls.client_auth, ClientAuth::Required(_)));
        if authorizer.trusted(server).is_empty() && !proves && !section.is_bad() {
            let message = "is missing, and so is `server.trusted_proxies`. Anybody could send authorization requests \
                           with forged data. List the addresses of the proxy, such as [\"127.0.0.1/32\"], or require \
                           its client certificate with `tls.client_ca`";
            section.blame("trusted_proxies", message);
        }
        section.finish();
        if kind.is_some() && listen.is_some() {
            found.push(authorizer);
        }
    }
    found
}

impl Print for AuthorizerKind {
    fn print(&self) -> Value {
        self.word().into()
    }
}
