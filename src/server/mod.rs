//! The standalone gate: the layer around the reverse proxy, behind listeners of its own.
//!
//! `listener (TLS) → connection → access log → CORS → `[`GateService`](crate::gate::GateService)` → `[`Proxy`](crate::proxy::Proxy)

mod addresses;
pub mod assemble;
mod body;
mod connection;
mod cors;
mod listener;
pub(crate) mod metrics;
mod origin;
mod pace;
mod proxy_protocol;
mod reload;
mod request;
mod shed;
mod stream;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admin;
use crate::config::Config;
use assemble::Assembled;
use listener::Listener;
use metrics::Metrics;
use shed::InFlight;
pub(crate) use tls::check as check_certificates;

/// Why the gate could not start, or had to stop. The text says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(pub(crate) String);

impl ServerError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A gate that listens.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    admin: TcpListener,
    assembled: Assembled,
    config: Arc<Config>,
}

impl Server {
    /// Puts everything together and binds the listeners. Nothing is served before [`Self::run`].
    ///
    /// # Errors
    /// Whatever of the configuration cannot be had: keys, store, users, addresses.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        // Ports first: a second gate started by mistake should say so, not that the store is in use.
        let mut listeners = Vec::new();
        for listener in &config.server.listeners {
            let socket = bind(listener.address, &listener.key).await?;
            listeners.push(Listener::new(socket, listener).map_err(ServerError::new)?);
        }
        let admin = bind(config.admin.listen, "admin.listen").await?;
        let assembled = assemble::assemble(&config).await?;
        Ok(Self { listeners, admin, assembled, config: Arc::new(config) })
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

    /// Serves until `stop` ends, then lets what runs finish, for at most `drain_timeout`.
    ///
    /// # Errors
    /// When the store cannot be closed in order.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { listeners, admin, assembled, config } = self;
        let (stopping, stopped) = watch::channel(false);
        let certificates = listeners.iter().filter_map(Listener::tls).collect();
        let _watching = reload::watch(&config, &assembled, certificates)?;
        let in_flight = Arc::new(InFlight::new(config.server.max_requests));
        let metrics = Arc::new(Metrics::new(assembled.gate.clone(), Arc::clone(&in_flight)));
        let state = Arc::new(request::State::new(&config, &assembled, Arc::clone(&metrics), in_flight)?);
        let admin_state = Arc::new(admin::State {
            gate: assembled.gate.clone(),
            token: assembled.admin_token.clone(),
            store: assembled.redb.clone(),
            metrics,
            stopping: stopped.clone(),
        });
        let admin_side = AdminSide::start(admin, admin_state)?;
        let limits = connection::Limits::new(&config.server);
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            let stopped = stopped.clone();
            accepting.spawn(connection::serve(listener, Arc::clone(&state), limits.clone(), stopped));
        }
        stop.await;
        tracing::info!("stopping: no new connections, what runs may finish");
        let _ = stopping.send(true);
        assembled.gate.close_connections();
        if tokio::time::timeout(config.server.drain_timeout, async { while accepting.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tracing::warn!("some requests did not finish in time and were cut off");
        }
        accepting.shutdown().await;
        let flushed = assembled.gate.flush().await;
        drop(admin_side);
        assembled.close().await;
        flushed.map_err(|error| ServerError::new(format!("confirmations could not be written: {error}")))?;
        tracing::info!("stopped");
        Ok(())
    }
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

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there, perhaps another rotogate; stop it, or choose another port"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege; choose a higher one, or grant CAP_NET_BIND_SERVICE"
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "see the error",
        };
        ServerError::new(format!("cannot listen on {address} ({key} in gateway.toml): {error}: {hint}"))
    })
}
