//! `listen` and `[[server.listeners]]`.
//!
//! `tls` in `[server]` applies to all addresses of `listen`. Listeners with different settings are entries of
//! `[[server.listeners]]`. From `[server]`, they inherit only the limit on connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, Put};
use super::super::value;
use super::{collide, known_names, loopback, path_in};
use rotogate_kit::config::Section;

section! {
    /// `listen` of `[server]`, or one of `[[server.listeners]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ListenerConfig, read by read_keys(section, address: SocketAddr, dir: &Path, defaults: &Defaults<'_>) {
        /// Required: Address and port of the listener.
        restart address: SocketAddr = by { address },
        /// Name by which `listeners` of routes and endpoints refers to this listener.
        restart name: Option<Arc<str>> = by { self::name(section, defaults.others) },
        /// The key of the address for error messages, such as `server.listeners[0].address`.
        no_key key: String = by { section.name("address") },
        /// Server certificates, which are selected by SNI, and settings for client certificates (docs/edge.md). Unset:
        /// the listener does not use TLS. Adding or removing the table needs an upgrade.
        restart("tls" if comes_or_goes) tls: Option<TlsConfig> = by { read_tls(section, dir) },
        /// true: each connection must begin with a PROXY header (version 2) from one of `trusted_proxies`. Set it
        /// behind a TCP load balancer.
        restart proxy_protocol: bool = by { read_proxy_protocol(section, defaults.trusted) },
        /// The value in `[server]`.
        no_key max_connections_per_address: usize = by { defaults.per_address },
    }
}

section! {
    /// `tls` of a listener.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TlsConfig, read by read_tls_keys(section, dir: &Path) {
        /// The certificates. A client gets the first certificate if its SNI name is missing or if no certificate covers
        /// the name.
        reload certificates as "..": CertificateList = by { read_certificates(section, dir) },
        /// Whether clients must or may present a certificate.
        reload client_auth as "..": ClientAuth = by { read_client_auth(section, dir) },
        /// The name of the table for error messages, such as `server.tls`.
        no_key key: String = by { section.path().to_owned() },
    }
    with {
        /// PEM file of the certificate with its intermediates, or a list of files for several certificates. A client
        /// gets the first certificate if its SNI name is missing or if no certificate covers the name.
        reload cert: text,
        /// PEM file (0600) of the private key, or a list with one file for each certificate.
        reload key as "key": text,
        /// PEM files with the root certificates that verify client certificates.
        reload client_ca: text,
        /// PEM files with lists of revoked client certificates (CRLs, RFC 5280), one or several.
        reload client_crl: text,
        /// `"required"`: each client must present a certificate; `"optional"`: a client may present one; `"none"`: the
        /// listener does not request certificates. Default: `"required"` with `client_ca`, otherwise `"none"`.
        reload client_auth: text,
        /// true: the gate sends the client's certificate to upstreams in the header `Client-Cert` (RFC 9440). Set it
        /// for services that read the certificate. Default: `false`.
        reload client_cert_header: boolean,
    }
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// File of the certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// File of the private key, for the gate's user only (0600).
    // Requirement O2.
    pub key: PathBuf,
    /// The index in the list of certificates, or `None` if there is only one.
    pub place: Option<usize>,
}

/// The certificates of a listener. The list is not empty in a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateList(pub Vec<CertificateFiles>);

impl std::ops::Deref for CertificateList {
    type Target = [CertificateFiles];

    fn deref(&self) -> &[CertificateFiles] {
        &self.0
    }
}

impl Print for CertificateList {
    fn print(&self) -> Value {
        let mut table = Table::new();
        match &self.0[..] {
            [CertificateFiles { cert, key, place: None }] => {
                cert.put(&mut table, "cert");
                key.put(&mut table, "key");
            }
            several => {
                several.iter().map(|files| files.cert.clone()).collect::<Vec<_>>().put(&mut table, "cert");
                several.iter().map(|files| files.key.clone()).collect::<Vec<_>>().put(&mut table, "key");
            }
        }
        table.into()
    }
}

struct Defaults<'a> {
    trusted: &'a [IpNet],
    per_address: usize,
    others: &'a [ListenerConfig],
}

fn comes_or_goes(old: &Option<TlsConfig>, new: &Option<TlsConfig>) -> bool {
    old.is_some() != new.is_some()
}

/// `client_auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    None,
    /// A client may connect without a certificate. An invalid certificate ends the connection.
    Optional(ClientRoots),
    /// Every client must present a valid certificate.
    Required(ClientRoots),
}

impl ClientAuth {
    /// The trusted roots for client certificates, or `None` if the listener does not request client certificates.
    pub const fn roots(&self) -> Option<&ClientRoots> {
        match self {
            Self::None => None,
            Self::Optional(roots) | Self::Required(roots) => Some(roots),
        }
    }
}

/// `client_ca` and `client_crl`: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRoots {
    /// The trusted roots.
    pub ca: PathBuf,
    /// The lists of revoked certificates (RFC 5280 §5). If one list is configured, each issuer in a client's
    /// certificate chain needs a list.
    pub crls: Vec<PathBuf>,
    /// `client_cert_header`: upstreams get the certificate in `Client-Cert` (RFC 9440).
    pub header: bool,
}

pub(super) fn read(server: &Section<'_>, dir: &Path, trusted: &[IpNet], per_address: usize) -> Vec<ListenerConfig> {
    let sections = server.sections("listeners");
    let mut found = simple(server, dir, per_address, sections.is_empty());
    for section in &sections {
        let address = section.require("address", "an address and port such as \"0.0.0.0:443\"", value::address);
        if let Some(address) = address {
            if let Some(other) = found.iter().find(|other| collide(address, other.address)) {
                section.blame("address", format!("{address} is already used by `{}`", other.key));
            }
            let listener = read_keys(section, address, dir, &Defaults { trusted, per_address, others: &found });
            found.push(listener);
        }
        section.finish();
    }
    found
}

/// The listeners of `listen`.
fn simple(server: &Section<'_>, dir: &Path, per_address: usize, alone: bool) -> Vec<ListenerConfig> {
    let default = if alone { vec![loopback(8080)] } else { Vec::new() };
    let listen = server.one_or_list("listen", value::address).unwrap_or(default);
    if listen.is_empty() && !server.is_bad() && (alone || server.has("listen")) {
        server.blame("listen", "is empty; expected at least one address");
    }
    let all_read = !server.is_bad();
    for (index, one) in listen.iter().enumerate() {
        if all_read && listen.iter().take(index).any(|other| collide(*one, *other)) {
            server.blame_element("listen", index, format!("{one} is already used by another address in this list"));
        }
    }
    if listen.is_empty() && server.has("tls") {
        server.blame(
            "tls",
            "only applies to the addresses in `listen`, but `listen` is empty; move it into `[[server.listeners]]`",
        );
    }
    let tls = read_tls(server, dir);
    let one = |address: SocketAddr| ListenerConfig {
        address,
        name: None,
        key: server.name("listen"),
        tls: tls.clone(),
        proxy_protocol: false,
        max_connections_per_address: per_address,
    };
    listen.into_iter().map(one).collect()
}

/// Reads `name` of a listener, which must be unique.
pub(super) fn name<'a>(
    section: &Section<'_>,
    others: impl IntoIterator<Item = &'a ListenerConfig>,
) -> Option<Arc<str>> {
    let name = section.get("name", value::text)?;
    if let Some(other) = others.into_iter().find(|other| other.name.as_deref() == Some(&*name)) {
        section.blame(
            "name",
            format!("\"{name}\" is already the name of the listener in `{}`; rename one of the two", other.key),
        );
    }
    Some(name.into())
}

/// Reads `listeners` of a route or an endpoint: names of listeners. An empty list means all listeners.
pub(super) fn bound_to(section: &Section<'_>, known: &[&str]) -> Vec<Box<str>> {
    let known = known.iter().copied();
    let Some(names) = known_names(section, "listeners", "listener with the name", known) else { return Vec::new() };
    if names.is_empty() {
        section.blame(
            "listeners",
            "is empty, so no listener would serve this entry; name a listener, or remove `listeners`",
        );
    }
    names.into_iter().map(Into::into).collect()
}

fn read_proxy_protocol(section: &Section<'_>, trusted: &[IpNet]) -> bool {
    let wanted = section.get("proxy_protocol", value::boolean).unwrap_or(false);
    if wanted && trusted.is_empty() {
        let message = "needs `server.trusted_proxies`, because the PROXY header states the client's address; only a \
                       listed proxy may connect";
        section.blame("proxy_protocol", message);
    }
    wanted
}

pub(super) fn read_tls(listener: &Section<'_>, dir: &Path) -> Option<TlsConfig> {
    let section = listener.section("tls");
    if !listener.has("tls") {
        return None;
    }
    let tls = read_tls_keys(&section, dir);
    section.finish();
    Some(tls)
}

/// Reads `cert` and `key`, which are two files or two lists of the same length.
fn read_certificates(section: &Section<'_>, dir: &Path) -> CertificateList {
    let files = |key, what: &str| {
        let found = section.one_or_list(key, path_in(dir));
        if !section.has(key) {
            section.blame(key, format!("missing; expected the file with {what}, in PEM"));
        } else if found.as_ref().is_some_and(Vec::is_empty) {
            section.blame(key, format!("is empty; expected at least one file with {what}, in PEM"));
        }
        found.unwrap_or_default()
    };
    let (certs, keys) = (files("cert", "the certificate chain"), files("key", "the private key"));
    let count = certs.len();
    if count != keys.len() && !certs.is_empty() && !keys.is_empty() && !section.is_bad() {
        section.blame(
            "key",
            format!("lists {} files, but `cert` lists {count}; expected one for each certificate", keys.len()),
        );
    }
    let place = |index| (count > 1).then_some(index);
    let pairs = certs.into_iter().zip(keys).enumerate();
    CertificateList(pairs.map(|(index, (cert, key))| CertificateFiles { cert, key, place: place(index) }).collect())
}

/// If only `client_ca` is set, `client_auth` is `required` by default.
fn read_client_auth(section: &Section<'_>, dir: &Path) -> ClientAuth {
    type Demand = fn(ClientRoots) -> ClientAuth;
    const WORDS: [(&str, Option<Demand>); 3] =
        [("none", None), ("optional", Some(ClientAuth::Optional)), ("required", Some(ClientAuth::Required))];
    let crls = section.one_or_list("client_crl", path_in(dir));
    if crls.as_ref().is_some_and(Vec::is_empty) {
        section.blame("client_crl", "is empty; expected at least one file of revoked certificates, in PEM");
    }
    if section.has("client_crl") && !section.has("client_ca") {
        section.blame("client_crl", "needs `client_ca`, the file with the root certificates for client certificates");
    }
    let header = section.get("client_cert_header", value::boolean);
    if header == Some(true) && !section.has("client_ca") {
        section.blame("client_cert_header", "needs `client_ca`, because otherwise clients do not present certificates");
    }
    let roots = section.get("client_ca", path_in(dir)).map(|ca| ClientRoots {
        ca,
        crls: crls.unwrap_or_default(),
        header: header.unwrap_or(false),
    });
    let default = section.has("client_ca").then_some(ClientAuth::Required as Demand);
    let demand = section.get("client_auth", value::word(&WORDS, &[])).unwrap_or(default);
    if demand.is_some() && !section.has("client_ca") {
        section.blame("client_auth", "needs `client_ca`, the file with the root certificates for client certificates");
    }
    demand.zip(roots).map_or(ClientAuth::None, |(demand, roots)| demand(roots))
}

impl Print for ClientAuth {
    fn print(&self) -> Value {
        let mut table = Table::new();
        let word = match self {
            Self::None => "none",
            Self::Optional(_) => "optional",
            Self::Required(_) => "required",
        };
        word.put(&mut table, "client_auth");
        if let Some(ClientRoots { ca, crls, header }) = self.roots() {
            ca.put(&mut table, "client_ca");
            Some(crls.clone()).filter(|crls| !crls.is_empty()).put(&mut table, "client_crl");
            header.put(&mut table, "client_cert_header");
        }
        table.into()
    }
}
