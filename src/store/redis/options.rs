//! How a Redis store is reached, and what it is used for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::super::password::Password;
use super::super::{StoreError, WriteOutcome};

/// The longest prefix of keys.
const MAX_PREFIX: usize = 64;
/// After this time without an acknowledgement the system gives a connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where a [`RedisStore`](super::RedisStore) is, and for which gate.
///
/// ```
/// # fn example(keyring: &rotogate::token::Keyring) -> Result<(), rotogate::store::StoreError> {
/// use std::time::Duration;
/// use rotogate::store::RedisOptions;
///
/// let options = RedisOptions::new("rediss://redis.internal:6379", "https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let options = options.username("gate").password_file("/run/secrets/redis").prefix("rg");
/// # let _ = options;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    url: String,
    pub(super) cluster: bool,
    username: Option<String>,
    password: Option<Password>,
    pub(super) prefix: String,
    ca: Option<Vec<u8>>,
    client_certificate: Option<(Vec<u8>, SecretString)>,
    pub(super) issuer: String,
    pub(super) keyring: Uuid,
    pub(super) leeway: Duration,
    pub(super) timeouts: RedisTimeouts,
    pub(super) assume_noeviction: bool,
}

/// How long a [`RedisStore`](super::RedisStore) waits.
///
/// ```
/// use std::time::Duration;
/// use rotogate::store::RedisTimeouts;
///
/// let patient = RedisTimeouts { operation: Duration::from_secs(4), ..RedisTimeouts::default() };
/// assert!(patient.reply < patient.operation, "a lost reply leaves time to ask again");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisTimeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the reply to a command. A later one closes the connection.
    pub reply: Duration,
    /// For an operation in all, with every repetition.
    pub operation: Duration,
}

impl Default for RedisTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), reply: Duration::from_millis(700), operation: Duration::from_secs(2) }
    }
}

impl RedisOptions {
    /// The prefix of keys, unless another one is given.
    #[doc(hidden)]
    pub const PREFIX: &str = "rg";

    /// A server by its URL: `redis://host:port/database`, or `rediss://` for TLS. No password belongs into it. The issuer,
    /// the leeway and the id of the keyring are those of the gate.
    pub fn new(url: impl Into<String>, issuer: impl Into<String>, keyring: Uuid, leeway: Duration) -> Self {
        Self {
            url: url.into(),
            cluster: false,
            username: None,
            password: None,
            prefix: Self::PREFIX.to_owned(),
            ca: None,
            client_certificate: None,
            issuer: issuer.into(),
            keyring,
            leeway,
            timeouts: RedisTimeouts::default(),
            assume_noeviction: false,
        }
    }

    /// The user of the server's ACL.
    #[must_use]
    pub fn username(self, name: impl Into<String>) -> Self {
        Self { username: Some(name.into()), ..self }
    }

    /// The password.
    #[must_use]
    pub fn password(self, password: SecretString) -> Self {
        Self { password: Some(Password::Value(password)), ..self }
    }

    /// A file with the password, which no other user may read. It is read at each connection, so a new password needs no
    /// restart.
    #[must_use]
    pub fn password_file(self, path: impl Into<PathBuf>) -> Self {
        Self { password: Some(Password::File(path.into())), ..self }
    }

    /// The first part of every key: letters, digits, `-` and `_`. Gates of one issuer share it.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The certificates, in PEM, that the server's may be issued by, in place of the system's.
    #[must_use]
    pub fn ca(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { ca: Some(pem.into()), ..self }
    }

    /// The gate's own certificate and key, in PEM.
    #[must_use]
    pub fn client_certificate(self, certificate: impl Into<Vec<u8>>, key: SecretString) -> Self {
        Self { client_certificate: Some((certificate.into(), key)), ..self }
    }

    /// How long to wait.
    #[must_use]
    pub fn timeouts(self, timeouts: RedisTimeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// The server forbids INFO, and the operator knows that its `maxmemory-policy` is `noeviction`.
    #[must_use]
    pub fn assume_noeviction(self) -> Self {
        Self { assume_noeviction: true, ..self }
    }

    /// The URL is that of any node of a cluster, which tells the others. Databases other than 0 are for single servers.
    ///
    /// ```
    /// # fn example(keyring: &rotogate::token::Keyring) {
    /// use std::time::Duration;
    /// use rotogate::store::RedisOptions;
    ///
    /// let options = RedisOptions::new("rediss://redis-1:6379", "https://api.example.com", keyring.id(), Duration::from_secs(30));
    /// let options = options.cluster();
    /// # let _ = options;
    /// # }
    /// ```
    #[must_use]
    pub fn cluster(self) -> Self {
        Self { cluster: true, ..self }
    }

    /// The same for one server of a cluster.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let scheme = self.url.split_once("://").map_or("redis", |(scheme, _)| scheme);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { url: format!("{scheme}://{host}:{port}"), ..self.clone() }
    }

    /// Host and port of the URL.
    pub(super) fn host(&self) -> Result<(String, u16), StoreError> {
        match parse(&self.url)?.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Ok((host.clone(), *port)),
            _ => Err(mistake("the URL of Redis begins with redis:// or rediss://")),
        }
    }

    /// The address, as messages name it. The URL has no credentials, which [`check`](Self::check) makes sure of.
    pub(super) fn address(&self) -> String {
        self.url
            .split_once("://")
            .map_or(self.url.as_str(), |(_, rest)| rest)
            .split('/')
            .next()
            .unwrap_or_default()
            .into()
    }

    /// What can be said without the server.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let info = parse(&self.url)?;
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. })
            && (self.ca.is_some() || self.client_certificate.is_some())
        {
            return Err(mistake("a CA or a client certificate of Redis needs a URL that begins with rediss://"));
        }
        if self.cluster {
            Self::check_cluster_url(&self.url)?;
        }
        Self::check_prefix(&self.prefix)?;
        if self.username.is_some() && self.password.is_none() {
            return Err(mistake("a username for Redis needs a password, or a file with it"));
        }
        Ok(())
    }

    /// Is it the URL of a server, without credentials? The error does not repeat it.
    #[doc(hidden)]
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        parse(url).map(drop)
    }

    /// Can it be the URL of a cluster's node?
    #[doc(hidden)]
    pub fn check_cluster_url(url: &str) -> Result<(), StoreError> {
        match parse(url)?.redis_settings().db() {
            0 => Ok(()),
            _ => Err(mistake("a cluster of Redis has database 0 only: remove the database from the URL")),
        }
    }

    /// May keys begin with it?
    #[doc(hidden)]
    pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(fits) {
            return Err(mistake(format!("the prefix of keys in Redis has 1 to {MAX_PREFIX} letters, digits, - and _")));
        }
        Ok(())
    }

    /// A client for the next connection, with the password as it is now.
    pub(super) fn client(&self) -> Result<Client, StoreError> {
        let info = parse(&self.url)?;
        let mut settings = RedisConnectionInfo::default().set_db(info.redis_settings().db()).set_skip_set_lib_name();
        if let Some(name) = &self.username {
            settings = settings.set_username(name);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.read("Redis")?.expose_secret());
        }
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        let failed = |_| mistake("the certificates for Redis cannot be used: give PEM files");
        if !tls {
            return Client::open(info).map_err(failed);
        }
        // The client of Redis takes the process's provider. If the program chose none, it is ours.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let client_tls = self.client_certificate.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.expose_secret().as_bytes().to_vec(),
        });
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: self.ca.clone() }).map_err(failed)
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, StoreError> {
    let info = url.into_connection_info().map_err(|_| {
        // Not the library's own text: it may repeat the URL.
        mistake("the URL of Redis cannot be read: write redis://host:port or rediss://host:port")
    })?;
    let settings = info.redis_settings();
    if settings.username().is_some() || settings.password().is_some() || url.contains('@') {
        return Err(mistake("the URL of Redis has credentials: set the username and the password apart from it"));
    }
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err(mistake("the URL of Redis turns the check of the server's certificate off: remove #insecure"))
        }
        ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. } => Ok(info),
        _ => Err(mistake("the URL of Redis begins with redis:// or rediss://")),
    }
}

/// A silent connection is noticed within seconds, whatever the system's own settings are.
fn tcp() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(1));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let settings = settings.set_user_timeout(TCP_USER_TIMEOUT);
    settings
}

fn mistake(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the URL: a mistaken one may have a password.
        f.debug_struct("RedisOptions")
            .field("prefix", &self.prefix)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
