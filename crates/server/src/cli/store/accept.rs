//! `rotogate store accept-restored`: accepts a store that contradicts its mark file. No gate may run.

use serde::Serialize;

use super::super::output::Output;
use super::super::{CommandResult, Failure, audit_trail, runtime};
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::server::build::shared;
use crate::server::build::stores::redb_options;
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::redb::RedbStore;
use rotogate_config::{Config, RedbSettings, StoreConfig};
use rotogate_core::token::keyring::Keyring;

#[derive(Serialize)]
struct AcceptReport {
    /// Whether a mismatch between the store and its mark file was accepted. If false, nothing was changed.
    accepted: bool,
}

pub(super) fn run(config: &Config, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    let _trail = audit_trail(config)?;
    let accepted = runtime()?.block_on(async {
        // Nothing to accept.
        if open(config, &keyring, false).await.is_ok() {
            return Ok(false);
        }
        // This call still fails if the store has a different problem.
        open(config, &keyring, true).await.map(|()| true)
    })?;
    output.write(&AcceptReport { accepted }, || match accepted {
        true => "accepted: gates start on this store. Sessions and tokens that were revoked after this copy was made \
                 are valid again. To end all sessions, run `rotogate session revoke --all` when the gate runs"
            .to_owned(),
        false => "nothing to accept: the store matches its high-water mark".to_owned(),
    })
}

/// Opens the store in the same way as a gate. This also writes the mark file.
async fn open(config: &Config, keyring: &Keyring, accepts: bool) -> Result<(), Failure> {
    match &config.store {
        StoreConfig::Memory => Err(Failure::failed("`store.kind` is \"memory\": there is nothing to accept")),
        StoreConfig::Redb(RedbSettings { path, .. }) => {
            let mut options = redb_options(config, keyring.id());
            options.accept_restored = accepts;
            let store = RedbStore::open(path, options).map_err(Failure::failed)?;
            store.close().await.map_err(Failure::failed)
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let mut options = shared::of_postgres(config, settings, keyring.id()).map_err(Failure::failed)?;
            options.network.accept_restored = accepts;
            PostgresStore::connect(options).await.map(drop).map_err(Failure::failed)
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let mut options = shared::of_redis(config, settings, keyring.id()).map_err(Failure::failed)?;
            options.network.accept_restored = accepts;
            RedisStore::connect(options).await.map(drop).map_err(Failure::failed)
        }
    }
}
