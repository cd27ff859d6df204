//! The shared store of several gates.

use std::path::{Path, PathBuf};

#[cfg(any(feature = "postgres", feature = "redis"))]
use rotogate::store::NetworkOptions;
#[cfg(feature = "postgres")]
use rotogate::store::PostgresOptions;
#[cfg(feature = "redis")]
use rotogate::store::RedisOptions;
use rotogate_core::private_file::read_private;
use rotogate_core::store::{Staleness, StoreError};
use rotogate_core::token::keyring::Keyring;
use secrecy::SecretString;
use uuid::Uuid;

use crate::server::error::KeyFault;
#[cfg(feature = "postgres")]
use rotogate_config::PostgresSettings;
use rotogate_config::{Config, ConfigErrors, SharedSettings, StoreConfig};
#[cfg(feature = "redis")]
use rotogate_config::{RedisSettings, SentinelSettings};

/// Connects to the shared store as at startup, for `check --online`.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    // Without a keyring, the id is random and matches no existing store.
    let keyring = Keyring::load_if_there(&config.issuer.keys).ok().flatten();
    let keyring = keyring.map_or_else(Uuid::new_v4, |keyring| keyring.id());
    let failed = |error: StoreError| KeyFault::new("store", error.to_string());
    let found = match &config.store {
        StoreConfig::Memory | StoreConfig::Redb { .. } => return Ok(Vec::new()),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => match of_postgres(config, settings, keyring) {
            Ok(options) => rotogate::store::inspect_postgres(options).await.map_err(failed),
            Err(fault) => Err(fault),
        },
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => match of_redis(config, settings, keyring) {
            Ok(options) => rotogate::store::inspect_redis(options).await.map_err(failed),
            Err(fault) => Err(fault),
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
                    "a round trip to the store takes {away:.0} ms. With a value below {needed_ms}ms, a gate would \
                     refuse valid tokens: raise `staleness` to at least {needed_ms}ms"
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

fn authorities(ca: &Path) -> Result<Vec<u8>, KeyFault> {
    std::fs::read(ca).map_err(|error| KeyFault::new("store.ca", format!("{}: {error}", ca.display())))
}

fn own_certificate((cert, key): &(PathBuf, PathBuf)) -> Result<(Vec<u8>, SecretString), KeyFault> {
    let of_pair = |message: String| KeyFault::new("store.client_cert", message);
    let pem = std::fs::read(cert).map_err(|error| of_pair(format!("{}: {error}", cert.display())))?;
    let key = read_private(key).map_err(of_pair)?;
    Ok((pem, SecretString::from(key.as_str())))
}

/// After startup, only the password file is read again.
#[cfg(any(feature = "postgres", feature = "redis"))]
fn network(config: &Config, settings: &SharedSettings, keyring: Uuid) -> Result<NetworkOptions, KeyFault> {
    // The engine reads `staleness`.
    let SharedSettings { password_file, ca, client_cert, mark, staleness: _ } = settings;
    let options = NetworkOptions {
        ca: ca.as_deref().map(authorities).transpose()?,
        client_certificate: client_cert.as_ref().map(own_certificate).transpose()?,
        high_water: Some(mark.clone()),
        ..NetworkOptions::new(config.issuer.url.as_str(), keyring, config.issuer.leeway)
    };
    Ok(match password_file {
        Some(file) => options.password_file(file),
        None => options,
    })
}

#[cfg(feature = "postgres")]
pub(crate) fn of_postgres(
    config: &Config,
    settings: &PostgresSettings,
    keyring: Uuid,
) -> Result<PostgresOptions, KeyFault> {
    let PostgresSettings { url, listen_url, schema, has_unnamed_statements, connections, shared } = settings;
    let mut options = PostgresOptions::new(url.as_str(), network(config, shared, keyring)?)
        .schema(schema.as_str())
        .connections(*connections);
    if let Some(url) = listen_url {
        options = options.listen_url(url.as_str());
    }
    Ok(if *has_unnamed_statements { options.unnamed_statements() } else { options })
}

#[cfg(feature = "redis")]
pub(crate) fn of_redis(config: &Config, settings: &RedisSettings, keyring: Uuid) -> Result<RedisOptions, KeyFault> {
    let RedisSettings { urls, sentinel, cluster, username, prefix, assume_noeviction, wait_replicas, shared } =
        settings;
    let (first, more) = urls.split_first().ok_or_else(|| KeyFault::new("store.urls", "is empty"))?;
    let mut options = RedisOptions::new(first.as_str(), network(config, shared, keyring)?)
        .more_urls(more)
        .prefix(prefix.as_str())
        .wait_replicas(*wait_replicas);
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
    if *cluster {
        options = options.cluster();
    }
    if *assume_noeviction {
        options = options.assume_noeviction();
    }
    Ok(options)
}
