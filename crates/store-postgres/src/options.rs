//! The options of a PostgreSQL store.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use rotogate_core::client_tls::Tls;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::network::{NetworkOptions, refused};

/// PostgreSQL truncates longer names.
const MAX_SCHEMA: usize = 63;
const MAX_CONNECTIONS: usize = 1000;
/// The operating system closes a connection if sent data is not acknowledged within this time.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);
/// The server ends a transaction whose client is silent for this time.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// The address of a [`PostgresStore`](super::PostgresStore), and how the gate uses it.
///
/// ```
/// # fn example(keyring: &rotogate::token::Keyring) -> Result<(), rotogate::store::StoreError> {
/// use std::time::Duration;
/// use rotogate::store::{NetworkOptions, PostgresOptions};
///
/// let network = NetworkOptions::new("https://api.example.com", keyring.id(), Duration::from_secs(30));
/// let network = network.password_file("/run/secrets/postgres");
/// let options = PostgresOptions::new("postgres://gate@db.internal/rotogate", network).connections(32);
/// # let _ = options;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresOptions {
    url: String,
    listen_url: Option<String>,
    pub(super) schema: String,
    /// The options that all networked stores share, such as password, certificates and timeouts.
    pub network: NetworkOptions,
    pub(super) connections: usize,
    /// Whether connections keep prepared statements, which a transaction pooler does not support.
    pub(super) named: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Statements,
    /// For notifications, which a pooler does not forward.
    Listening,
}

impl PostgresOptions {
    /// The default name of the schema.
    pub const SCHEMA: &str = "rotogate";
    /// The default number of connections for operations.
    pub const CONNECTIONS: usize = 16;

    /// Makes options from the URL of a database: `postgres://user@host:port/database`. The URL must not contain a
    /// password.
    pub fn new(url: impl Into<String>, network: NetworkOptions) -> Self {
        Self {
            url: url.into(),
            listen_url: None,
            schema: Self::SCHEMA.to_owned(),
            network,
            connections: Self::CONNECTIONS,
            named: true,
        }
    }

    /// Sets the URL of the PostgreSQL server itself, for notifications. Set it if the URL in [`Self::new`] is that of
    /// a connection pooler, because poolers do not forward notifications.
    #[must_use]
    pub fn listen_url(self, url: impl Into<String>) -> Self {
        Self { listen_url: Some(url.into()), ..self }
    }

    /// Sets the schema: lower-case letters, digits and `_`. All gates of an issuer must use the same schema.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..self }
    }

    /// Sets the maximum number of connections for the gate's operations, from 1 to 1000.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.clamp(1, MAX_CONNECTIONS), ..self }
    }

    /// Uses unnamed statements. A connection pooler in transaction mode may lose prepared statements.
    #[must_use]
    pub fn unnamed_statements(self) -> Self {
        Self { named: false, ..self }
    }

    /// The maximum duration of a statement, after which the connection is closed.
    pub(super) fn statement_timeout(&self) -> Duration {
        self.network.reply_timeout.unwrap_or(STATEMENT_TIMEOUT)
    }

    pub(super) fn address(&self) -> String {
        parse(&self.url).map(|config| address(&config)).unwrap_or_default()
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        for url in [Some(&self.url), self.listen_url.as_ref()].into_iter().flatten() {
            parse(url)?;
        }
        Self::check_schema(&self.schema)?;
        self.tls().map(drop)
    }

    /// Checks a database URL without a password. The error does not repeat the URL.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        parse(url).map(drop)
    }

    /// Checks that the name is allowed for a schema.
    pub fn check_schema(schema: &str) -> Result<(), StoreError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if schema.len() > MAX_SCHEMA || !begins || !schema.chars().all(fits) || schema.starts_with("pg_") {
            return Err(refused(format!(
                "the schema must be 1 to {MAX_SCHEMA} lower-case letters, digits and _, and start with a letter, but \
                 not with pg_"
            )));
        }
        Ok(())
    }

    /// A pooler does not forward notifications.
    pub(super) fn listens(&self) -> bool {
        self.named || self.listen_url.is_some()
    }

    pub(super) fn config(&self, purpose: Purpose) -> Result<Config, StoreError> {
        let direct = self.listen_url.as_ref().filter(|_| purpose == Purpose::Listening);
        let mut config = parse(direct.unwrap_or(&self.url))?;
        if let Some(password) = &self.network.password {
            config.password(password.read("PostgreSQL")?.expose_secret());
        }
        config
            .connect_timeout(self.network.connect_timeout)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .application_name("rotogate")
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if self.named || direct.is_some() {
            // A pooler rejects these options.
            config.options(format!(
                "-c statement_timeout={} -c idle_in_transaction_session_timeout={}",
                self.statement_timeout().as_millis(),
                IDLE_IN_TRANSACTION.as_millis()
            ));
        }
        Ok(config)
    }

    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, StoreError> {
        let bad = |what: &dyn fmt::Display| refused(format!("the certificates for PostgreSQL cannot be used: {what}"));
        // The text between the PEM blocks may have another encoding.
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        let mut tls = Tls::default();
        tls.ca = self.network.ca.as_deref().map(text);
        if let Some((chain, key)) = &self.network.client_certificate {
            tls.client_cert = Some((text(chain), key.clone()));
        }
        let urls = [Some(&self.url), self.listen_url.as_ref()];
        let is_encrypted = |url: &&String| parse(url).is_ok_and(|config| config.get_ssl_mode() == SslMode::Require);
        tls.may_lack_authorities = !urls.iter().flatten().any(is_encrypted);
        tls.client_config().map(MakeRustlsConnect::new).map_err(|error| bad(&error))
    }
}

fn address(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| {
        let port = config.get_ports().get(n).or(config.get_ports().first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    format!("{}/{}", hosts.collect::<Vec<_>>().join(","), config.get_dbname().unwrap_or_default())
}

/// Parses a URL. A remote server requires TLS with a verified certificate.
fn parse(url: &str) -> Result<Config, StoreError> {
    const EXPECTED: &str = "write postgres://user@host:port/database";
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(refused(format!("the URL of PostgreSQL must begin with postgres://: {EXPECTED}")));
    }
    // Certificate and name are always verified, so all these modes have the same meaning.
    let plain = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    // The parser's message may quote the URL.
    let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
        let reason = error.source().map_or_else(String::new, |reason| format!(" ({reason})"));
        refused(format!("the URL of PostgreSQL cannot be read{reason}: {EXPECTED}"))
    })?;
    if config.get_password().is_some() {
        return Err(refused("the URL of PostgreSQL has a password: set the password separately (store.password_file)"));
    }
    if config.get_user().is_none() {
        return Err(refused(format!("the URL of PostgreSQL names no user: {EXPECTED}")));
    }
    if config.get_hosts().is_empty() || config.get_dbname().is_none() {
        return Err(refused(format!("the URL of PostgreSQL names no host or no database: {EXPECTED}")));
    }
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    if !config.get_hosts().iter().all(is_local) {
        if config.get_ssl_mode() == SslMode::Disable {
            return Err(refused(
                "the URL of PostgreSQL has `sslmode=disable`, but its host is not this machine, so the secrets of \
                 sessions would cross the network unencrypted; remove `sslmode=disable`",
            ));
        }
        config.ssl_mode(SslMode::Require);
    }
    Ok(config)
}

// `Debug` omits the URL, because an invalid URL may contain a password.
rotogate_core::debug_with!(PostgresOptions { schema, network.issuer });
