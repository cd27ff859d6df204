//! `rotogate store reset-clock`: repairs a store that was written with a clock ahead of time.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::super::output::Output;
use super::super::{CommandResult, Failure, audit_trail, keys, prompt, runtime};
use super::copy::no_gate_runs;
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::server::build::shared;
use crate::server::build::stores::redb_options;
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::redb::RedbStore;
use rotogate_config::{Config, RedbSettings, StoreConfig};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::reset_clock::{Ahead, RemembersTime, ahead, reset_clock};
use rotogate_core::token::MAX_SESSIONLESS_LIFETIME;
use rotogate_core::token::keyring::Keyring;
use rotogate_directories::users::edit;
use rotogate_kit::config::printable;

const GIVEN_UP: &str = "ends every session and every token issued so far, so all users must log in again. A \
                        `client_credentials` token that was issued while the clock was ahead is refused only until \
                        that time comes; to end it permanently, rotate the signing key";

#[derive(Serialize)]
struct ResetReport {
    reset: bool,
    latest: String,
    now: String,
    sessions_ended: u64,
    /// Users whose logins get 503 until their `sessions_valid_from`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users_ahead: Vec<String>,
}

/// Returns users whose `sessions_valid_from` is in the future.
fn users_ahead(config: &Config, now: Timestamp) -> Result<Vec<String>, Failure> {
    let Some(file) = config.users_file().ok().filter(|file| file.path().exists()) else { return Ok(Vec::new()) };
    let users = edit::list(file).map_err(Failure::failed)?;
    Ok(users.into_iter().filter(|listed| listed.user.sessions_valid_from > now).map(|listed| listed.username).collect())
}

pub(super) fn run(config: &Config, yes: bool, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    let _trail = audit_trail(config)?;
    let longest = keys::longest_access(config).max(MAX_SESSIONLESS_LIFETIME.saturating_add(config.issuer.leeway));
    let report = runtime()?.block_on(reset(config, &keyring, yes, longest))?;
    if report.reset {
        let ResetReport { latest, now, sessions_ended, .. } = &report;
        tracing::warn!(
            target: "rotogate::audit",
            event = "store_clock_reset",
            latest = %latest,
            now = %now,
            sessions_ended,
            "store clock set back"
        );
    }
    output.write(&report, || {
        let ResetReport { latest, now, sessions_ended, users_ahead, .. } = &report;
        let done = if report.reset {
            format!(
                "the store clock was set back from {latest} to {now}. {sessions_ended} sessions ended; their users \
                 must log in again"
            )
        } else {
            format!("the latest time in the store is {latest}, and the current time is {now}: nothing was changed")
        };
        match users_ahead.as_slice() {
            [] => done,
            users => format!(
                "{done}. These users cannot log in, because their `sessions_valid_from` in the users file is in the \
                 future; set it to {now}: {}",
                printable(&users.join(", "))
            ),
        }
    })
}

async fn reset(config: &Config, keyring: &Keyring, yes: bool, longest: Duration) -> Result<ResetReport, Failure> {
    let store = open(config, keyring).await?;
    no_gate_runs(&*store).await?;
    let found = ahead(&*store).await.map_err(Failure::failed)?;
    let Ahead { now, latest } = found;
    let mut report = ResetReport {
        reset: found.is_too_far(config.issuer.leeway),
        latest: latest.rfc3339().to_string(),
        now: now.rfc3339().to_string(),
        sessions_ended: 0,
        users_ahead: users_ahead(config, now)?,
    };
    if report.reset {
        let what = format!(
            "the latest time in the store is {}, but the current time is {}. A reset {GIVEN_UP}",
            report.latest, report.now
        );
        prompt::confirm(&what, "reset", yes)?;
        report.sessions_ended = reset_clock(&store, longest).await.map_err(Failure::failed)?;
    }
    store.finish().await.map_err(Failure::failed)?;
    Ok(report)
}

async fn open(config: &Config, keyring: &Keyring) -> Result<Arc<dyn RemembersTime>, Failure> {
    let store: Arc<dyn RemembersTime> = match &config.store {
        StoreConfig::Memory => {
            return Err(Failure::Failed("`store.kind` is \"memory\": there is no stored time to reset".into()));
        }
        StoreConfig::Redb(RedbSettings { path, .. }) => {
            if !path.exists() {
                return Err(Failure::Failed(format!("{}: there is no store", path.display())));
            }
            Arc::new(RedbStore::open(path, redb_options(config, keyring.id())).map_err(Failure::failed)?)
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let options = shared::of_postgres(config, settings, keyring.id()).map_err(Failure::failed)?;
            Arc::new(PostgresStore::connect(options).await.map_err(Failure::failed)?)
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let options = shared::of_redis(config, settings, keyring.id()).map_err(Failure::failed)?;
            Arc::new(RedisStore::connect(options).await.map_err(Failure::failed)?)
        }
    };
    Ok(store)
}
