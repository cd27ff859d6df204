//! The limit on the number of connections, and the limits for each connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};

use super::addresses::Addresses;
use super::min_rate::MinRate;
use rotogate_config::ServerConfig;

#[derive(Debug)]
pub(crate) struct Limits {
    pub(super) permits: Arc<Semaphore>,
    max: AtomicU32,
    bounds: watch::Sender<Arc<Bounds>>,
    /// The connections of each network on all listeners.
    networks: Arc<Addresses>,
}

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_head: usize,
    pub(super) max_streams: u32,
    pub(crate) min_rate: MinRate,
    trusted_proxies: Arc<[IpNet]>,
    pub(crate) networks: Arc<Addresses>,
}

impl Limits {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let max = max_connections(config);
        let networks = Addresses::of_any_network(max_of_a_network(config));
        Self {
            permits: Arc::new(Semaphore::new(max as usize)),
            max: AtomicU32::new(max),
            bounds: watch::Sender::new(Arc::new(Bounds::new(config, Arc::clone(&networks)))),
            networks,
        }
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    pub(super) fn bounds(&self) -> watch::Receiver<Arc<Bounds>> {
        self.bounds.subscribe()
    }

    /// Sets the limits for new connections. Open connections above a lower limit stay, and new ones wait.
    pub(crate) fn set(&self, config: &ServerConfig) {
        self.bounds.send_replace(Arc::new(Bounds::new(config, Arc::clone(&self.networks))));
        self.networks.set_max(max_of_a_network(config));
        let now = max_connections(config);
        let before = self.max.swap(now, Ordering::Relaxed);
        self.permits.add_permits(now.saturating_sub(before) as usize);
        let too_many = before.saturating_sub(now);
        // Open connections hold the other permits. A permit is removed when its connection closes.
        let free = self.permits.forget_permits(too_many as usize);
        let rest = too_many.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
        if rest > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(gathered) = permits.acquire_many(rest).await {
                    gathered.forget();
                }
            });
        }
    }
}

fn max_connections(config: &ServerConfig) -> u32 {
    u32::try_from(config.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

/// Half of all connections, but at least the limit for an address. The limit for a /48 at one listener is larger
/// (requirement A28).
fn max_of_a_network(config: &ServerConfig) -> usize {
    let of_address = config.listeners.iter().map(|listener| listener.max_connections_per_address).max();
    config.max_connections.div_ceil(2).max(of_address.unwrap_or_default())
}

impl Bounds {
    fn new(config: &ServerConfig, networks: Arc<Addresses>) -> Self {
        Self {
            networks,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            max_head: config.max_head,
            max_streams: config.max_requests_per_connection,
            min_rate: MinRate::new(config),
            trusted_proxies: config.trusted_proxies.as_slice().into(),
        }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}
