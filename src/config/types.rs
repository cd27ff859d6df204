//! The ready configuration: plain data, checked, with every default in place.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method, Uri};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::session::Scope;
use crate::session::profile::{OnOtherClient, OnReuse, Profile};

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
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<RouteConfig>,
    /// `[log]`
    pub log: LogConfig,
}

impl Config {
    /// The rules for a client at an endpoint: those of `[sessions]`, changed by the endpoint's, changed by the client's.
    pub fn profile(&self, endpoint: &EndpointConfig, client: &ClientConfig) -> Profile {
        client.profile.over(&endpoint.profile.over(&self.sessions.profile))
    }

    /// The whole configuration as text for people, with secrets masked (requirement O3).
    pub fn masked(&self) -> String {
        format!("{self:#?}")
    }
}

/// `[server]`: the public listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where requests are accepted; at least one.
    pub listen: Vec<SocketAddr>,
    /// Scheme and authority of the gate as clients see it.
    pub public_url: Uri,
    /// Whose forwarding headers count (requirement T6).
    pub trusted_proxies: Vec<IpNet>,
    /// How long connecting to an upstream may take, unless the upstream says otherwise.
    pub connect_timeout: Duration,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long a connection may stand still.
    pub idle_timeout: Duration,
    /// The longest head of a request, in bytes.
    pub max_head: usize,
    /// The most connections at once.
    pub max_connections: usize,
    /// How long requests that run may take to end at a stop.
    pub drain_timeout: Duration,
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
}

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum Algorithm {
    EdDSA,
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::EdDSA,
        Self::ES256,
        Self::ES384,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::HS256,
        Self::HS384,
        Self::HS512,
    ];

    /// The `alg` value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// Is the verifying key a secret, too?
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
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
pub enum IssuerKeys {
    /// A JWK set (RFC 7517 §5), and the only algorithm that is taken, where one is named.
    Jwks(PathBuf, Option<Algorithm>),
    /// One public key in PEM, and its algorithm.
    PublicKey(PathBuf, Algorithm),
}

/// `[[issuers]]`: who is trusted besides us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// `iss`, exactly.
    pub url: String,
    /// The `aud` values that are taken; at least one.
    pub audience: Vec<String>,
    /// Its keys.
    pub keys: IssuerKeys,
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
}

/// Rules that differ from those above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Profile")]
pub struct ProfileOverride {
    pub access_ttl: Option<Duration>,
    pub max_access_ttl: Option<Duration>,
    pub session_ttl: Option<Duration>,
    pub idle_ttl: Option<Duration>,
    pub grace: Option<Duration>,
    pub lost_response_window: Option<Duration>,
    pub on_reuse: Option<OnReuse>,
    pub on_other_client: Option<OnOtherClient>,
    pub revoke_previous_after: Option<Duration>,
}

impl ProfileOverride {
    /// These rules where they say something, those of `base` elsewhere.
    pub fn over(&self, base: &Profile) -> Profile {
        Profile {
            access_ttl: self.access_ttl.unwrap_or(base.access_ttl),
            max_access_ttl: self.max_access_ttl.unwrap_or(base.max_access_ttl),
            session_ttl: self.session_ttl.unwrap_or(base.session_ttl),
            idle_ttl: self.idle_ttl.unwrap_or(base.idle_ttl),
            grace: self.grace.unwrap_or(base.grace),
            lost_response_window: self.lost_response_window.unwrap_or(base.lost_response_window),
            on_reuse: self.on_reuse.unwrap_or(base.on_reuse),
            on_other_client: self.on_other_client.unwrap_or(base.on_other_client),
            revoke_previous_after: self.revoke_previous_after.or(base.revoke_previous_after),
        }
    }
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

/// So many at once, then one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once; at least 1.
    pub burst: u32,
    /// How long until one more may come; more than zero.
    pub every: Duration,
}

/// `[limits]` (requirements A1, A3, A4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Logins from one address (an IPv6 address counts as its /64).
    pub login_per_address: Rate,
    /// Logins to one account and user name.
    pub login_per_account: Rate,
    /// Logins by one client.
    pub login_per_client: Rate,
    /// Rotations (not replays) of one session.
    pub refresh_per_session: Rate,
    /// Refreshes from one address.
    pub refresh_per_address: Rate,
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
}

/// How a client gets tokens (RFC 6749 §4, §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A user's name and password.
    Password,
    /// A refresh token.
    RefreshToken,
    /// The client's own secret.
    ClientCredentials,
}

/// The argon2id hash of a client's secret. Does not print.
#[derive(Clone)]
pub struct SecretHash(SecretString);

impl SecretHash {
    pub(crate) fn new(phc: String) -> Self {
        Self(SecretString::from(phc))
    }

    /// The PHC string, for [`Passwords::verify`](crate::directory::password::Passwords::verify).
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// `[[clients]]`.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `client_id`.
    pub id: String,
    /// What makes it confidential; a public client has none.
    pub secret_hash: Option<SecretHash>,
    /// How it may get tokens.
    pub grants: Vec<Grant>,
    /// The scopes that its tokens may carry. `None`: whatever the user's may; nothing, where there is no user.
    pub scopes: Option<Scope>,
    /// The `aud` of its tokens; empty: that of `[issuer]`.
    pub audience: Vec<String>,
    /// Its own rules.
    pub profile: ProfileOverride,
}

impl ClientConfig {
    /// May it use this grant?
    pub fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// The protocol that an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialectName {
    /// RFC 6749, 7009 and 7662.
    OAuth2,
}

impl DialectName {
    /// As it is written in the configuration and in a session.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OAuth2 => "oauth2",
        }
    }
}

/// `[[endpoints]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Its protocol.
    pub dialect: DialectName,
    /// The path of its token endpoint; may hold `{account}`.
    pub path: String,
    /// Its own rules.
    pub profile: ProfileOverride,
    /// The ids of the clients that may use it. `None`: all.
    pub clients: Option<Vec<String>>,
    /// Dialects besides its own whose sessions it takes.
    pub accepts: Vec<DialectName>,
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
    /// Further headers, each with the claim that it tells.
    pub claims: Vec<(HeaderName, String)>,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// Answers with what it received.
    Echo,
    /// `http://host:port`.
    Http {
        /// Host name or address; an IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

/// `[[upstreams]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The name that routes use.
    pub name: String,
    /// Its addresses; at least one.
    pub urls: Vec<UpstreamUrl>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long it may take to send the head of a response.
    pub head_timeout: Duration,
    /// How long a body may stand still.
    pub idle_timeout: Duration,
    /// Does it get the client's `Host`, and not its own?
    pub preserve_host: bool,
}

/// Does a route ask for a token?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Never looked at.
    None,
    /// Anonymous without one; a bad one is refused (requirement T13).
    Optional,
    /// Always.
    Required,
}

/// What becomes of `%2F` in a path (requirement T12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400.
    Refuse,
    /// It stays part of its segment.
    Keep,
}

/// Who answers a CORS preflight (requirement T19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// The gate, from `[cors]`.
    Gate,
    /// The upstream.
    Upstream,
}

/// `[[routes]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name in logs and metrics; unique. The path, unless it is given.
    pub id: String,
    /// A matchit pattern.
    pub path: String,
    /// The hosts that it serves, in lower case; empty: all.
    pub hosts: Vec<String>,
    /// The methods that it serves; empty: all but CONNECT and TRACE.
    pub methods: Vec<Method>,
    /// Does it ask for a token?
    pub auth: AuthMode,
    /// Every one of these is asked for.
    pub scopes: Scope,
    /// One of these is asked for; empty: the issuer's own.
    pub audiences: Vec<String>,
    /// The name of its upstream.
    pub upstream: String,
    /// Does the bearer token go to the upstream (requirement T14)?
    pub forward_token: bool,
    /// See [`EncodedSlash`].
    pub encoded_slash: EncodedSlash,
    /// Are headers with `_` in their names forwarded (requirement T4)?
    pub keep_underscore_headers: bool,
    /// Are method and URL override headers forwarded (requirement T6)?
    pub keep_override_headers: bool,
    /// The longest body, in bytes. `None`: any.
    pub max_body: Option<u64>,
    /// See [`Preflight`].
    pub preflight: Preflight,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is logged: this and all above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How it looks.
    pub format: LogFormat,
    /// How much there is.
    pub level: LogLevel,
}
