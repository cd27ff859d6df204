//! The thread of the admin listener.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{AdminState, Side, serve};
use crate::server::error::ServerError;

/// The admin listener's own thread, so that health checks work even if the workers are saturated.
pub(crate) struct AdminThread(Option<Runtime>);

impl AdminThread {
    pub(crate) fn start(
        listener: TcpListener,
        probes: Option<TcpListener>,
        state: &Arc<AdminState>,
    ) -> Result<Self, ServerError> {
        let failed = ServerError::AdminListener;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rotogate-admin")
            .enable_all()
            .build()
            .map_err(failed)?;
        runtime.spawn(Arc::clone(&state.tokens).watch());
        runtime.spawn(super::history::watch(Arc::clone(state)));
        let all = [(Some(listener), Side::Operators), (probes, Side::Probes)];
        for (listener, side) in all.into_iter().filter_map(|(listener, side)| Some((listener?, side))) {
            let (listener, state) = (listener.into_std().map_err(failed)?, Arc::clone(state));
            runtime.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, side, state).await,
                    Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
                }
            });
        }
        Ok(Self(Some(runtime)))
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting requests are aborted when the process ends.
            runtime.shutdown_background();
        }
    }
}
