//! The watchdog of the service manager (`WatchdogSec=` of systemd): it kills and restarts a gate that stops reporting.
//! A report means that every thread that serves requests has just run a task. A timer alone would go on reporting
//! while those threads hang.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::listen::workers::{Pulse, Workers};

/// Reports until the process ends, if the service manager asked for it. Reports go on while the gate drains.
pub(crate) fn start(workers: &Workers) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(report(workers.pulse(), timeout / 3));
}

async fn report(pulse: Pulse, period: Duration) {
    loop {
        pulse.answered().await;
        if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
            tracing::debug!(%error, "NOTIFY_SOCKET not writable; watchdog not notified");
        }
        tokio::time::sleep(period).await;
    }
}
