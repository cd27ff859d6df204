//! The options of a Redis store.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
};
use secrecy::ExposeSecret;

use super::lanes::Durable;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::network::{NetworkOptions, refused};
use rotogate_core::store::kit::password::Password;

const MAX_PREFIX: usize = 64;
/// The operating system closes a connection if sent data is not acknowledged within this time.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(10);
const REPLY_TIMEOUT: Duration = Duration::from_millis(700);

/// The address of a [`RedisStore`](super::RedisStore), and how the gate uses it.
///
/// ```
/// # fn example(keyring: &rotogate::token::Keyring) -> Result<(), rotogate::store::StoreError> {
/// use std::time::Duration;
/// use rotogate::store::{NetworkOptions, RedisOptions};
///
/// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let network = network.password_file("/run/secrets/redis");
/// let options = RedisOptions::new("rediss://redis.internal:6379", network);
/// let options = options.username("gate").prefix("rg");
/// # let _ = options;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    pub(super) urls: Vec<String>,
    pub(super) sentinel: Option<Sentinel>,
    pub(super) cluster: bool,
    username: Option<String>,
    pub(super) prefix: String,
    /// The options that all networked stores share, such as password, certificates and timeouts.
    pub network: NetworkOptions,
    pub(super) assume_noeviction: bool,
    wait_replicas: u32,
    wait_fsync: bool,
}

/// The Sentinels' name for the primary, and the gate's credentials for the Sentinels.
#[derive(Clone)]
pub(super) struct Sentinel {
    pub(super) name: String,
    username: Option<String>,
    password: Option<Password>,
}

impl RedisOptions {
    /// The default prefix of Redis keys.
    pub const PREFIX: &str = "rg";

    /// Makes options from the URL of a server: `redis://host:port/database`, or `rediss://` for TLS. The URL must not
    /// contain a password.
    pub fn new(url: impl Into<String>, network: NetworkOptions) -> Self {
        Self {
            urls: vec![url.into()],
            sentinel: None,
            cluster: false,
            username: None,
            prefix: Self::PREFIX.to_owned(),
            network,
            assume_noeviction: false,
            wait_replicas: 0,
            wait_fsync: false,
        }
    }

    /// Declares that the URLs are those of Sentinels, and sets the Sentinels' name for the primary. The first URL's
    /// scheme and database, and the certificates, also apply to the primary.
    ///
    /// ```
    /// # fn example(keyring: &rotogate::token::Keyring) {
    /// use std::time::Duration;
    /// use rotogate::store::{NetworkOptions, RedisOptions};
    ///
    /// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
    /// let options = RedisOptions::new("redis://s1:26379", network);
    /// let options = options.more_urls(["redis://s2:26379", "redis://s3:26379"]).sentinel("main");
    /// # let _ = options;
    /// # }
    /// ```
    #[must_use]
    pub fn sentinel(self, name: impl Into<String>) -> Self {
        Self { sentinel: Some(Sentinel { name: name.into(), username: None, password: None }), ..self }
    }

    /// Adds the URLs of other Sentinels, or of other cluster nodes.
    #[must_use]
    pub fn more_urls(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.urls.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Sets the ACL user name for the Sentinels. Call [`sentinel`](Self::sentinel) first.
    #[must_use]
    pub fn sentinel_username(mut self, name: impl Into<String>) -> Self {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.username = Some(name.into());
        }
        self
    }

    /// Sets the password file for the Sentinels, like [`NetworkOptions::password_file`]. Call
    /// [`sentinel`](Self::sentinel) first.
    #[must_use]
    pub fn sentinel_password_file(mut self, path: impl Into<PathBuf>) -> Self {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.password = Some(Password::File(path.into()));
        }
        self
    }

    /// Sets the ACL user name for the server.
    #[must_use]
    pub fn username(self, name: impl Into<String>) -> Self {
        Self { username: Some(name.into()), ..self }
    }

    /// Sets the prefix of every Redis key: letters, digits, `-` and `_`. All gates of an issuer must use the same
    /// prefix.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Declares that the server's `maxmemory-policy` is `noeviction`, if the server forbids `INFO`.
    #[must_use]
    pub fn assume_noeviction(self) -> Self {
        Self { assume_noeviction: true, ..self }
    }

    /// Declares that the URLs are those of cluster nodes. A cluster has only database 0.
    ///
    /// ```
    /// # fn example(keyring: &rotogate::token::Keyring) {
    /// use std::time::Duration;
    /// use rotogate::store::{NetworkOptions, RedisOptions};
    ///
    /// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
    /// let options = RedisOptions::new("rediss://redis-1:6379", network);
    /// let options = options.more_urls(["rediss://redis-2:6379"]).cluster();
    /// # let _ = options;
    /// # }
    /// ```
    #[must_use]
    pub fn cluster(self) -> Self {
        Self { cluster: true, ..self }
    }

    pub(super) fn at(&self, address: &Address) -> Self {
        let scheme = self.first_url().split_once("://").map_or("redis", |(scheme, _)| scheme);
        Self { urls: vec![format!("{scheme}://{address}")], ..self.clone() }
    }

    pub(super) fn places(&self) -> Result<Vec<Address>, StoreError> {
        let place = |url: &String| match parse(url)?.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Ok(Address { host: host.clone(), port: *port })
            }
            _ => Err(refused("the URL of Redis must begin with redis:// or rediss://")),
        };
        self.urls.iter().map(place).collect()
    }

    /// Sets how many replicas of a primary must have a write before it is acknowledged. The primary and these replicas
    /// should be a majority of the servers. Use 1 for three servers. A minority that is cut off then cannot acknowledge
    /// writes.
    #[must_use]
    pub fn wait_replicas(self, number: u32) -> Self {
        Self { wait_replicas: number, ..self }
    }

    /// Also waits until a write is in the append-only files of the primary and these replicas. The server must have
    /// version 7.2 or later.
    #[must_use]
    pub fn wait_fsync(self) -> Self {
        Self { wait_fsync: true, ..self }
    }

    /// The maximum wait for a reply, after which the connection is closed.
    pub(super) fn reply_timeout(&self) -> Duration {
        self.network.reply_timeout.unwrap_or(REPLY_TIMEOUT)
    }

    pub(super) fn durable(&self) -> Option<Durable> {
        let (replicas, fsync) = (self.wait_replicas, self.wait_fsync);
        (replicas > 0 || fsync).then_some(Durable { replicas, fsync })
    }

    /// The store's address, as shown in messages. [`check`](Self::check) ensures that the address has no credentials.
    pub(super) fn address(&self) -> String {
        let urls: Vec<_> = self.urls.iter().map(|url| host_of(url)).collect();
        match &self.sentinel {
            Some(sentinel) => format!("{:?} of the Sentinels {}", sentinel.name, urls.join(", ")),
            None => urls.join(", "),
        }
    }

    fn first_url(&self) -> &str {
        self.urls.first().map_or("", String::as_str)
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        Self::check_urls(&self.urls, self.sentinel.is_some(), self.cluster)?;
        let info = parse(self.first_url())?;
        if !is_tls(&info) && (self.network.ca.is_some() || self.network.client_certificate.is_some()) {
            return Err(refused("a CA or a client certificate of Redis needs a URL that begins with rediss://"));
        }
        Self::check_prefix(&self.prefix)?;
        if self.username.is_some() && self.network.password.is_none() {
            return Err(refused("a username for Redis needs a password or a password file"));
        }
        if let Some(sentinel) = &self.sentinel {
            if sentinel.name.is_empty() {
                return Err(refused("the name of the primary, as the Sentinels know it, is empty"));
            }
            if sentinel.username.is_some() && sentinel.password.is_none() {
                return Err(refused("a username for the Sentinels needs a password file"));
            }
        }
        Ok(())
    }

    /// Checks that the URLs can be used together.
    pub fn check_urls(urls: &[String], sentinel: bool, cluster: bool) -> Result<(), StoreError> {
        let infos = urls.iter().map(|url| parse(url)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = infos.first() else { return Err(refused("there is no URL of Redis")) };
        if sentinel && cluster {
            return Err(refused(
                "a Redis cluster cannot be used with Sentinels: remove `cluster`, or remove the name of the primary",
            ));
        }
        if infos.len() > 1 && !sentinel && !cluster {
            return Err(refused(
                "several URLs of Redis are allowed only for Sentinels or a cluster: give the Sentinels' name for the \
                 primary, or set cluster = true",
            ));
        }
        if cluster && infos.iter().any(|info| info.redis_settings().db() != 0) {
            return Err(refused("a Redis cluster has only database 0: remove the database from the URL"));
        }
        let same = |info: &ConnectionInfo| {
            is_tls(info) == is_tls(first) && info.redis_settings().db() == first.redis_settings().db()
        };
        if !infos.iter().all(same) {
            return Err(refused("the URLs of Redis differ in scheme or database: make them equal"));
        }
        Ok(())
    }

    /// Checks a server URL without credentials. The error does not repeat the URL.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        parse(url).map(drop)
    }

    /// Checks a prefix for Redis keys.
    pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(fits) {
            return Err(refused(format!(
                "the prefix of keys in Redis must have 1 to {MAX_PREFIX} letters, digits, - and _"
            )));
        }
        Ok(())
    }

    /// Returns a client with the current password. Without an address, the address in the URL is used.
    pub(super) fn client(&self, at: Option<&Address>) -> Result<Client, StoreError> {
        let info = parse(self.first_url())?;
        let info = match at {
            Some(at) => at_address(info, at),
            None => info,
        };
        let database = info.redis_settings().db();
        self.client_of(info, self.username.as_deref(), self.network.password.as_ref(), database)
    }

    pub(super) fn sentinel_client(&self, url: &str) -> Result<Client, StoreError> {
        let known = self.sentinel.as_ref();
        let username = known.and_then(|sentinel| sentinel.username.as_deref());
        self.client_of(parse(url)?, username, known.and_then(|sentinel| sentinel.password.as_ref()), 0)
    }

    fn client_of(
        &self,
        info: ConnectionInfo,
        username: Option<&str>,
        password: Option<&Password>,
        database: i64,
    ) -> Result<Client, StoreError> {
        let mut settings = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
        if let Some(name) = username {
            settings = settings.set_username(name);
        }
        if let Some(password) = password {
            settings = settings.set_password(password.read("Redis")?.expose_secret());
        }
        let tls = is_tls(&info);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        let failed = |_| refused("the certificates for Redis cannot be used: give PEM files");
        if !tls {
            return Client::open(info).map_err(failed);
        }
        // The Redis client uses the crypto provider of the process, which may not be installed yet.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let client_tls = self.network.client_certificate.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.expose_secret().as_bytes().to_vec(),
        });
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: self.network.ca.clone() }).map_err(failed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn at_address(info: ConnectionInfo, at: &Address) -> ConnectionInfo {
    let (host, port) = (at.host.clone(), at.port);
    let there = if is_tls(&info) {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    info.set_addr(there)
}

pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn parse(url: &str) -> Result<ConnectionInfo, StoreError> {
    let info = url.into_connection_info().map_err(|_| {
        // The library's error message may contain the URL.
        refused("the URL of Redis cannot be read: write redis://host:port or rediss://host:port")
    })?;
    let settings = info.redis_settings();
    if settings.username().is_some() || settings.password().is_some() || url.contains('@') {
        return Err(refused(
            "the URL of Redis has credentials: set them separately (store.username, store.password_file)",
        ));
    }
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err(refused("the URL of Redis turns off the check of the server's certificate: remove #insecure"))
        }
        ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. } => Ok(info),
        _ => Err(refused("the URL of Redis must begin with redis:// or rediss://")),
    }
}

fn tcp() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(1));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let settings = settings.set_user_timeout(TCP_USER_TIMEOUT);
    settings
}

// `Debug` omits the URL, because an invalid URL may contain a password.
rotogate_core::debug_with!(RedisOptions { prefix, network.issuer });
