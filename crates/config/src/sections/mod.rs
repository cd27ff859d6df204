//! The sections of `gateway.toml`. Each section has its own file.
//!
//! [`section!`](super::declare) declares the keys. After an invalid value, reading continues with the default, so that
//! all problems are reported. The resulting configuration is then discarded.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::declare::section;
use super::print::Print;
use super::source::Source;
use super::value::{path_in, text};
use crate::logs::{AccessLogConfig, AuditLogConfig, LogConfig, RouteLog};
use rotogate::dialect::my_keys::MyKeys;
use rotogate::dialect::my_sessions::MySessions;
use rotogate_core::api_key::ApiKeySettings;
use rotogate_core::dpop::DpopSettings;
use rotogate_core::route::{Resource, Route};
use rotogate_core::session::profile::Profile;
use rotogate_core::session::{Binding, Scope};
use rotogate_directories::users::UsersFile;
use rotogate_kit::config::{ConfigError, Section, Value, nearest, printable};
use rotogate_proxy::Upstream;

mod admin;
mod api_keys;
mod authorizers;
mod browser;
mod clients;
mod conditions;
mod cors;
mod credentials;
mod directory;
mod dpop;
pub(crate) mod endpoints;
mod exchange;
mod grants;
mod identity;
mod introspection;
mod issuer;
mod issuers;
mod limits;
mod listeners;
mod log;
mod mapping;
mod overload;
mod page;
mod provider_client;
mod providers;
mod rate;
mod relay;
mod remote;
mod resources;
mod routes;
mod routing;
mod server;
mod session_demands;
mod sessions;
mod signals;
mod sources;
mod step_up;
mod store;
mod tracing;
mod upstream_exchange;
mod upstreams;

pub(super) use admin::read_access;
pub use admin::{AdminAccess, AdminConfig, AdminRole, AdminTokenConfig};
pub use authorizers::{AuthorizerConfig, AuthorizerKind};
pub use browser::BrowserConfig;
pub use clients::{ClientConfig, ClientKeySource};
pub use cors::CorsConfig;
pub use directory::{AcceptedHash, DirectoryConfig, ExpectedHash, HashesConfig, UsersConfig};
pub use endpoints::EndpointConfig;
pub use identity::{AssertionHeader, IdentityConfig, IdentityNames};
pub use introspection::{IntrospectionConfig, IntrospectionKind};
pub use issuer::IssuerConfig;
pub use issuers::read_event_token;
pub use issuers::{EventsConfig, KeySource, TrustedIssuer};
pub use limits::LimitsConfig;
pub use listeners::{CertificateFiles, CertificateList, ClientAuth, ClientRoots, ListenerConfig, TlsConfig};
pub use mapping::AllowedScopes;
pub use page::PageKey;
pub use provider_client::{ClientKeySettings, ProviderClientSettings};
pub use providers::ProviderSettings;
pub use relay::{RelaySettings, RelayWire};
pub use remote::RemoteSource;
pub use server::ServerConfig;
pub use sessions::SessionsConfig;
pub use signals::GlobalRevocationConfig;
#[cfg(feature = "postgres")]
pub use store::PostgresSettings;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub use store::SharedSettings;
pub use store::{RedbSettings, StoreConfig};
#[cfg(feature = "redis")]
pub use store::{RedisSettings, SentinelSettings};
pub use tracing::{TraceProtocol, TracingConfig};

section! {
    /// The whole configuration. The `Debug` output does not contain secrets.
    #[derive(Clone, Debug)]
    pub struct Config, read by read_sections(root, dir: &Path, sections: &CheckedSections<'_>, logs: &mut RouteLogs) {
        /// Public listeners, and their limits.
        each server: ServerConfig = inner(|section| server::read(section, dir)),
        /// Health, metrics and the admin API (docs/admin.md), never on the public listener.
        each admin: AdminConfig = inner(|section| admin::read(section, dir, &server)),
        /// Tokens that the gate issues.
        each issuer: IssuerConfig = inner(|section| issuer::read_keys(section, dir, &server, directory::is_none(root))),
        /// Trusted issuers other than the gate. Each has its own keys, audience and rules.
        each issuers: Vec<TrustedIssuer> = by {
            Section::entries(&sections.issuers, |section, above| issuers::read(section, above, dir, &issuer))
        },
        /// Sessions. A session is one login with one client, with all tokens that were issued since then.
        each sessions: SessionsConfig = by { sessions::read(&sections.sessions) },
        /// Store of sessions and revocations.
        restart store: StoreConfig = inner(|section| store::read(section, dir, &issuer.keys)),
        /// Where the users are: in a file, or in another system (HTTP, LDAP, SQL). For several directories, write
        /// `[[directories]]` (docs/directories.md).
        // The gate opens the users file only at startup. If this file changes, a reload keeps all directories.
        restart("directories" if directory::is_another_file) directories as "-": Vec<DirectoryConfig> = by {
            directory::read(root, dir)
        },
        /// Limits on logins, refreshes, refused tokens and password checks. `"10/1m"` allows a burst of ten requests,
        /// and ten more every minute. Requests beyond a rate get 429.
        each limits: LimitsConfig = inner(limits::read_keys),
        /// Cross-origin requests of browsers (CORS). The gate responds to preflights itself, and does not require a
        /// token for them.
        each cors: CorsConfig = inner(cors::read),
        /// DPoP: tokens that are bound to the client's key (RFC 9449, docs/dpop.md). DPoP is enabled by this section,
        /// or by `dpop` of a client or a route.
        each dpop: Option<DpopSettings> = table(|section| dpop::read_keys(section, &DpopSettings::default())),
        /// API keys, for machines (docs/api-keys.md). Without this section, the gate does not accept API keys.
        restart api_keys: Option<ApiKeySettings> = table(api_keys::read_keys),
        /// Listeners to which other proxies send authorization requests (docs/forward-auth.md).
        restart authorizers: Vec<AuthorizerConfig> = by {
            authorizers::read(&sections.authorizers, dir, &server, &admin)
        },
        /// OAuth clients that get tokens from the gate.
        each clients: Vec<ClientConfig> = by {
            Section::entries(&sections.clients, |section, above| clients::read(section, above, dir))
        },
        /// Endpoints where clients log in, refresh and log out, each in one protocol (docs/protocols.md).
        // The gate creates relays only at startup. If the relays change, a reload keeps all endpoints.
        restart("endpoints" if endpoints::are_other_relays) endpoints: Vec<EndpointConfig> = by {
            let surroundings = endpoints::Surroundings {
                dir,
                clients: &clients,
                listeners: &listener_names(&server, &authorizers),
                issuers: &issuers,
                public_url: &server.public_url,
                cors: &cors,
            };
            let read = |section: &Section<'_>, above: &[_]| endpoints::read(section, above, &surroundings);
            endpoints::share_cookie(Section::entries(&sections.endpoints, read))
        },
        /// Headers that identify the caller to the upstream; `""` omits a header. The gate removes these headers, in
        /// any spelling, from the client's request.
        reload identity: IdentityConfig = by { identity::read(&sections.identity, &issuers) },
        /// Token endpoints from which the gate requests tokens for upstreams (docs/act-for-a-user.md).
        each providers: Vec<ProviderSettings> = by {
            let read = |section: &Section<'_>, above: &[_]| providers::read_keys(section, above, dir, &issuers);
            Section::entries(&root.sections("providers"), read)
        },
        /// Servers behind the gate, to which it forwards requests (docs/upstreams.md).
        each upstreams: Vec<Upstream> = by {
            let read = |section: &Section<'_>, above: &[_]| upstreams::read(section, above, dir, &server, &admin);
            Section::entries(&sections.upstreams, read)
        },
        /// Protected resources for which the gate publishes metadata (RFC 9728, docs/resources.md).
        each resources: Vec<Resource> = by { Section::entries(&sections.resources, resources::read_keys) },
        /// Requests that the gate forwards. Any other request gets 404.
        reload routes as "-": Vec<Route> = by {
            let names = routes::Names {
                upstreams: &upstreams,
                issuers: &issuers,
                identity: &identity,
                resources: &resources,
                listeners: &listener_names(&server, &authorizers),
                has_browser: endpoints.iter().any(|endpoint| endpoint.dialect == rotogate::program::BROWSER),
                has_keys: api_keys.is_some(),
                are_asked_about: !authorizers.is_empty(),
            };
            routes::read(&sections.routes, &names, logs)
        },
        /// Application log (docs/logs.md).
        each log: LogConfig = inner(|section| log::read_keys(section, dir)),
        /// Access log, with one line for each request (docs/logs.md).
        each access_log: AccessLogConfig = by {
            let all = root.inner("access_log", |section| log::read_access_keys(section, dir, &log));
            AccessLogConfig { routes: std::mem::take(logs), ..all }
        },
        /// Audit log, with security events and changes by operators (docs/logs.md).
        each audit_log: AuditLogConfig = inner(|section| {
            log::read_audit_keys(section, dir, &log, &access_log)
        }),
        /// Spans for an OpenTelemetry collector (docs/traces.md); needs the feature `otel`.
        each tracing: Option<TracingConfig> = by { tracing::read(root, dir) },
        /// Settings that are allowed but probably not intended.
        no_key warnings: Vec<ConfigError> = by { Vec::new() },
        /// The file of the configuration, and the positions of its keys.
        no_key source: Arc<Source> = by { Arc::default() },
    }
}

type RouteLogs = BTreeMap<Box<str>, RouteLog>;

const HASH_BYTES: usize = 8;

impl Config {
    /// The session rules that apply to a client at an endpoint. The precedence is: client, endpoint, `[sessions]`.
    pub fn profile(&self, endpoint: &EndpointConfig, client: &ClientConfig) -> Profile {
        client.profile.over(&endpoint.profile.over(&self.sessions.profile))
    }

    /// Returns a message about scopes that no route, client, issuer or resource names. Returns `None` if the
    /// configuration names no scopes, because then only the upstreams check scopes.
    pub fn unknown_scopes(&self, scopes: &Scope) -> Option<String> {
        let routes = self.routes.iter().flat_map(|route| [&route.policy.scopes, &route.policy.any_scope]);
        let clients = self.clients.iter().filter_map(|client| client.scopes.as_ref());
        let issuers = self.issuers.iter().filter_map(|issuer| issuer.scopes.listed());
        let resources = self.resources.iter().map(|resource| &resource.scopes);
        let named =
            routes.chain(clients).chain(issuers).chain(resources).fold(Scope::default(), |all, one| all.union(one));
        let own = [MySessions::SCOPE, MyKeys::SCOPE];
        let unknown: Vec<_> = scopes.iter().filter(|one| !named.contains(one) && !own.contains(one)).collect();
        (!named.is_empty() && !unknown.is_empty()).then(|| {
            format!(
                "no route, client, issuer or resource uses the scope {}; the scopes in use are {named}",
                unknown.join(", ")
            )
        })
    }

    /// All listeners of `[server]`, and then those of `[[authorizers]]`.
    pub fn listeners(&self) -> impl Iterator<Item = &ListenerConfig> + Clone {
        self.server.listeners.iter().chain(self.authorizers.iter().map(|authorizer| &authorizer.listener))
    }

    /// The listeners' addresses and configuration keys.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &str)> {
        let own = self.listeners().map(|listener| (listener.address, listener.key.as_str()));
        own.chain(self.admin.addresses())
    }

    /// Prints the whole configuration, including defaults, as a `gateway.toml` with masked secrets (requirement O3).
    pub fn to_toml(&self) -> String {
        let mut root = self.print();
        if let toml::Value::Table(root) = &mut root {
            directory::print(&self.directories, root);
            let routes = self.routes.iter().map(|route| routes::print(route, &self.upstreams, &self.access_log));
            root.insert("routes".to_owned(), toml::Value::Array(routes.collect()));
        }
        // Tables of strings and numbers can always be serialized.
        toml::to_string(&root).unwrap_or_default()
    }

    /// A hash of the configuration without its secrets, in 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let hash = digest(&SHA256, self.to_toml().as_bytes());
        hash.as_ref().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The directory whose users are in a file.
    pub fn file_directory(&self) -> Option<&DirectoryConfig> {
        self.directories.iter().find(|one| matches!(one.users, UsersConfig::File { .. }))
    }

    /// The users file.
    ///
    /// # Errors
    /// Returns the errors of [`HashesConfig::accepted`], or an error if the users are not in a file.
    pub fn users_file(&self) -> Result<UsersFile, String> {
        match self.file_directory() {
            Some(DirectoryConfig { key, users: UsersConfig::File { path, hashes }, .. }) => {
                Ok(UsersFile::new(path, hashes.accepted(key)?).expecting(hashes.classes()))
            }
            Some(_) | None => {
                Err("the users are not in a file, because `directory.kind` is not \"file\"; change them in the \
                     directory itself"
                    .to_owned())
            }
        }
    }

    /// The directory for users with this account.
    pub fn directory_of(&self, account: Option<&str>) -> Option<&DirectoryConfig> {
        let has = |one: &&DirectoryConfig| {
            one.accounts.as_ref().is_some_and(|names| names.iter().any(|name| Some(name.as_str()) == account))
        };
        self.directories.iter().find(has).or_else(|| self.directories.iter().find(|one| one.accounts.is_none()))
    }

    /// Checks that the users with this account are in the users file.
    ///
    /// # Errors
    /// Says which directory has them.
    pub fn file_takes_users_of(&self, account: Option<&str>) -> Result<(), String> {
        let (Some(file), found) = (self.file_directory(), self.directory_of(account)) else { return Ok(()) };
        if found.is_some_and(|found| found.key == file.key) {
            return Ok(());
        }
        let account =
            account.map_or_else(|| "users without an account".to_owned(), |name| format!("users of account {name}"));
        Err(match found {
            Some(other) => format!("{account} are in directory {} ({}), not in the users file", other.name, other.key),
            None => format!("no directory contains {account}; see `accounts` of {}", file.key),
        })
    }

    /// Whether the gate accepts tokens that are bound to a key.
    pub fn uses_dpop(&self) -> bool {
        self.dpop.is_some()
            || self.clients.iter().any(|client| client.dpop != Binding::Off)
            || self.routes.iter().any(|route| route.policy.dpop_required)
    }

    /// Creates an error about a key's value, with the position of the key.
    pub fn blame(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.source.blame(key, message)
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads every section, and then checks them against each other.
pub(super) fn read(root: &Section<'_>, dir: &Path) -> Config {
    let sections = CheckedSections::new(root);
    let mut config = read_sections(root, dir, &sections, &mut RouteLogs::new());
    sources::mark(&mut config);
    root.finish();
    sections.check(&config);
    config
}

fn listener_names<'a>(server: &'a ServerConfig, authorizers: &'a [AuthorizerConfig]) -> Vec<&'a str> {
    let of_authorizers = authorizers.iter().map(|authorizer| &authorizer.listener);
    server.listeners.iter().chain(of_authorizers).filter_map(|listener| listener.name.as_deref()).collect()
}

struct CheckedSections<'a> {
    authorizers: Vec<Section<'a>>,
    clients: Vec<Section<'a>>,
    endpoints: Vec<Section<'a>>,
    identity: Section<'a>,
    issuers: Vec<Section<'a>>,
    resources: Vec<Section<'a>>,
    routes: Vec<Section<'a>>,
    sessions: Section<'a>,
    upstreams: Vec<Section<'a>>,
}

impl<'a> CheckedSections<'a> {
    fn new(root: &Section<'a>) -> Self {
        Self {
            authorizers: root.sections("authorizers"),
            clients: root.sections("clients"),
            endpoints: root.sections("endpoints"),
            identity: root.section("identity"),
            issuers: root.sections("issuers"),
            resources: root.sections("resources"),
            routes: root.sections("routes"),
            sessions: root.section("sessions"),
            upstreams: root.sections("upstreams"),
        }
    }

    fn check(&self, config: &Config) {
        issuers::check_used(&self.issuers, config);
        sources::check(&self.issuers, config);
        grants::check(&self.issuers, &config.issuers, &config.clients, &config.directories);
        signals::check(&self.issuers, &config.issuers, &config.directories);
        introspection::check(&self.routes, &config.routes, &config.issuers);
        routing::check(config, &self.routes);
        identity::check(&self.identity, config);
        let asking: Vec<_> =
            config.authorizers.iter().map(|it| it.listener.name.as_deref().unwrap_or_default()).collect();
        resources::check(&self.resources, &config.resources, &config.routes, &config.issuer.url, &asking);
        resources::check_routes(config, &self.routes);
        resources::check_origins(config, &self.resources);
        resources::check_audiences(config, &self.routes);
        exchange::check(&self.clients, config);
        rate::check(&self.routes, config);
        upstream_exchange::check(&self.upstreams, config);
        clients::check_certificates(config, &self.clients, &self.routes);
        upstreams::check_assertions(config, &self.identity, (&self.upstreams, &self.authorizers));
        browser::check(config, &self.endpoints, &self.routes);
        relay::check_seen(config, &self.endpoints);
        session_demands::check(config, &self.routes);
        api_keys::check(config, &self.routes, &self.endpoints);
        if config.sessions.profile.problems().is_empty() && !self.sessions.is_bad() {
            sessions::check_profiles(config, &self.clients, &self.endpoints);
        }
    }
}

/// The number of processors.
fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() != 0 && a.port() == b.port() && (x == y || x.is_unspecified() || y.is_unspecified())
}

/// A loopback address.
fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Reads a required, unique name.
fn unique<'a>(
    section: &Section<'_>,
    key: &'static str,
    expected: &str,
    read: impl FnOnce(&Value) -> Result<String, String>,
    mut others: impl Iterator<Item = &'a str>,
) -> String {
    let name = section.required(key, expected, read);
    if !name.is_empty() && others.any(|other| other == name) {
        section.blame(key, format!("\"{}\" is listed twice; remove or rename one of the two", printable(&name)));
    }
    name
}

fn check_known<'a>(section: &Section<'_>, key: &str, what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) {
    let known: Vec<&str> = known.into_iter().collect();
    if !known.contains(&name) {
        section.blame(key, dangling(what, name, &known));
    }
}

fn known_names<'a>(
    section: &Section<'_>,
    key: &'static str,
    what: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<Vec<String>> {
    let known: Vec<&str> = known.into_iter().collect();
    let names = section.indexed(key, text)?;
    for (index, name) in names.iter().filter(|(_, name)| !known.contains(&name.as_str())) {
        section.blame_element(key, *index, dangling(what, name, &known));
    }
    Some(names.into_iter().map(|(_, name)| name).collect())
}

fn dangling(what: &str, name: &str, known: &[&str]) -> String {
    let shown = printable(name);
    // Invalid names are empty here.
    let known: Vec<&str> = known.iter().copied().filter(|name| !name.is_empty()).collect();
    match nearest(name, &known) {
        Some(near) => format!("there is no {what} \"{shown}\"; did you mean \"{near}\"?"),
        None if known.is_empty() => format!("there is no {what} \"{shown}\"; none is configured"),
        None => format!("there is no {what} \"{shown}\"; expected one of {}", known.join(", ")),
    }
}
