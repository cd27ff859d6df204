//! `rotogate store copy`: copies sessions and revocations to another store. No gate may run on either store.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::super::output::Output;
use super::super::{CommandResult, Failure, audit_trail, load, runtime};
use super::beside;
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::server::build::shared;
use crate::server::build::stores::{Stores, open_stores, redb_options};
use rotogate::program::SPACES;
#[cfg(any(feature = "postgres", feature = "redis"))]
use rotogate::store::NetworkOptions;
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::redb::RedbStore;
use rotogate_config::{Config, RedbSettings, StoreConfig};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::store::copy::{Content, CopyTarget, copy, copy_rows};
use rotogate_core::store::rows::RowStore;
use rotogate_core::store::{Store, StoreError};
use rotogate_core::token::keyring::Keyring;

/// A gate without a heartbeat for this long is not running. Heartbeats come at least every 15 seconds.
const SILENT_FOR: Duration = Duration::from_secs(20);

#[derive(Serialize)]
struct CopyReport {
    sessions: u64,
    revocations: u64,
    content: String,
}

pub(super) fn run(config: &Config, to_config: &Path, output: Output) -> CommandResult {
    let to = load(to_config)?;
    if to.issuer.url != config.issuer.url {
        return Err(Failure::failed(format!(
            "{}: `issuer.url` differs from the issuer in the tokens of the existing sessions",
            to_config.display()
        )));
    }
    let _trail = audit_trail(config)?;
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    if Keyring::load(&to.issuer.keys).map_err(Failure::failed)?.id() != keyring.id() {
        return Err(Failure::failed(format!(
            "{}: the keyring is different; copy the key folder first",
            to_config.display()
        )));
    }
    let content = runtime()?.block_on(copied(config, &to, &keyring))?;
    tracing::info!(target: "rotogate::audit", event = "store_copied", %content, "store copied to another store");
    let Content { sessions, revocations, .. } = content;
    output.write(&CopyReport { sessions, revocations, content: content.to_string() }, || {
        format!(
            "copied and compared: {content}. Start the gates with {}. The old store is unchanged, but no gate may use \
             it any more",
            to_config.display()
        )
    })
}

fn name(store: &StoreConfig) -> String {
    match store {
        StoreConfig::Memory => "memory".to_owned(),
        StoreConfig::Redb(RedbSettings { path, .. }) => format!("redb {}", path.display()),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => format!("postgres {} {}", settings.url, settings.schema),
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => format!("redis {} {}", settings.urls.join(" "), settings.prefix),
    }
}

async fn copied(config: &Config, to: &Config, keyring: &Keyring) -> Result<Content, Failure> {
    match &config.store {
        StoreConfig::Memory => return Err(Failure::failed("`store.kind` is \"memory\": there is nothing to copy")),
        StoreConfig::Redb(RedbSettings { path, .. }) if !path.exists() => {
            return Err(Failure::failed(format!("{}: there is no store", path.display())));
        }
        _ => {}
    }
    let from = open_stores(config, keyring).await.map_err(Failure::failed)?;
    no_gate_runs(&*from.sessions).await?;
    let cut = SystemTime::new().wall();
    match &to.store {
        StoreConfig::Memory => Err(Failure::failed(
            "`store.kind` of the new store is \"memory\": the copy would be lost when this command ends",
        )),
        StoreConfig::Redb(RedbSettings { path, .. }) => {
            into_redb((&from, name(&config.store)), cut, (to, path), keyring).await
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let mut options = shared::of_postgres(to, settings, keyring.id()).map_err(Failure::failed)?;
            let mut copying = options.clone();
            begin_copy(&mut copying.network, name(&config.store));
            let target = PostgresStore::connect(copying).await.map_err(Failure::failed)?;
            let content = copy_all(&from, &target, cut).await.map_err(Failure::failed)?;
            options.network.accept_restored = true;
            PostgresStore::connect(options).await.map_err(Failure::failed)?;
            Ok(content)
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let mut options = shared::of_redis(to, settings, keyring.id()).map_err(Failure::failed)?;
            let mut copying = options.clone();
            begin_copy(&mut copying.network, name(&config.store));
            let target = RedisStore::connect(copying).await.map_err(Failure::failed)?;
            let content = copy_all(&from, &target, cut).await.map_err(Failure::failed)?;
            options.network.accept_restored = true;
            RedisStore::connect(options).await.map_err(Failure::failed)?;
            Ok(content)
        }
    }
}

/// The gate's mark file belongs to the previous store, so the copy does not use it.
#[cfg(any(feature = "postgres", feature = "redis"))]
fn begin_copy(network: &mut NetworkOptions, from: String) {
    network.high_water = None;
    network.copying = Some(from);
}

async fn copy_all<T: CopyTarget + RowStore>(from: &Stores, to: &T, cut: Timestamp) -> Result<Content, StoreError> {
    let content = copy(&*from.sessions, to, cut).await?;
    copy_rows(&*from.rows, to, &SPACES, cut).await?;
    to.end_copy().await.map(|()| content)
}

/// The new file has a temporary name until the copy is complete.
async fn into_redb(
    (from, of): (&Stores, String),
    cut: Timestamp,
    (to, path): (&Config, &Path),
    keyring: &Keyring,
) -> Result<Content, Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::failed(format!("{} exists already; copy into a new file", path.display())));
    }
    let part = beside(path, "copying");
    let mut options = redb_options(to, keyring.id());
    let mark = options.high_water.take();
    (options.accept_restored, options.copying) = (true, Some(of));
    let target = RedbStore::open(&part, options.clone()).map_err(Failure::failed)?;
    let content = copy_all(from, &target, cut).await;
    target.close().await.map_err(Failure::failed)?;
    let content = content.map_err(|error| {
        Failure::failed(format!(
            "{error}. Run the command again. If {} is the partial copy of another store, remove this file first",
            part.display()
        ))
    })?;
    std::fs::rename(&part, path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    (options.high_water, options.copying) = (mark, None);
    let whole = RedbStore::open(path, options).map_err(Failure::failed)?;
    whole.close().await.map_err(Failure::failed)?;
    Ok(content)
}

/// Fails if a gate runs on the store. A gate locks an embedded store, and sends heartbeats to a shared store.
/// Heartbeats far in the future come from a wrong clock.
pub(super) async fn no_gate_runs<S: Store + ?Sized>(store: &S) -> CommandResult {
    let Some(shared) = store.shared() else { return Ok(()) };
    let nodes = shared.nodes().await.map_err(Failure::failed)?;
    let now = shared.last_known_time().await.map_err(Failure::failed)?;
    let runs = |beat: Timestamp| now.since(beat) < SILENT_FOR && beat.since(now) < SILENT_FOR;
    let running: Vec<_> = nodes.iter().filter(|seen| runs(seen.beat)).collect();
    if running.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = running.iter().map(|seen| &*seen.row.node).collect();
    Err(Failure::failed(format!(
        "gates that sent a report in the last {} seconds still use the store: {}. Stop them, then try again",
        SILENT_FOR.as_secs(),
        names.join(", ")
    )))
}
