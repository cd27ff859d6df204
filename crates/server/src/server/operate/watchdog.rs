//! The reports to the watchdog of the service manager (`WatchdogSec=` of systemd), which kills and restarts a gate that
//! stops reporting. A report is sent only after every thread that serves requests has run a task. With a timer alone,
//! reports would continue even if those threads hang.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::listen::workers::{Pulse, Workers};

/// Reports until the process ends, if the service manager requires reports. Reports continue while the gate drains.
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
