//! The store that several gates share, from its section of the configuration.

use std::path::{Path, PathBuf};

#[cfg(feature = "postgres")]
use rotogate::store::{PostgresOptions, PostgresStore};
#[cfg(feature = "redis")]
use rotogate::store::{RedisOptions, RedisStore};
use rotogate_core::private_file::read_private;
use rotogate_core::store::Staleness;
use rotogate_core::token::keyring::Keyring;
use secrecy::SecretString;
use uuid::Uuid;

use crate::config::{Config, ConfigErrors, SharedSettings, StoreConfig};
#[cfg(feature = "postgres")]
use crate::config::{PostgresSettings, Statements};
#[cfg(feature = "redis")]
use crate::config::{RedisSettings, SentinelSettings};
use crate::server::error::KeyFault;

/// Asks the store's server what a start would, for `check --online`.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    // Without keys, a start would make them: no store has them yet.
    let keyring = Keyring::load_if_there(&config.issuer.keys).ok().flatten();
    let keyring = keyring.map_or_else(Uuid::new_v4, |keyring| keyring.id());
    let found = match &config.store {
        StoreConfig::Memory | StoreConfig::Redb { .. } => return Ok(Vec::new()),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => match of_postgres(config, settings, keyring) {
            Ok(options) => {
                PostgresStore::inspect(options).await.map_err(|error| KeyFault::new("store", error.to_string()))
            }
            Err(message) => Err(message),
        },
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => match of_redis(config, settings, keyring) {
            Ok(options) => {
                RedisStore::inspect(options).await.map_err(|error| KeyFault::new("store", error.to_string()))
            }
            Err(message) => Err(message),
        },
    };
    let found = found.and_then(|server| {
        let staleness = config.store.staleness().unwrap_or_default().limit;
        let needed = Staleness::needed_for(server.round_trip);
        let (away, needed_ms) = (server.round_trip.as_secs_f64() * 1e3, needed.as_millis());
        if staleness < needed {
            return Err(KeyFault::new(
                "store.staleness",
                format!(
                    "the server is {away:.0} ms away (a round trip): with less than {needed_ms}ms a gate refuses good tokens. \
                     Raise it to that at least"
                ),
            ));
        }
        Ok(format!("{}; a round trip takes {away:.1} ms", server.found))
    });
    match found {
        Ok(line) => Ok(vec![line]),
        Err(KeyFault { key, message }) => Err(ConfigErrors::single(config.blame(&key, message))),
    }
}

/// The authorities of the server's certificate.
fn authorities(ca: &Path) -> Result<Vec<u8>, KeyFault> {
    std::fs::read(ca).map_err(|error| KeyFault::new("store.ca", format!("{}: {error}", ca.display())))
}

/// The gate's own certificate, and its key.
fn own_certificate((cert, key): &(PathBuf, PathBuf)) -> Result<(Vec<u8>, SecretString), KeyFault> {
    let of_pair = |message: String| KeyFault::new("store.client_cert", message);
    let pem = std::fs::read(cert).map_err(|error| of_pair(format!("{}: {error}", cert.display())))?;
    let key = read_private(key).map_err(of_pair)?;
    Ok((pem, SecretString::from(key.as_str())))
}

/// What the files of the section say, besides. They are read at a start only, but for the password.
#[cfg(feature = "postgres")]
pub(crate) fn of_postgres(
    config: &Config,
    settings: &PostgresSettings,
    keyring: Uuid,
) -> Result<PostgresOptions, KeyFault> {
    let PostgresSettings {
        url,
        listen_url,
        schema,
        statements,
        connections,
        // The engine has the staleness.
        shared: SharedSettings { password_file, ca, client_cert, mark, accept_restored_store, staleness: _ },
    } = settings;
    let issuer = &config.issuer;
    let mut options = PostgresOptions::new(url.as_str(), issuer.url.as_str(), keyring, issuer.leeway)
        .schema(schema.as_str())
        .connections(*connections)
        .high_water(mark);
    if *accept_restored_store {
        options = options.accept_restored();
    }
    if let Some(url) = listen_url {
        options = options.listen_url(url.as_str());
    }
    if let Some(file) = password_file {
        options = options.password_file(file);
    }
    if let Some(ca) = ca {
        options = options.ca(authorities(ca)?);
    }
    if let Some(pair) = client_cert {
        let (certificate, key) = own_certificate(pair)?;
        options = options.client_certificate(certificate, key);
    }
    Ok(match statements {
        Statements::Named => options,
        Statements::Unnamed => options.unnamed_statements(),
    })
}

/// What the files of the section say, besides. They are read at a start only, but for the passwords.
#[cfg(feature = "redis")]
pub(crate) fn of_redis(config: &Config, settings: &RedisSettings, keyring: Uuid) -> Result<RedisOptions, KeyFault> {
    let RedisSettings {
        urls,
        sentinel,
        cluster,
        username,
        prefix,
        assume_noeviction,
        wait_replicas,
        wait_fsync,
        // The engine has the staleness.
        shared: SharedSettings { password_file, ca, client_cert, mark, accept_restored_store, staleness: _ },
    } = settings;
    let issuer = &config.issuer;
    let (first, more) = urls.split_first().ok_or_else(|| KeyFault::new("store.urls", "is empty"))?;
    let mut options = RedisOptions::new(first.as_str(), issuer.url.as_str(), keyring, issuer.leeway)
        .more_urls(more)
        .prefix(prefix.as_str())
        .high_water(mark);
    if *accept_restored_store {
        options = options.accept_restored();
    }
    if let Some(SentinelSettings { name, username, password_file }) = sentinel {
        options = options.sentinel(name.as_str());
        if let Some(name) = username {
            options = options.sentinel_username(name.as_str());
        }
        if let Some(file) = password_file {
            options = options.sentinel_password_file(file);
        }
    }
    if let Some(name) = username {
        options = options.username(name.as_str());
    }
    if let Some(file) = password_file {
        options = options.password_file(file);
    }
    if let Some(ca) = ca {
        options = options.ca(authorities(ca)?);
    }
    if let Some(pair) = client_cert {
        let (certificate, key) = own_certificate(pair)?;
        options = options.client_certificate(certificate, key);
    }
    if *cluster {
        options = options.cluster();
    }
    options = options.wait_replicas(*wait_replicas);
    if *wait_fsync {
        options = options.wait_fsync();
    }
    if *assume_noeviction {
        options = options.assume_noeviction();
    }
    Ok(options)
}
