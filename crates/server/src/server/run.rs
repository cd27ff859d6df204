//! Starts, controls and drains a gate.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::HeaderName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::build::assemble::GateParts;
use super::error::{KeyFault, ServerError};
use super::listen::limits::Limits;
use super::listen::workers::Workers;
use super::listen::{connection, sockets};
use super::operate::admin::{self, AdminThread};
use super::operate::metrics::Metrics;
use super::operate::reload::{self, InForce, ListenerInForce, Outcomes, ReloadTask};
use super::operate::watchdog;
use super::serve::drain::StreamDrain;
use super::serve::handler::GateHandler;
use super::serve::request::RequestState;
use super::serve::tally::Tally;
use super::{BoundListener, Order, Server, ShutdownKind, UpgradeState};
use crate::trace::Tracer;
use rotogate_config::Config;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::engine::Unpaid;

pub(super) struct RunningGate {
    in_force: Arc<InForce>,
    drain: StreamDrain,
    reload: ReloadTask,
    admin: AdminThread,
    workers: Arc<Workers>,
    accepting: JoinSet<()>,
    stopping: watch::Sender<bool>,
    spare_sockets: Vec<std::net::TcpListener>,
}

impl RunningGate {
    /// # Errors
    /// The operating system cannot start a thread, or a file has become unusable.
    pub(super) fn start(server: Server) -> Result<Self, ServerError> {
        let listening = server.bound_addresses();
        let Server { listeners, admin, probes, parts, config, spare_sockets, last_read } = server;
        let (stopping, stopped) = watch::channel(false);
        let (workers, tally) = (config.server.workers, Tally::of_process(config.server.workers));
        let drain = StreamDrain::default();
        let state_of = |bound: &BoundListener| ListenerInForce::new(&bound.listener, bound.questions.clone());
        let in_force = Arc::new(InForce {
            tally,
            limits: Arc::new(Limits::new(&config.server)),
            outcomes: Outcomes::new(),
            serving: Arc::new(ArcSwap::from_pointee(first_state(&config, &parts, tally, &drain)?)),
            config: ArcSwap::new(config),
            listeners: listeners.iter().map(state_of).collect(),
            parts,
        });
        let reload = reload::watch(&in_force, last_read);
        let admin_state = admin::AdminState {
            tokens: Arc::clone(&in_force.admin_tokens),
            failures: admin::failures(),
            sign_ins: admin::SignIns::new(Arc::new(SystemTime::new())),
            history: admin::History::default(),
            reloader: reload.reloader(),
            began: SystemTime::new().wall(),
            listening,
            metrics: Metrics::new(Arc::clone(&in_force)),
            stopping: stopped.clone(),
            rotating: Arc::default(),
        };
        let admin = AdminThread::start(admin, probes, &Arc::new(admin_state))?;
        let workers = Arc::new(Workers::start(workers).map_err(ServerError::Workers)?);
        watchdog::start(&workers);
        let mut accepting = JoinSet::new();
        for BoundListener { listener, questions } in listeners {
            let handler = GateHandler { serving: Arc::clone(&in_force.serving), questions };
            let (limits, workers) = (Arc::clone(&in_force.limits), Arc::clone(&workers));
            accepting.spawn(connection::serve(listener, handler, limits, workers, stopped.clone()));
        }
        Ok(Self { in_force, drain, reload, admin, workers, accepting, stopping, spare_sockets })
    }

    pub(super) async fn take_orders(&mut self, orders: &mut mpsc::Receiver<Order>) -> ShutdownKind {
        loop {
            match orders.recv().await {
                Some(Order::Reload(config)) => self.reload.apply(*config).await,
                Some(Order::RefusedReload) => self.reload.refuse(),
                Some(Order::Upgrade(wanted)) => match self.prepare_upgrade(&wanted).await {
                    Ok(more) => {
                        tracing::info!("in-place upgrade started; new connections wait in the queue");
                        let sockets = self.spare_sockets.drain(..).chain(more).collect();
                        let config = self.in_force.config.load_full();
                        return ShutdownKind::Upgrade(UpgradeState { sockets, config });
                    }
                    Err(error) => {
                        refuse_upgrade(&error);
                        tracing::error!(error, "in-place upgrade refused; this program keeps running");
                    }
                },
                Some(Order::Stop) | None => break,
            }
        }
        // Without a successor process, connections that queue on these sockets would never be accepted.
        self.spare_sockets.clear();
        ShutdownKind::Stopped
    }

    /// Checks that the store accepts writes and that the new addresses can be bound. Returns the new sockets.
    async fn prepare_upgrade(&self, wanted: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the store is not writable: {error}");
        self.in_force.gate.flush().await.map_err(|error| failed(&error))?;
        if let Some(store) = &self.in_force.redb {
            rotogate_core::store::Store::check(store).await.map_err(|error| failed(&error))?;
        }
        sockets::open_missing(&self.spare_sockets, wanted)
    }

    /// Lets requests in flight finish, and closes everything.
    ///
    /// # Errors
    /// The last writes could not be stored.
    pub(super) async fn drain(
        mut self,
        mut shutdown: ShutdownKind,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<ShutdownKind, ServerError> {
        shutdown.announce();
        let _ = self.stopping.send(true);
        self.in_force.gate.close_tunnels();
        self.await_requests(&mut shutdown, &mut orders).await;
        let Self { in_force, reload: _reload, admin, workers, mut accepting, .. } = self;
        accepting.shutdown().await;
        drop(workers);
        let tracer = in_force.serving.load().tracer.clone();
        if let Some(tracer) = tracer {
            tracer.flush().await;
        }
        let flushed = in_force.gate.flush().await;
        tell_unpaid(&in_force.gate);
        drop(admin);
        in_force.parts.close().await;
        match (flushed, &shutdown) {
            (Ok(()), _) => {}
            // The upgrade continues. The next program opens the store, and stops if the store still fails.
            (Err(error), ShutdownKind::Upgrade(_)) => tracing::error!(
                %error,
                "confirmations not written, so previous refresh tokens may be accepted until the new tokens are used \
                 again. Repair the store"
            ),
            (Err(error), ShutdownKind::Stopped) => return Err(ServerError::Unwritten(error)),
        }
        while let Ok(order) = orders.try_recv() {
            shutdown.cancel_upgrade_on_stop(&order);
        }
        tracing::info!("stopped");
        Ok(shutdown)
    }

    /// Waits for requests in flight, up to `drain_timeout`. During an in-place upgrade, streams end after
    /// `stream_drain`.
    async fn await_requests(&mut self, shutdown: &mut ShutdownKind, orders: &mut mpsc::Receiver<Order>) {
        let Self { in_force, drain, accepting, .. } = self;
        let (drain_timeout, stream_drain) = {
            let config = in_force.config.load();
            (config.server.drain_timeout, config.server.stream_drain)
        };
        let ends_streams = matches!(shutdown, ShutdownKind::Upgrade(_));
        let streams = async {
            if ends_streams {
                tokio::time::sleep(stream_drain).await;
                drain.end_streams();
            }
        };
        let drained = async {
            while accepting.join_next().await.is_some() {}
            // Relays finish an exchange even if the client disconnects.
            in_force.gate.relays_idle().await;
        };
        let mut streams = pin!(streams.fuse());
        let mut drained = pin!(tokio::time::timeout(drain_timeout, drained));
        let in_time = loop {
            tokio::select! {
                in_time = &mut drained => break in_time.is_ok(),
                () = &mut streams => {}
                Some(order) = orders.recv() => shutdown.cancel_upgrade_on_stop(&order),
            }
        };
        if !in_time {
            tracing::warn!("`drain_timeout` passed; the gate closed the remaining requests");
        }
    }
}

fn first_state(
    config: &Config,
    parts: &GateParts,
    tally: &'static Tally,
    drain: &StreamDrain,
) -> Result<RequestState, ServerError> {
    // A static name makes the clone for each request cheap.
    let request_id: &'static str = Box::leak(config.server.request_id_header.as_str().into());
    let named = (HeaderName::from_static(request_id), drain.clone());
    let state = RequestState::new(config, parts.gate.clone(), parts.proxy.clone(), tally, named)?;
    // `prepare` has already read these files, so an error means that a file has changed.
    let tracer = Tracer::start(config, None);
    let tracer = tracer.map_err(|(key, message)| ServerError::at(config, KeyFault::new(key, message)))?;
    Ok(state.traced_by(tracer))
}

impl ShutdownKind {
    fn announce(&self) {
        match self {
            Self::Stopped => tracing::info!(
                target: "rotogate::audit",
                event = "process_stop",
                "stopping: no new connections; requests in flight may finish"
            ),
            Self::Upgrade(_) => tracing::info!(
                target: "rotogate::audit",
                event = "process_upgrade",
                "stopping: no new connections; requests in flight may finish"
            ),
        }
    }

    fn cancel_upgrade_on_stop(&mut self, order: &Order) {
        if let (Self::Upgrade(_), Order::Stop) = (&*self, order) {
            tracing::info!("in-place upgrade cancelled, because the gate is stopping");
            *self = Self::Stopped;
        }
    }
}

fn tell_unpaid(gate: &rotogate::Gate) {
    let Unpaid { total, lost_at_end, named } = gate.unpaid();
    if lost_at_end > 0 {
        tracing::error!(
            revocations = lost_at_end,
            of = named,
            "revocations lost with this process, because the store did not accept them. Revoke them again when the \
             store works"
        );
    }
    if total > lost_at_end {
        tracing::warn!(
            revocations = total - lost_at_end,
            "revocations are kept in a file beside the store; the next start writes them to the store"
        );
    }
}

pub(crate) fn refuse_upgrade(reason: &str) {
    tracing::warn!(target: "rotogate::audit", event = "process_upgrade_refused", reason, "upgrade refused");
}
