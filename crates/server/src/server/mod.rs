//! The standalone gate: the layer around the reverse proxy, behind listeners of its own.
//!
//! `listener (TLS) → connection → access log → CORS → `[`GateService`](rotogate::gate::GateService)` → `[`Proxy`](crate::proxy::Proxy)

mod addresses;
pub mod admin;
pub(crate) mod assemble;
mod body;
mod connection;
mod cors;
mod listener;
pub(crate) mod metrics;
mod origin;
mod pace;
mod prepare;
mod proxy_protocol;
mod reload;
mod request;
mod sockets;
mod stream;
mod streams;
mod tally;
mod tls;
mod tracked;
pub(crate) mod users;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, StoreConfig};
use assemble::Assembled;
use listener::Listener;
use metrics::Metrics;
pub use prepare::{Prepared, prepare};
use rotogate::store::redb::RedbStore;
use sockets::Sockets;
pub use sockets::passed as passed_sockets;
pub(crate) use sockets::{Taken, taken};
use workers::Workers;

/// Why the gate could not start, or had to stop. The text says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(pub(crate) String);

impl ServerError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// What a running gate is told.
#[derive(Debug)]
pub enum Order {
    /// Take up this configuration, as far as that goes without a start.
    Reload(Box<Config>),
    /// End.
    Stop,
    /// End, and leave the sockets open for whoever comes next, who wants to listen on these addresses.
    HandOver(Vec<SocketAddr>),
}

/// What whoever comes next is given.
#[derive(Debug)]
pub struct Handover {
    /// The sockets, at which connections wait.
    pub sockets: Vec<std::net::TcpListener>,
    /// The configuration in force, as it was read last: to go on with, should the next one fail.
    pub config: Arc<Config>,
}

/// How a gate ended.
#[derive(Debug)]
pub enum Ended {
    /// Nobody listens any more.
    Stopped,
    /// Connections wait.
    HandedOver(Handover),
}

impl Ended {
    /// Who was told to make way for another and then to stop leaves nobody behind; other orders come too late.
    fn unless_stopped(&mut self, order: &Order) {
        if let (Self::HandedOver(_), Order::Stop) = (&*self, order) {
            tracing::info!("told to stop: nobody takes over");
            *self = Self::Stopped;
        }
    }
}

/// A gate that listens.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    admin: TcpListener,
    assembled: Assembled,
    config: Arc<Config>,
    /// All sockets once more, for whoever comes next.
    kept: Vec<std::net::TcpListener>,
    seen: reload::Seen,
}

impl Server {
    /// Puts everything together and binds the listeners, but for those whose sockets were passed. Nothing is served
    /// before [`Self::run`].
    ///
    /// # Errors
    /// Whatever of the configuration cannot be had: keys, store, users, addresses.
    pub async fn bind(
        config: Config,
        mut prepared: Prepared,
        passed: Vec<std::net::TcpListener>,
    ) -> Result<Self, ServerError> {
        // Ports first: a second gate started by mistake should say so, not that the store is in use.
        let mut sockets = Sockets::with(passed);
        let mut listeners = Vec::new();
        for listener in &config.server.listeners {
            let socket = sockets.at(&config, listener.address, &listener.key).await?;
            listeners.push(
                Listener::new(socket, listener)
                    .map_err(|wrong| ServerError::new(config.blame(&wrong.key, wrong.message).to_string()))?,
            );
        }
        let admin = sockets.at(&config, config.admin.listen, "admin.listen").await?;
        let kept = sockets.end();
        let mut seen = prepared.seen.take().unwrap_or_else(|| reload::Seen::of(&config));
        let assembled = assemble::assemble(&config, prepared).await?;
        if assembled.new_keys {
            seen.see_new_keys(&config);
        }
        Ok(Self { listeners, admin, assembled, config: Arc::new(config), kept, seen })
    }

    /// Where requests are accepted.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Which of [`Self::addresses`] speak TLS.
    pub fn are_secure(&self) -> Vec<bool> {
        self.listeners.iter().map(|listener| listener.tls().is_some()).collect()
    }

    /// Where operators are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// What was made because it was not there: for the greeting.
    pub fn assembled(&self) -> &Assembled {
        &self.assembled
    }

    /// Serves until it is told to stop, or nobody is left to tell it, then lets what runs finish, for at most
    /// `drain_timeout`.
    ///
    /// # Errors
    /// When the store cannot be closed in order.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) -> Result<Ended, ServerError> {
        let own = self.addresses().into_iter().chain(self.admin_address()).collect();
        let Self { listeners, admin, assembled, config, mut kept, seen } = self;
        let (stopping, stopped) = watch::channel(false);
        let give_up = match &config.store {
            StoreConfig::Redb { give_up, .. } => *give_up,
            StoreConfig::Memory => None,
        };
        let workers = config.server.workers;
        let metrics = Arc::new(Metrics::new(assembled.gate.clone(), workers));
        let state = Arc::new(request::State::new(&config, &assembled, Arc::clone(&metrics))?);
        let limits = Arc::new(connection::Limits::new(&config.server));
        let config = Arc::new(ArcSwap::from(config));
        let live = reload::Live {
            config: Arc::clone(&config),
            gate: assembled.gate.clone(),
            proxy: assembled.proxy.clone(),
            limits: Arc::clone(&limits),
            listeners: listeners.iter().map(reload::OfListener::new).collect(),
            trusted: assembled.trusted.iter().cloned().map(reload::Trusted::new).collect(),
        };
        let watching = reload::watch(live, seen);
        let admin_state = Arc::new(admin::State {
            gate: assembled.gate.clone(),
            token: assembled.admin_token.clone(),
            store: assembled.redb.clone(),
            users: Arc::clone(&assembled.users),
            listening: own,
            metrics,
            hosts: config.load().admin.hosts.clone(),
            stopping: stopped.clone(),
        });
        let admin_side = AdminSide::start(admin, admin_state)?;
        let workers = Workers::start(workers);
        let workers =
            Arc::new(workers.map_err(|error| ServerError::new(format!("no thread can be started: {error}")))?);
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            let (state, limits, workers) = (Arc::clone(&state), Arc::clone(&limits), Arc::clone(&workers));
            accepting.spawn(connection::serve(listener, state, limits, workers, stopped.clone()));
        }
        let mut lost = std::pin::pin!(store_is_lost(assembled.redb.clone(), give_up));
        let mut gave_up = None;
        let mut ended = loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                error = &mut lost => {
                    gave_up = Some(error);
                    Some(Order::Stop)
                }
            };
            match order {
                Some(Order::Reload(config)) => watching.take(*config).await,
                Some(Order::HandOver(wanted)) => match hand_over(&assembled, &kept, &wanted).await {
                    Ok(more) => {
                        tracing::info!("starting anew; connections wait meanwhile");
                        kept.extend(more);
                        break Ended::HandedOver(Handover { sockets: kept, config: config.load_full() });
                    }
                    Err(error) => tracing::error!(error, "nothing is started anew; this gate goes on"),
                },
                Some(Order::Stop) | None => {
                    // Nobody is to wait there for who does not come.
                    drop(kept);
                    break Ended::Stopped;
                }
            }
        };
        tracing::info!("stopping: no new connections, what runs may finish");
        let _ = stopping.send(true);
        assembled.gate.close_connections();
        let drain_timeout = config.load().server.drain_timeout;
        let in_time = {
            let drained = async { while accepting.join_next().await.is_some() {} };
            let mut drained = std::pin::pin!(tokio::time::timeout(drain_timeout, drained));
            loop {
                tokio::select! {
                    in_time = &mut drained => break in_time.is_ok(),
                    Some(order) = orders.recv() => ended.unless_stopped(&order),
                }
            }
        };
        if !in_time {
            tracing::warn!("some requests did not finish in time and were cut off");
        }
        accepting.shutdown().await;
        drop(workers);
        let flushed = assembled.gate.flush().await;
        drop(admin_side);
        assembled.close().await;
        if let Some(error) = gave_up {
            return Err(error);
        }
        match (flushed, &ended) {
            (Ok(()), _) => {}
            // A store that broke at the last moment is no reason to leave nobody: whoever comes next judges it.
            (Err(error), Ended::HandedOver(_)) => tracing::error!(%error, "confirmations could not be written"),
            (Err(error), Ended::Stopped) => {
                return Err(ServerError::new(format!("confirmations could not be written: {error}")));
            }
        }
        while let Ok(order) = orders.try_recv() {
            ended.unless_stopped(&order);
        }
        tracing::info!("stopped");
        Ok(ended)
    }
}

/// Waits until the store could not be written for as long as it may.
async fn store_is_lost(store: Option<RedbStore>, give_up: Option<Duration>) -> ServerError {
    let (Some(store), Some(give_up)) = (store, give_up) else { return std::future::pending().await };
    let mut looks = tokio::time::interval(Duration::from_secs(1).min(give_up));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if store.failed_for().is_some_and(|failed_for| failed_for >= give_up) {
            let longest = humantime::format_duration(give_up);
            return ServerError::new(format!(
                "the store {} could not be written for {longest} (store.give_up): the gate ends. Nothing that was \
                 acknowledged is lost. Make room on its disk, and start the gate again",
                store.path().display()
            ));
        }
    }
}

/// What has to be so before anything is given up for whoever comes next: the store takes writes, and the addresses that
/// are new can be had. Gives back the sockets there.
async fn hand_over(
    assembled: &Assembled,
    kept: &[std::net::TcpListener],
    wanted: &[SocketAddr],
) -> Result<Vec<std::net::TcpListener>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the store could not be opened again: {error}");
    assembled.gate.flush().await.map_err(|error| failed(&error))?;
    if let Some(store) = &assembled.redb {
        rotogate::store::Store::check(store).await.map_err(|error| failed(&error))?;
    }
    sockets::open_more(kept, wanted)
}

/// The admin listener, on a thread of its own: however many requests wait for their turn on the others, health is
/// answered.
struct AdminSide(Option<Runtime>);

impl AdminSide {
    fn start(listener: TcpListener, state: Arc<admin::State>) -> Result<Self, ServerError> {
        let failed = |error: std::io::Error| ServerError::new(format!("the admin listener cannot be served: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rotogate-admin")
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = listener.into_std().map_err(failed)?;
        runtime.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => admin::serve(listener, state).await,
                Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
            }
        });
        Ok(Self(Some(runtime)))
    }
}

impl Drop for AdminSide {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever waits for an answer there waits for a process that ends.
            runtime.shutdown_background();
        }
    }
}
