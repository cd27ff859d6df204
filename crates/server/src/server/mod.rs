//! The standalone gate: the layer around the reverse proxy, behind listeners of its own.
//!
//! `listener (TLS) → connection → access log → CORS → `[`GateService`](rotogate::gate::GateService)` →
//! `[`Proxy`](crate::proxy::Proxy)

pub(crate) mod build;
mod error;
mod listen;
pub(crate) mod operate;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::HeaderName;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::trace::Tracer;
pub use build::admin_tokens::AdminToken;
use build::assemble::{self, GateParts};
use build::files::LastRead;
pub(crate) use build::prepare::Inspected;
pub use build::prepare::{StartPlan, prepare};
pub use error::{KeyFault, ServerError};
use listen::connection;
use listen::limits::Limits;
use listen::listener::Listener;
pub use listen::sockets::passed as passed_sockets;
use listen::sockets::{self, Sockets};
pub(crate) use listen::sockets::{UnavailableAddress, unavailable_addresses};
use listen::workers::Workers;
use operate::metrics::{self, Metrics};
pub use operate::reload::read_again;
use operate::{admin, reload, watchdog};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::engine::Unpaid;
use rotogate::store::redb::RedbStore;
use serve::authorizer::Questions;
use serve::handler::GateHandler;
use serve::tally::Tally;
use serve::{drain, request};

/// An instruction to a running gate.
#[derive(Debug)]
pub enum Order {
    /// Apply this configuration, as far as a reload can.
    Reload(Box<Config>),
    /// Another configuration was asked for and cannot be used: the log says why.
    RefusedReload,
    /// Stop.
    Stop,
    /// Stop for an in-place upgrade: keep the sockets open for the next program, which listens on these addresses.
    Upgrade(Vec<SocketAddr>),
}

/// What an in-place upgrade passes to the next program.
#[derive(Debug)]
pub struct UpgradeState {
    /// The listening sockets, with their queued connections.
    pub sockets: Vec<std::net::TcpListener>,
    /// The configuration in force. The process falls back to it if the next program fails.
    pub config: Arc<Config>,
}

/// How a gate ended.
#[derive(Debug)]
pub enum ShutdownKind {
    /// The listening sockets are closed.
    Stopped,
    /// The sockets are open, and connections queue on them.
    Upgrade(UpgradeState),
}

impl ShutdownKind {
    /// A `Stop` during an in-place upgrade cancels the upgrade. Other orders are ignored by then.
    fn cancel_upgrade_on_stop(&mut self, order: &Order) {
        if let (Self::Upgrade(_), Order::Stop) = (&*self, order) {
            tracing::info!("in-place upgrade cancelled by a stop");
            *self = Self::Stopped;
        }
    }
}

/// A listener, and what it answers if other proxies ask there.
#[derive(Debug)]
struct BoundListener {
    listener: Listener,
    questions: Option<Arc<Questions>>,
}

/// Where clients send their requests.
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

/// A gate whose sockets are bound.
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
    /// Builds everything and binds the listeners. Sockets in `passed` are used instead of binding their addresses.
    /// Serves nothing before [`Self::run`].
    ///
    /// # Errors
    /// Keys, store, users or addresses of the configuration cannot be had.
    pub async fn bind(
        config: Config,
        mut plan: StartPlan,
        passed: Vec<std::net::TcpListener>,
    ) -> Result<Self, ServerError> {
        // Ports first: a second gate that was started by mistake should report the port, not the locked store.
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
        let mut last_read = plan.last_read.take().unwrap_or_else(|| LastRead::of(&config));
        let config = Config { warnings: plan.warnings.clone(), ..config };
        let parts = assemble::assemble(&config, plan).await?;
        parts.gate.suspend_grants_while(Arc::clone(crate::log::audit_is_failing()));
        if parts.new_keys {
            last_read.refresh_own_keys(&config);
        }
        Ok(Self { listeners: bound, admin, probes, parts, config: Arc::new(config), spare_sockets, last_read })
    }

    /// The addresses of the public listeners.
    pub fn addresses(&self) -> Vec<PublicAddress> {
        let public = self.listeners.iter().filter(|bound| bound.questions.is_none());
        let of = |BoundListener { listener, .. }: &_| {
            Some(PublicAddress { address: listener.address()?, is_secure: listener.tls().is_some() })
        };
        public.filter_map(of).collect()
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// The addresses of the admin listener, and of the one for health checks.
    pub fn admin_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let probes = self.probes.as_ref().and_then(|probes| probes.local_addr().ok());
        self.admin_address().into_iter().chain(probes)
    }

    /// What this start built, and what it created because it was missing. The greeting shows it.
    pub fn parts(&self) -> &GateParts {
        &self.parts
    }

    /// Serves until an order to stop, or until the sender of orders is gone. Requests in flight then have
    /// `drain_timeout` to finish.
    ///
    /// # Errors
    /// The store cannot be closed cleanly.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) -> Result<ShutdownKind, ServerError> {
        let own =
            self.listeners.iter().filter_map(|bound| bound.listener.address()).chain(self.admin_addresses()).collect();
        let Self { listeners, admin, probes, parts, config, mut spare_sockets, last_read } = self;
        let (stopping, stopped) = watch::channel(false);
        let workers = config.server.workers;
        let limits = Arc::new(Limits::new(&config.server));
        let reloads = Arc::new(reload::Outcomes::new());
        let proxy = Arc::new(ArcSwap::from_pointee(parts.proxy.clone()));
        let in_force = Arc::new(ArcSwap::new(Arc::clone(&config)));
        let tally = Tally::of_process(workers);
        let sources = metrics::Sources {
            tally,
            gate: parts.gate.clone(),
            proxy: Arc::clone(&proxy),
            passwords: Arc::clone(&parts.passwords),
            directories: parts.directories.metrics().clone(),
            issuers: parts.remote_issuers.clone(),
            store: parts.redb.clone(),
            config: Arc::clone(&in_force),
            limits: Arc::clone(&limits),
            reloads: Arc::clone(&reloads),
            users: parts.users.clone(),
            listeners: listeners
                .iter()
                .map(|bound| (Arc::clone(bound.listener.counts()), bound.listener.tls()))
                .collect(),
        };
        let metrics = Arc::new(Metrics::new(sources));
        // The name is cloned for each request: a name from static text needs no reference count.
        let request_id: &'static str = Box::leak(config.server.request_id_header.as_str().into());
        let request_id = HeaderName::from_static(request_id);
        let drain = drain::StreamDrain::default();
        let (gate, forward) = (parts.gate.clone(), parts.proxy.clone());
        let state = request::State::new(&config, gate, forward, tally, (request_id, drain.clone()))?;
        // The files were read before; a fault can only be new.
        let tracer = Tracer::start(&config, None);
        let tracer = tracer.map_err(|(key, message)| ServerError::at(&config, KeyFault::new(key, message)))?;
        let serving = Arc::new(ArcSwap::from_pointee(state.traced_by(tracer)));
        let config = in_force;
        let reloadable = reload::Reloadable {
            config: Arc::clone(&config),
            gate: parts.gate.clone(),
            proxy,
            serving: Arc::clone(&serving),
            directories: Arc::clone(&parts.directories),
            remote_issuers: parts.remote_issuers.clone(),
            limits: Arc::clone(&limits),
            listeners: listeners
                .iter()
                .map(|bound| reload::ReloadableListener::new(&bound.listener, bound.questions.clone()))
                .collect(),
            trusted: parts.trusted.iter().cloned().map(reload::IssuerState::new).collect(),
        };
        let reload = reload::watch(reloadable, last_read, Arc::clone(&reloads));
        let admin_state = Arc::new(admin::State {
            gate: parts.gate.clone(),
            tokens: Arc::clone(&parts.admin_tokens),
            failures: admin::failures(),
            #[cfg(feature = "page")]
            sign_ins: admin::SignIns::new(Arc::new(SystemTime::new())),
            config: Arc::clone(&config),
            serving: Arc::clone(&serving),
            reloader: reload.reloader(),
            reloads,
            connections: listeners.iter().map(|bound| Arc::clone(bound.listener.counts())).collect(),
            began: SystemTime::new().wall(),
            store: parts.redb.clone(),
            users: parts.users.clone(),
            issuers: parts.remote_issuers.clone(),
            listening: own,
            metrics,
            stopping: stopped.clone(),
            rotating: Arc::default(),
        });
        let admin_side = AdminSide::start(admin, probes, &admin_state)?;
        let workers = Workers::start(workers);
        let workers = Arc::new(workers.map_err(|error| ServerError::Workers(error))?);
        watchdog::start(&workers);
        let mut accepting = tokio::task::JoinSet::new();
        for BoundListener { listener, questions } in listeners {
            let handler = GateHandler { serving: Arc::clone(&serving), questions };
            let (limits, workers) = (Arc::clone(&limits), Arc::clone(&workers));
            accepting.spawn(connection::serve(listener, handler, limits, workers, stopped.clone()));
        }
        let mut lost = std::pin::pin!(store_is_lost(parts.redb.clone(), parts.give_up));
        let mut gave_up = None;
        let mut shutdown = loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                error = &mut lost => {
                    gave_up = Some(error);
                    Some(Order::Stop)
                }
            };
            match order {
                Some(Order::Reload(config)) => reload.apply(*config).await,
                Some(Order::RefusedReload) => reload.refuse(),
                Some(Order::Upgrade(wanted)) => match prepare_upgrade(&parts, &spare_sockets, &wanted).await {
                    Ok(more) => {
                        tracing::info!("in-place upgrade started; connections queue meanwhile");
                        spare_sockets.extend(more);
                        break ShutdownKind::Upgrade(UpgradeState {
                            sockets: spare_sockets,
                            config: config.load_full(),
                        });
                    }
                    Err(error) => {
                        refuse_upgrade(&error);
                        tracing::error!(error, "in-place upgrade refused; this program keeps running");
                    }
                },
                Some(Order::Stop) | None => {
                    // Close the spare sockets now: no successor will accept what queues on them.
                    drop(spare_sockets);
                    break ShutdownKind::Stopped;
                }
            }
        };
        match shutdown {
            ShutdownKind::Stopped => tracing::info!(
                target: "rotogate::audit",
                event = "process_stop",
                "stopping: no new connections; requests in flight may finish"
            ),
            ShutdownKind::Upgrade(_) => tracing::info!(
                target: "rotogate::audit",
                event = "process_upgrade",
                "stopping: no new connections; requests in flight may finish"
            ),
        }
        let _ = stopping.send(true);
        parts.gate.close_connections();
        let (drain_timeout, stream_drain) = {
            let config = config.load();
            (config.server.drain_timeout, config.server.stream_drain)
        };
        let ends_streams = matches!(shutdown, ShutdownKind::Upgrade(_));
        let streams = async {
            if ends_streams {
                tokio::time::sleep(stream_drain).await;
                drain.end_streams();
            }
        };
        let mut streams = std::pin::pin!(streams.fuse());
        let in_time = {
            let drained = async {
                while accepting.join_next().await.is_some() {}
                // A client that went away does not end its exchange.
                #[cfg(feature = "relay")]
                parts.gate.relays_idle().await;
            };
            let mut drained = std::pin::pin!(tokio::time::timeout(drain_timeout, drained));
            loop {
                tokio::select! {
                    in_time = &mut drained => break in_time.is_ok(),
                    () = &mut streams => {}
                    Some(order) = orders.recv() => shutdown.cancel_upgrade_on_stop(&order),
                }
            }
        };
        if !in_time {
            tracing::warn!("drain_timeout passed; requests cut off");
        }
        accepting.shutdown().await;
        drop(workers);
        let tracer = serving.load().tracer.clone();
        if let Some(tracer) = tracer {
            tracer.flush().await;
        }
        let flushed = parts.gate.flush().await;
        tell_unpaid(&parts.gate);
        drop(admin_side);
        parts.close().await;
        if let Some(error) = gave_up {
            return Err(error);
        }
        match (flushed, &shutdown) {
            (Ok(()), _) => {}
            // A store that fails at the last moment does not cancel the upgrade: the next program opens it and judges.
            (Err(error), ShutdownKind::Upgrade(_)) => tracing::error!(%error, "confirmations not written"),
            (Err(error), ShutdownKind::Stopped) => {
                return Err(ServerError::Unwritten(error));
            }
        }
        while let Ok(order) = orders.try_recv() {
            shutdown.cancel_upgrade_on_stop(&order);
        }
        tracing::info!("stopped");
        Ok(shutdown)
    }
}

/// Says what the store did not take until the end.
fn tell_unpaid(gate: &rotogate::Gate) {
    let Unpaid { total, lost_at_end, named } = gate.unpaid();
    if lost_at_end > 0 {
        tracing::error!(
            revocations = lost_at_end,
            of = named,
            "revocations lost with this process: the store did not take them. Revoke the same again once it works"
        );
    }
    if total > lost_at_end {
        tracing::warn!(
            revocations = total - lost_at_end,
            "revocations wait beside the store: the next start takes them over"
        );
    }
}

/// Resolves when the store could not be written for `give_up`.
async fn store_is_lost(store: Option<RedbStore>, give_up: Option<Duration>) -> ServerError {
    let (Some(store), Some(give_up)) = (store, give_up) else { return std::future::pending().await };
    let mut looks = tokio::time::interval(Duration::from_secs(1).min(give_up));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if store.failed_for().is_some_and(|failed_for| failed_for >= give_up) {
            return ServerError::StoreLost { path: store.path().to_owned(), give_up };
        }
    }
}

/// Writes to the audit log that an in-place upgrade is refused: this program serves on.
pub(crate) fn refuse_upgrade(reason: &str) {
    tracing::warn!(target: "rotogate::audit", event = "process_upgrade_refused", reason, "upgrade refused");
}

/// Checks that an in-place upgrade can go on: the store accepts writes, and the new addresses can be bound. Returns the
/// new sockets.
async fn prepare_upgrade(
    parts: &GateParts,
    spare_sockets: &[std::net::TcpListener],
    wanted: &[SocketAddr],
) -> Result<Vec<std::net::TcpListener>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the store is not writable: {error}");
    parts.gate.flush().await.map_err(|error| failed(&error))?;
    if let Some(store) = &parts.redb {
        rotogate::store::Store::check(store).await.map_err(|error| failed(&error))?;
    }
    sockets::open_missing(spare_sockets, wanted)
}

/// The admin listener, on a thread of its own: health checks are answered even if the worker threads are saturated.
struct AdminSide(Option<Runtime>);

impl AdminSide {
    fn start(
        listener: TcpListener,
        probes: Option<TcpListener>,
        state: &Arc<admin::State>,
    ) -> Result<Self, ServerError> {
        let failed = |error: std::io::Error| ServerError::AdminListener(error);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rotogate-admin")
            .enable_all()
            .build()
            .map_err(failed)?;
        runtime.spawn(Arc::clone(&state.tokens).watch());
        let all = [(Some(listener), admin::Side::Operators), (probes, admin::Side::Probes)];
        for (listener, side) in all.into_iter().filter_map(|(listener, side)| Some((listener?, side))) {
            let (listener, state) = (listener.into_std().map_err(failed)?, Arc::clone(state));
            runtime.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => admin::serve(listener, side, state).await,
                    Err(error) => tracing::error!(%error, "admin listener not served"),
                }
            });
        }
        Ok(Self(Some(runtime)))
    }
}

impl Drop for AdminSide {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A request still waiting here is cut with the process.
            runtime.shutdown_background();
        }
    }
}
