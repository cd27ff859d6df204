//! The standalone gate: listeners, and the gate layer around the reverse proxy.
//!
//! `listener (TLS) → connection → access log → CORS → `[`GateService`](rotogate::gate::GateService)` →
//! `[`Proxy`](rotogate_proxy::Proxy)

pub(crate) mod build;
mod error;
mod listen;
pub(crate) mod operate;
mod run;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use build::admin_tokens::AdminToken;
use build::assemble::{self, GateParts};
use build::files::LastRead;
pub(crate) use build::prepare::Inspected;
pub use build::prepare::{StartPlan, prepare};
pub use error::{KeyFault, ServerError};
use listen::listener::Listener;
use listen::sockets::Sockets;
pub use listen::sockets::passed as passed_sockets;
pub(crate) use listen::sockets::{UnavailableAddress, unavailable_addresses};
pub use operate::reload::read_again;
use rotogate_config::Config;
use run::RunningGate;
pub(crate) use run::refuse_upgrade;
use serve::authorizer::Questions;

/// An instruction to a running gate.
#[derive(Debug)]
pub enum Order {
    /// Apply this configuration.
    Reload(Box<Config>),
    /// A requested reload failed, because the configuration is invalid.
    RefusedReload,
    /// Stop the gate.
    Stop,
    /// Stop the gate, but keep the sockets open for a new program that listens on these addresses.
    Upgrade(Vec<SocketAddr>),
}

/// The state of an in-place upgrade.
#[derive(Debug)]
pub struct UpgradeState {
    /// The listening sockets.
    pub sockets: Vec<std::net::TcpListener>,
    /// The configuration to fall back to if the new program fails.
    pub config: Arc<Config>,
}

/// How a gate ended.
#[derive(Debug)]
pub enum ShutdownKind {
    /// The listening sockets are closed.
    Stopped,
    /// The sockets are still open, and connections queue on them.
    Upgrade(UpgradeState),
}

#[derive(Debug)]
struct BoundListener {
    listener: Listener,
    questions: Option<Arc<Questions>>,
}

/// The address of a public listener.
#[derive(Clone, Copy, Debug)]
pub struct PublicAddress {
    /// The address of the socket.
    pub address: SocketAddr,
    /// Whether the listener speaks TLS.
    pub is_secure: bool,
}

impl std::fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.address)
    }
}

/// A gate with bound sockets.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<BoundListener>,
    admin: TcpListener,
    probes: Option<TcpListener>,
    parts: GateParts,
    config: Arc<Config>,
    /// A second handle of each listening socket, for an in-place upgrade.
    spare_sockets: Vec<std::net::TcpListener>,
    last_read: LastRead,
}

impl Server {
    /// Builds all parts and binds the listeners. Uses the sockets in `passed` if their addresses match. Requests are
    /// not served before [`Self::run`].
    ///
    /// # Errors
    /// The keys, the store or the users cannot be opened, or an address cannot be bound.
    pub async fn bind(
        config: Config,
        mut plan: StartPlan,
        passed: Vec<std::net::TcpListener>,
    ) -> Result<Self, ServerError> {
        // The ports are bound first. If a second gate is started by accident, the error names the port instead of the
        // locked store.
        let mut sockets = Sockets::with(passed);
        let mut listeners = Vec::new();
        for listener in config.listeners() {
            let socket = sockets.listener_at(&config, listener.address, &listener.key).await?;
            listeners.push(Listener::new(socket, listener).map_err(|fault| ServerError::at(&config, fault))?);
        }
        let of_authorizers = listeners.split_off(config.server.listeners.len());
        let public = listeners.into_iter();
        let mut bound: Vec<_> = public.map(|listener| BoundListener { listener, questions: None }).collect();
        for (listener, authorizer) in of_authorizers.into_iter().zip(&config.authorizers) {
            let questions = Questions::new(&config, authorizer);
            let listener = listener.asked_by(questions.asking());
            bound.push(BoundListener { listener, questions: Some(Arc::new(questions)) });
        }
        let admin = sockets.listener_at(&config, config.admin.listen, "admin.listen").await?;
        let probes = match config.admin.probes {
            Some(address) => Some(sockets.listener_at(&config, address, "admin.probes").await?),
            None => None,
        };
        let spare_sockets = sockets.into_spare();
        let mut last_read = plan.last_read.take().unwrap_or_else(|| LastRead::new(&config));
        let config = Config { warnings: plan.warnings.clone(), ..config };
        let parts = assemble::assemble(&config, plan).await?;
        parts.gate.suspend_grants_while(Arc::clone(crate::log::audit_is_failing()));
        if parts.new_keys {
            last_read.refresh_own_keys(&config);
        }
        Ok(Self { listeners: bound, admin, probes, parts, config: Arc::new(config), spare_sockets, last_read })
    }

    /// Returns the addresses of the public listeners.
    pub fn addresses(&self) -> Vec<PublicAddress> {
        let public = self.listeners.iter().filter(|bound| bound.questions.is_none());
        let of = |BoundListener { listener, .. }: &_| {
            Some(PublicAddress { address: listener.address()?, is_secure: listener.tls().is_some() })
        };
        public.filter_map(of).collect()
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// Returns the addresses of the listeners for administration and health checks.
    pub fn admin_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let probes = self.probes.as_ref().and_then(|probes| probes.local_addr().ok());
        self.admin_address().into_iter().chain(probes)
    }

    /// Returns the addresses of all listeners.
    pub fn bound_addresses(&self) -> Vec<SocketAddr> {
        let own = self.listeners.iter().filter_map(|bound| bound.listener.address());
        own.chain(self.admin_addresses()).collect()
    }

    /// Returns the parts of the gate, including the list of files that this start created.
    pub fn parts(&self) -> &GateParts {
        &self.parts
    }

    /// Serves until an order to stop arrives, or until the sender is dropped. Requests in flight then have
    /// `drain_timeout` to finish.
    ///
    /// # Errors
    /// The store cannot be closed cleanly.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) -> Result<ShutdownKind, ServerError> {
        let mut gate = RunningGate::start(self)?;
        let shutdown = gate.take_orders(&mut orders).await;
        gate.drain(shutdown, orders).await
    }
}
