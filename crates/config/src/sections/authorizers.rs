//! `[[authorizers]]`: listeners on which other proxies ask for verdicts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, put};
use super::super::value;
use super::listeners::{self, ClientAuth, ListenerConfig, TlsConfig};
use super::{AdminConfig, ServerConfig, collide, loopback};
use rotogate::gate::Neighbour;
use rotogate_kit::config::Section;

section! {
    /// An entry of `[[authorizers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AuthorizerConfig, read by read_keys(section, kind: AuthorizerKind, listen: SocketAddr, others: &Others<'_>) {
        /// Protocol, and the proxy that speaks it.
        restart kind as "..": AuthorizerKind = by { kind },
        /// Required: Address for the questions of the proxies alone.
        restart listen: SocketAddr = by { listen },
        /// Addresses of the proxies. Required, unless `tls` requires a client certificate. Default: those of
        /// `[server]`.
        restart trusted_proxies: Option<Vec<IpNet>> = list(value::network),
        /// As `tls` of `[[server.listeners]]`.
        restart tls: Option<TlsConfig> = by { listeners::read_tls(section, others.dir) },
        /// Answers carry the assertion of `[identity]` for this audience. Unset: no assertion.
        restart assertion_audience: Option<String> = get(value::text),
        /// Name for the key `listeners` of routes.
        restart name: Option<Arc<str>> = by { listeners::name(section, others.listeners()) },
        /// Listener that follows from these.
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
    with {
        /// Required: Protocol: `"forward-auth"`, or `"ext-authz"`: Envoy over gRPC (docs/ext-authz.md), without a
        /// neighbour.
        restart kind: text,
        /// Proxy, by whose headers the gate knows the request: `"nginx"`, `"traefik"`, `"caddy"`, `"haproxy"` or
        /// `"envoy"`. Required with `"forward-auth"`.
        restart neighbour: text,
    }
}

/// The other listeners, beside that of an authorizer.
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
    /// Questions are HTTP requests. The kind of the asking proxy decides which headers are reliable.
    ForwardAuth(Neighbour),
    /// Questions are calls of Envoy's `envoy.service.auth.v3.Authorization/Check`.
    ExtAuthz,
}

impl AuthorizerKind {
    /// The value of `kind`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ForwardAuth(_) => "forward-auth",
            Self::ExtAuthz => "ext-authz",
        }
    }
}

impl AuthorizerConfig {
    /// The networks of the proxies that may ask. Empty if a client certificate is required instead.
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
        let kind = kind(section);
        let listen = section.require("listen", "an address and port such as \"127.0.0.1:8082\"", value::address);
        if let Some(address) = listen {
            let taken = others.listeners().map(|other| (other.address, other.key.as_str())).chain(admin.addresses());
            if let Some((_, by)) = taken.into_iter().find(|(other, _)| collide(address, *other)) {
                section.blame("listen", format!("{address} is taken by {by}; expected an address of its own"));
            }
        }
        // Reads the other keys even if one of these two was refused.
        let asked = (kind.unwrap_or(AuthorizerKind::ExtAuthz), listen.unwrap_or(loopback(0)));
        let authorizer = read_keys(section, asked.0, asked.1, &others);
        let proves = authorizer.tls.as_ref().is_some_and(|tls| matches!(tls.client_auth, ClientAuth::Required(_)));
        if authorizer.trusted(server).is_empty() && !proves && !section.is_bad() {
            let message = "is missing, and so is server.trusted_proxies: anybody could ask, and state any fact; list the \
                           addresses of the proxy, such as [\"127.0.0.1/32\"], or require its certificate: tls.client_ca";
            section.blame("trusted_proxies", message);
        }
        section.finish();
        if kind.is_some() && listen.is_some() {
            found.push(authorizer);
        }
    }
    found
}

fn kind(section: &Section<'_>) -> Option<AuthorizerKind> {
    let words = [("forward-auth", false), ("ext-authz", true)];
    let is_grpc = section.require("kind", "\"forward-auth\" or \"ext-authz\"", value::word(&words, &[]));
    let names = Neighbour::ALL.map(|neighbour| (neighbour.name(), neighbour));
    match is_grpc {
        Some(true) => {
            let message = "only applies to kind = \"forward-auth\": ext-authz is Envoy's; remove it";
            section.misplaced(&["neighbour"], message);
            Some(AuthorizerKind::ExtAuthz)
        }
        // The key is read in any case, so that it is not reported as unknown.
        Some(false) => section
            .require("neighbour", "the proxy that asks, such as \"nginx\"", value::word(&names, &[]))
            .map(AuthorizerKind::ForwardAuth),
        None => section.get("neighbour", value::word(&names, &[])).and(None),
    }
}

impl Print for AuthorizerKind {
    fn print(&self) -> Value {
        let mut table = Table::new();
        put(&mut table, "kind", self.word());
        if let Self::ForwardAuth(neighbour) = self {
            put(&mut table, "neighbour", neighbour.name());
        }
        table.into()
    }
}
