//! The ready configuration: plain data, checked, with every default in place.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;

use super::error::ConfigError;
use super::source::Source;
use crate::log::{AccessLogConfig, LogConfig};
use crate::proxy::Upstream;
use rotogate::client::Grant;
use rotogate::headers::HeaderPattern;
use rotogate::limit::Rate;
use rotogate::overload::Bounds;
use rotogate::password::SecretHash;
use rotogate::route::Route;
use rotogate::session::Scope;
use rotogate::session::profile::{Profile, ProfileOverride};
use rotogate::token::Algorithm;
use rotogate::token::verify::AllowedScopes;

/// Everything that `gateway.toml` says. Printing it with `{:?}` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[issuer]`
    pub issuer: IssuerConfig,
    /// `[[issuers]]`
    pub issuers: Vec<TrustedIssuer>,
    /// `[sessions]`
    pub sessions: SessionsConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[directory]`
    pub directory: DirectoryConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[cors]`
    pub cors: CorsConfig,
    /// `[[clients]]`
    pub clients: Vec<ClientConfig>,
    /// `[[endpoints]]`
    pub endpoints: Vec<EndpointConfig>,
    /// `[identity]`
    pub identity: IdentityConfig,
    /// `[[upstreams]]`
    pub upstreams: Vec<Upstream>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<Route>,
    /// `[log]`
    pub log: LogConfig,
    /// What is allowed, and probably not what was meant.
    pub warnings: Vec<ConfigError>,
    /// `[access_log]`
    pub access_log: AccessLogConfig,
    /// Where all of it stands.
    pub source: Arc<Source>,
}

impl Config {
    /// The rules for a client at an endpoint: those of `[sessions]`, changed by the endpoint's, changed by the client's.
    pub fn profile(&self, endpoint: &EndpointConfig, client: &ClientConfig) -> Profile {
        client.profile.over(&endpoint.profile.over(&self.sessions.profile))
    }

    /// The whole configuration, every default included, as a `gateway.toml`, with secrets masked (requirement O3).
    pub fn to_toml(&self) -> String {
        super::print::toml(self)
    }

    /// A problem with the value of a key, at the place where the key stands.
    pub(crate) fn blame(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.source.blame(key, message)
    }
}

/// `[server]`: the public listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where requests are accepted, and how; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Scheme and authority of the gate as clients see it.
    pub public_url: Uri,
    /// Whose forwarding headers count (requirement T6).
    pub trusted_proxies: Vec<IpNet>,
    /// The hosts that are served besides that of `public_url` and those that routes name (requirement T23).
    pub hosts: Vec<String>,
    /// How long connecting to an upstream may take, unless the upstream says otherwise.
    pub connect_timeout: Duration,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long a body, of request or answer, may stand still, or an HTTP/2 connection be without requests.
    pub idle_timeout: Duration,
    /// The longest head of a request, in bytes.
    pub max_head: usize,
    /// The most connections at once, of all listeners.
    pub max_connections: usize,
    /// What is borne at once.
    pub overload: Bounds,
    /// The most requests at once of one HTTP/2 connection.
    pub max_requests_per_connection: u32,
    /// The threads that requests are served on.
    pub workers: NonZeroUsize,
    /// The slowest that a client may send or take a body, in bytes a second: it may fall behind by `idle_timeout`.
    pub min_body_rate: u64,
    /// How long requests that run may take to end at a stop.
    pub drain_timeout: Duration,
    /// The header that names a request.
    pub request_id_header: HeaderName,
}

impl ServerConfig {
    /// Where requests are accepted.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|listener| listener.address)
    }
}

/// `listen` of `[server]`, or one of `[[server.listeners]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that names the address, as in `server.listeners[0].address`: for errors.
    pub key: String,
    /// Without it, clear text.
    pub tls: Option<TlsConfig>,
    /// Does every connection begin with a PROXY protocol header? Only `trusted_proxies` may connect then.
    pub proxy_protocol: bool,
    /// The most connections at once from one address (IPv6: from one /64). Trusted proxies are not counted.
    pub max_connections_per_address: usize,
}

/// `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// At least one; the first is for clients that name no server, or one that no certificate is for.
    pub certificates: Vec<CertificateFiles>,
    /// Who must, or may, show a certificate.
    pub client_auth: ClientAuth,
    /// The key of the table, as in `server.tls`: for errors.
    pub key: String,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those between it and the root.
    pub cert: PathBuf,
    /// The private key: for our eyes only (requirement O2).
    pub key: PathBuf,
    /// The key of the table that they stand in, as in `server.tls.certificates[1]`: for errors.
    pub place: String,
}

/// `client_auth`: who shows a certificate. The paths are those of the roots that may have issued it, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nobody is asked for one.
    None,
    /// Who has none may connect. One that does not hold ends the connection.
    Optional(PathBuf),
    /// Everybody.
    Required(PathBuf),
}

/// `[admin]`: the listener for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens: loopback, unless `dangerous_non_loopback` is set.
    pub listen: SocketAddr,
    /// The file of the admin token.
    pub token_file: PathBuf,
    /// An operator's word that the listener may be reached from elsewhere (requirement O10).
    pub dangerous_non_loopback: bool,
    /// Host names, in lower case, by which the listener is addressed besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

/// `[issuer]`: what we mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// `iss`.
    pub url: String,
    /// `aud`; at least one.
    pub audience: Vec<String>,
    /// What new keys are made for.
    pub algorithm: Algorithm,
    /// The directory of the keyring.
    pub keys: PathBuf,
    /// How far clocks may differ: at most 30 s (requirement J7).
    pub leeway: Duration,
}

/// Where the keys of another issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set (RFC 7517 §5), and the only algorithm that is taken, where one is named.
    Jwks(PathBuf, Option<Algorithm>),
    /// One public key in PEM, and its algorithm.
    PublicKey(PathBuf, Algorithm),
}

/// `[[issuers]]`: who is trusted besides us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// What routes call it; the host of `url`, unless it is given.
    pub name: String,
    /// `iss`, exactly.
    pub url: String,
    /// The most that its tokens may carry here.
    pub scopes: AllowedScopes,
    /// Are its tokens taken on routes that name no issuers?
    pub everywhere: bool,
    /// What stands in front of its subjects.
    pub subject_prefix: String,
    /// The `aud` values that are taken; at least one.
    pub audience: Vec<String>,
    /// Its keys.
    pub keys: KeySource,
    /// The `typ` values that are taken (requirement J6).
    pub typ: Vec<String>,
    /// The longest `exp` − `iat` that is taken.
    pub max_lifetime: Duration,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsConfig {
    /// The rules, where neither endpoint nor client has its own.
    pub profile: Profile,
    /// Are user agent and address of the login kept in the session?
    pub keep_login_client: bool,
    /// The longest that a connection lasts which passes through.
    pub max_stream: Duration,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// Nothing survives a restart.
    Memory,
    /// The embedded store.
    Redb {
        /// Its file.
        path: PathBuf,
        /// An operator's word that a restored back-up may be used (requirement O5).
        accept_restored_store: bool,
        /// Memory for its pages, in bytes.
        cache_size: usize,
        /// For how long it may be impossible to write it before the gate ends.
        give_up: Option<Duration>,
    },
}

/// `[directory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryConfig {
    /// A file of users.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// `[limits]` (requirements A1, A3, A4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Logins from one address (an IPv6 address counts as its /64).
    pub login_per_address: Rate,
    /// Logins to one account and user name.
    pub login_per_account: Rate,
    /// Logins that failed with one client.
    pub login_per_client: Rate,
    /// Rotations (not replays) of one session.
    pub refresh_per_session: Rate,
    /// Refreshes from one address.
    pub refresh_per_address: Rate,
    /// Access tokens from one address whose signature does not hold.
    pub forged_per_address: Rate,
    /// Access tokens from one address whose signature holds, and which are refused all the same.
    pub refused_per_address: Rate,
    /// Both from all addresses together, for those that showed no good token lately.
    pub forged_overall: Rate,
    /// What the verified tokens take in memory, in bytes.
    pub verified_cache: u64,
    /// Password checks at once.
    pub max_password_checks: usize,
    /// Password checks that wait.
    pub password_queue: usize,
    /// The longest body of a request to one of our endpoints, in bytes.
    pub max_token_body: usize,
}

/// `[cors]` (requirement T19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// The origins that are let in, as a browser writes them (RFC 6454 §6.2).
    pub origins: Vec<String>,
    /// May they send cookies and the like?
    pub allow_credentials: bool,
    /// How long a browser may remember a preflight.
    pub max_age: Duration,
    /// The response headers that a page of these origins may read, besides those that every page may (Fetch §3.3.2).
    pub expose: Vec<HeaderName>,
}

/// `[[clients]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `client_id`.
    pub id: String,
    /// What makes it confidential; a public client has none.
    pub secret_hash: Option<SecretHash>,
    /// How it may get tokens.
    pub grants: Vec<Grant>,
    /// The scopes that its tokens may carry. `None`: whatever the user's may; nothing, where there is no user.
    pub scopes: Option<Scope>,
    /// Its own rules.
    pub profile: ProfileOverride,
}

impl ClientConfig {
    /// May it use this grant?
    pub fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// `[[endpoints]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Its protocol.
    pub dialect: &'static str,
    /// The path of its token endpoint; may hold `{account}`.
    pub path: String,
    /// Its own rules.
    pub profile: ProfileOverride,
    /// The ids of the clients that may use it. `None`: all.
    pub clients: Option<Vec<String>>,
    /// The client of its sessions, where the protocol names none. `None`: the dialect's own.
    pub client: Option<String>,
    /// Dialects besides its own whose sessions it takes.
    pub accepts: Vec<&'static str>,
    /// The one account that it is for. `None`: the one that the path names, or any.
    pub account: Option<String>,
    /// What its dialect has besides.
    pub options: rotogate::dialect::Options,
}

/// `[identity]`: what an upstream is told. A header that is `None` is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// `sub`
    pub subject: Option<HeaderName>,
    /// `account`
    pub account: Option<HeaderName>,
    /// `client_id`
    pub client: Option<HeaderName>,
    /// `scope`
    pub scope: Option<HeaderName>,
    /// `sid`
    pub session: Option<HeaderName>,
    /// `iss`
    pub issuer: Option<HeaderName>,
    /// Further headers, each with the claim that it tells.
    pub claims: Vec<(HeaderName, String)>,
    /// Headers of clients that never pass, besides those of known products (requirement T24).
    pub strip: Vec<HeaderPattern>,
    /// Headers of known products that do.
    pub keep: Vec<HeaderPattern>,
}
