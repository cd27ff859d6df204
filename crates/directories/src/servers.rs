//! Failover between equivalent servers.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{Cause, SourceError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the working server stays preferred after a failover.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Servers {
    count: usize,
    /// All connection attempts together may take half the request timeout.
    pub(super) patience: Duration,
    /// The preferred server after a failover, with the time of the failover.
    good: Mutex<Option<(usize, Instant)>>,
}

impl Servers {
    /// `within` is the time limit of a request.
    pub(super) fn new(count: usize, within: Duration) -> Self {
        let parts = u32::try_from(count.max(1)).unwrap_or(u32::MAX).saturating_mul(2);
        Self { count, patience: (within / parts).min(CONNECT_TIMEOUT), good: Mutex::default() }
    }

    /// # Errors
    /// Returns the error of the last server.
    pub(super) async fn connect<T, F>(&self, open: impl Fn(usize) -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let first = self.good.lock().filter(|(_, since)| since.elapsed() < MEMORY).map_or(0, |(server, _)| server);
        let mut last = SourceError::new(Cause::Connect, "no server is configured");
        for server in (first..self.count).chain(0..first) {
            match timeout(self.patience, open(server)).await {
                Ok(Ok(opened)) => {
                    if server != first {
                        *self.good.lock() = Some((server, Instant::now()));
                    }
                    return Ok(opened);
                }
                Ok(Err(error)) => last = error,
                Err(_) => {
                    let within = humantime::format_duration(self.patience);
                    let message = format!("server {} of {}: no response within {within}", server + 1, self.count);
                    last = SourceError::new(Cause::Connect, message);
                }
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the server that was reached, and the time needed. Servers in `silent` do not respond.
    async fn reached(servers: &Servers, silent: &[usize]) -> (Option<usize>, Duration) {
        let begun = Instant::now();
        let open = async move |server| {
            if silent.contains(&server) {
                std::future::pending::<()>().await;
            }
            Ok(server)
        };
        (servers.connect(open).await.ok(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn i22_a_silent_server_takes_its_part_of_the_time_once_a_minute() {
        let servers = Servers::new(2, SECOND * 4);
        assert_eq!(reached(&servers, &[]).await, (Some(0), Duration::ZERO));
        assert_eq!(reached(&servers, &[0]).await, (Some(1), SECOND));
        assert_eq!(reached(&servers, &[0]).await, (Some(1), Duration::ZERO), "the silent server is not tried again");
        assert_eq!(reached(&servers, &[1]).await, (Some(0), SECOND), "the remembered server is now silent");
        assert_eq!(reached(&servers, &[0, 1]).await, (None, SECOND * 2));
        assert_eq!(reached(&servers, &[0]).await, (Some(1), SECOND));
        tokio::time::advance(MEMORY).await;
        assert_eq!(reached(&servers, &[]).await, (Some(0), Duration::ZERO), "the order counts again");
        for (count, within, patience) in [(1, 60, SECOND * 3), (1, 5, SECOND * 5 / 2), (3, 3, SECOND / 2)] {
            assert_eq!(Servers::new(count, SECOND * within).patience, patience);
        }
    }
}
