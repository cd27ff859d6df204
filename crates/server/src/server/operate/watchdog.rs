//! Reports to the service manager's watchdog (`WatchdogSec=` of systemd), which restarts a gate that stops reporting.
//! Each report waits until every worker thread has run a task. A timer alone would not notice hanging threads.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::listen::workers::{Pulse, Workers};

/// If the service manager has a watchdog, reports to it until the process ends, even during the drain.
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
