//! The options of a PostgreSQL store: its address, and how the gate uses it.

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

/// The longest name of a schema. PostgreSQL truncates longer names.
const MAX_SCHEMA: usize = 63;
/// The most connections of one gate for its operations.
const MAX_CONNECTIONS: usize = 1000;
/// After this time without an acknowledgement, the system closes a connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);
/// After this time the server ends a transaction that waits for its client.
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
    /// Whether a connection keeps prepared statements. False behind a pooler that gives each transaction another
    /// connection.
    pub(super) named: bool,
}

/// The purpose of a connection, which selects one of the two URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Statements,
    /// For notifications, which a pooler does not pass on.
    Listening,
}

impl PostgresOptions {
    /// The default name of the schema.
    pub const SCHEMA: &str = "rotogate";
    /// The default number of connections for operations.
    pub const CONNECTIONS: usize = 16;

    /// A database by its URL: `postgres://user@host:port/database`. No password belongs into it.
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

    /// The URL of the server itself, for notifications, if the other URL is that of a pooler.
    #[must_use]
    pub fn listen_url(self, url: impl Into<String>) -> Self {
        Self { listen_url: Some(url.into()), ..self }
    }

    /// The schema with the tables: lower-case letters, digits and `_`. Gates of one issuer share it.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..self }
    }

    /// How many connections the gate's operations use at most: 1 to 1000.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.clamp(1, MAX_CONNECTIONS), ..self }
    }

    /// For a server behind a pooler that gives each transaction another connection.
    #[must_use]
    pub fn unnamed_statements(self) -> Self {
        Self { named: false, ..self }
    }

    /// The longest time for a statement. A later reply closes the connection.
    pub(super) fn statement_timeout(&self) -> Duration {
        self.network.reply_timeout.unwrap_or(STATEMENT_TIMEOUT)
    }

    /// The address for messages, without the user.
    pub(super) fn address(&self) -> String {
        parse(&self.url).map(|config| address(&config)).unwrap_or_default()
    }

    /// Checks the options without contacting the server.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for url in [Some(&self.url), self.listen_url.as_ref()].into_iter().flatten() {
            parse(url)?;
        }
        Self::check_schema(&self.schema)?;
        self.tls().map(drop)
    }

    /// Checks that a text is the URL of a database, without a password. The error does not repeat it.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        parse(url).map(drop)
    }

    /// Checks that a schema may have this name.
    pub fn check_schema(schema: &str) -> Result<(), StoreError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if schema.len() > MAX_SCHEMA || !begins || !schema.chars().all(fits) || schema.starts_with("pg_") {
            return Err(refused(format!(
                "the schema has 1 to {MAX_SCHEMA} lower-case letters, digits and _, begins with a letter, and not with pg_"
            )));
        }
        Ok(())
    }

    /// Whether the gate listens for notifications. A pooler does not pass them on.
    pub(super) fn listens(&self) -> bool {
        self.named || self.listen_url.is_some()
    }

    /// The settings of the next connection, with the current password.
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
            // Not for a pooler: it refuses options, and its connections are shared.
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
        // What stands between the blocks of PEM may have another encoding.
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

/// Parses a URL. For a server on another machine, TLS with a verified certificate is required.
fn parse(url: &str) -> Result<Config, StoreError> {
    const EXPECTED: &str = "write postgres://user@host:port/database";
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(refused(format!("the URL of PostgreSQL begins with postgres://: {EXPECTED}")));
    }
    // The certificate and its name are always verified, so these modes mean the same here.
    let plain = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    // The error does not show the parser's own text, because it may quote the URL.
    let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
        let reason = error.source().map_or_else(String::new, |reason| format!(" ({reason})"));
        refused(format!("the URL of PostgreSQL cannot be read{reason}: {EXPECTED}"))
    })?;
    if config.get_password().is_some() {
        return Err(refused(
            "the URL of PostgreSQL has a password: set the password apart from it (store.password_file)",
        ));
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
                "the URL of PostgreSQL has sslmode=disable, and its host is not this machine: the secrets of sessions would \
                 cross the network in the clear; remove it",
            ));
        }
        config.ssl_mode(SslMode::Require);
    }
    Ok(config)
}

// Without the URL, because a wrong URL may contain a password.
rotogate_core::debug_with!(PostgresOptions { schema, network.issuer });
