//! The admin operation that returns the state of the gate.

use std::net::SocketAddr;

use rotogate_core::clock::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Finding;
use super::state::GateState;
use super::{AdminState, health, rfc3339};
use crate::server::operate::reload::ReloadSource;
use rotogate_config::StoreConfig;

/// The gate as a whole.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    pub(crate) version: String,
    /// The id of the process.
    pub(crate) pid: u32,
    /// The time when the gate began to serve (RFC 3339).
    pub(super) started: String,
    /// Whether the gate is ready, as in `/readyz`.
    pub(super) ready: bool,
    /// The reason why the gate is not ready, or the state in which it serves.
    pub(super) readiness: String,
    /// The state of the gate: `ready`, `ready, with problems`, `serving with errors`, `refusing`, `failing` or `not
    /// ready`.
    pub(super) state: String,
    /// The problems, with the worst one first.
    pub(super) problems: Vec<String>,
    /// Every address of the gate, including those of the admin listener.
    #[schema(value_type = Vec<String>)]
    pub(super) listeners: Vec<SocketAddr>,
    /// Open connections of clients.
    pub(super) connections: usize,
    /// Requests in flight to upstreams.
    pub(super) requests_in_flight: usize,
    pub(super) store: StoreStatus,
    /// The sources that the gate reads again while it runs.
    pub(super) reloads: Vec<ReloadStatus>,
    /// The warnings of `rotogate check` about the configuration in use.
    pub(super) warnings: Vec<Finding>,
}

/// The store.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct StoreStatus {
    /// `redb`, `memory`, `postgres` or `redis`.
    pub(super) kind: String,
    pub(super) up: bool,
}

/// A source that the gate reads again while it runs.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadStatus {
    /// `configuration`, `keys`, `issuers`, `certificates` or `upstreams`.
    pub(super) source: String,
    /// Whether the last change was refused. The log contains the reason.
    pub(super) refused: bool,
    /// The time when a change last took effect (RFC 3339).
    pub(super) taken: String,
}

/// Shows the version, the state, counts, and the results of the last reloads.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "status", tag = "status",
    responses((status = 200, description = "done", body = Status))
)]
pub(super) async fn show(state: &AdminState) -> Status {
    let (ready, readiness) = health::readiness(state).await;
    let found = GateState::judged(state, ready, &readiness);
    let config = state.config.load_full();
    let reload = |source: ReloadSource| {
        let (refused, taken) = state.outcomes.get(source);
        ReloadStatus { source: source.name().to_owned(), refused, taken: rfc3339(Timestamp::from_secs(taken)) }
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: rfc3339(state.began),
        ready,
        readiness,
        state: found.word.to_owned(),
        problems: found.problems.into_iter().map(|problem| problem.what).collect(),
        listeners: state.listening.clone(),
        connections: state.listeners.iter().flat_map(|listener| listener.counts.now()).sum(),
        requests_in_flight: state.serving.load().proxy.report().iter().map(|report| report.in_flight).sum(),
        store: StoreStatus { kind: kind(&config.store).to_owned(), up: health::is_store_up(state).await },
        reloads: ReloadSource::ALL.map(reload).into(),
        warnings: config.warnings.iter().map(Finding::new).collect(),
    }
}

const fn kind(store: &StoreConfig) -> &'static str {
    match store {
        StoreConfig::Memory => "memory",
        StoreConfig::Redb { .. } => "redb",
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(_) => "postgres",
        #[cfg(feature = "redis")]
        StoreConfig::Redis(_) => "redis",
    }
}
