//! `[[authorizers]]`: listeners on which other proxies ask for verdicts.

use std::path::Path;

use ipnet::IpNet;
use toml::{Table, Value};

#[cfg(test)]
use super::super::declare::{Key, section};
use super::super::print::{Print, Put};
use super::super::value;
use super::listeners::{self, ClientAuth, ListenerConfig};
use super::{AdminConfig, ServerConfig, collide};
use rotogate::gate::Neighbour;
use rotogate_kit::config::Section;

/// An entry of `[[authorizers]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerConfig {
    /// The protocol, and the proxy that speaks it.
    pub kind: AuthorizerKind,
    /// The networks of the proxies that may ask; `None`: those of `[server]`.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// The audience of the assertions in its answers; `None`: they have none.
    pub assertion_audience: Option<String>,
    /// The listener.
    pub listener: ListenerConfig,
}

/// `kind` of an authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizerKind {
    /// Questions are HTTP requests. The neighbour says which headers are facts.
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
    /// The networks of the proxies that may ask. Empty where a client certificate is required instead.
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
        let kind = kind(section);
        let address = section.require("listen", "an address and port such as \"127.0.0.1:8082\"", value::address);
        if let Some(address) = address {
            let public = server.listeners.iter().map(|listener| (listener.address, listener.key.as_str()));
            let others = found.iter().map(|other| (other.listener.address, other.listener.key.as_str()));
            let taken = public.chain(admin.addresses()).chain(others).find(|(other, _)| collide(address, *other));
            if let Some((_, by)) = taken {
                section.blame("listen", format!("{address} is taken by {by}; expected an address of its own"));
            }
        }
        let trusted_proxies = section.list("trusted_proxies", value::network);
        let tls = listeners::read_tls(section, dir);
        let proves = tls.as_ref().is_some_and(|tls| matches!(tls.client_auth, ClientAuth::Required(_)));
        let is_open = trusted_proxies.as_ref().unwrap_or(&server.trusted_proxies).is_empty() && !proves;
        if is_open && !section.is_bad() {
            let message = "is missing, and so is server.trusted_proxies: anybody could ask, and state any fact; list the \
                           addresses of the proxy, such as [\"127.0.0.1/32\"], or require its certificate: tls.client_ca";
            section.blame("trusted_proxies", message);
        }
        let max_connections_per_address =
            listeners::max_connections_per_address(section, listeners::DEFAULT_CONNECTIONS_PER_ADDRESS);
        let assertion_audience = section.get("assertion_audience", value::text);
        let others = server.listeners.iter().chain(found.iter().map(|other| &other.listener));
        let name = listeners::name(section, others);
        section.finish();
        if let (Some(kind), Some(address)) = (kind, address) {
            let key = section.name("listen");
            let listener =
                ListenerConfig { address, name, key, tls, proxy_protocol: false, max_connections_per_address };
            found.push(AuthorizerConfig { kind, trusted_proxies, assertion_audience, listener });
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
            if section.has("neighbour") {
                section.get("neighbour", |_| Ok(()));
                let message = "only applies to kind = \"forward-auth\": ext-authz is Envoy's; remove it";
                section.blame("neighbour", message);
            }
            if !cfg!(feature = "grpc") {
                section.blame("kind", value::needs_feature("\"ext-authz\"", "grpc"));
            }
            Some(AuthorizerKind::ExtAuthz)
        }
        // Read in any case, so that it is known.
        Some(false) => section
            .require("neighbour", "the proxy that asks, such as \"nginx\"", value::word(&names, &[]))
            .map(AuthorizerKind::ForwardAuth),
        None => section.get("neighbour", value::word(&names, &[])).and(None),
    }
}

impl Print for AuthorizerConfig {
    #[cfg(test)]
    const KEYS: &'static [Key] = section!(keys {
        /// Required: The protocol: `"forward-auth"`, or `"ext-authz"`: Envoy over gRPC (docs/ext-authz.md), without a neighbour.
        restart kind: text,
        /// The proxy, whose headers are facts: `"nginx"`, `"ingress-nginx"`, `"traefik"`, `"caddy"`, `"haproxy"` or `"envoy"`. Required
        /// with `"forward-auth"`.
        restart neighbour: text,
        /// Required: An address of its own, for questions alone.
        restart listen: text,
        /// The name for the key `listeners` of routes.
        restart name: text,
        /// The proxies. Needed, unless `tls` requires a certificate. Default: those of `[server]`.
        restart trusted_proxies: list,
        /// Connections of one peer that may not ask.
        restart max_connections_per_address: number,
        /// Answers have the header of `assertion` of `[identity]`, for this audience. Unset: none.
        restart assertion_audience: text,
        /// As `tls` of `[[server.listeners]]`.
        restart tls: table,
    });

    fn print(&self) -> Value {
        let Self { kind, trusted_proxies, assertion_audience, listener } = self;
        let ListenerConfig { address, name, key: _, tls, proxy_protocol: _, max_connections_per_address } = listener;
        let mut table = Table::new();
        kind.word().put(&mut table, "kind");
        if let AuthorizerKind::ForwardAuth(neighbour) = kind {
            neighbour.name().put(&mut table, "neighbour");
        }
        name.put(&mut table, "name");
        address.put(&mut table, "listen");
        assertion_audience.put(&mut table, "assertion_audience");
        trusted_proxies.put(&mut table, "trusted_proxies");
        tls.put(&mut table, "tls");
        max_connections_per_address.put(&mut table, "max_connections_per_address");
        table.into()
    }
}
