//! Connection limits per client address (requirements A4, A14). An IPv6 /64 counts as one address. The enclosing /56
//! and /48 networks have larger limits, which are lower than the sum of their /64 limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rotogate_core::network::{Network, networks};

/// The number of connections per network.
#[derive(Debug)]
pub(crate) struct Addresses {
    max: AtomicUsize,
    /// Whether IPv6 networks of /56 and /48 have larger limits than a single address.
    widens: bool,
    in_use: Mutex<HashMap<Network, AddressUse>>,
}

#[derive(Debug, Default)]
struct AddressUse {
    connections: usize,
    is_logged: bool,
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    of: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), widens: true, in_use: Mutex::default() })
    }

    /// Uses the same limit for all networks (requirement A28).
    pub(super) fn of_any_network(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), widens: false, in_use: Mutex::default() })
    }

    /// Connections beyond the new limit stay open.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns `None` if the address or a network that contains it has reached its limit.
    pub(crate) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<AddressPermit> {
        let max = self.max.load(Ordering::Relaxed);
        let mut all = self.in_use.lock();
        for (network, times) in networks(address) {
            let max = max.saturating_mul(if self.widens { times as usize } else { 1 });
            let Some(held) = all.get_mut(&network) else { continue };
            if held.connections < max {
                continue;
            }
            if !held.is_logged {
                held.is_logged = true;
                // The warning is logged once per flood, because a line for each connection would flood the log.
                tracing::warn!(
                    %address,
                    most = max,
                    "connection limit of an address reached; further connections are closed. If the address is a \
                     proxy, add it to `trusted_proxies`. If many clients share the address, raise \
                     `max_connections_per_address`"
                );
            }
            return None;
        }
        if max == 0 {
            return None;
        }
        for (network, _) in networks(address) {
            all.entry(network).or_default().connections += 1;
        }
        Some(AddressPermit { of: Arc::clone(self), address })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut all = self.of.in_use.lock();
        for (network, _) in networks(self.address) {
            if let Some(held) = all.get_mut(&network) {
                held.connections -= 1;
                if held.connections == 0 {
                    all.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_each_address_has_its_own_places_and_ipv6_counts_by_64() {
        let addresses = Addresses::new(2);
        let acquire = |text: &str| addresses.acquire(text.parse().unwrap());
        let first = acquire("203.0.113.1").unwrap();
        // The IPv4-mapped IPv6 form of the same address.
        let _second = acquire("::ffff:203.0.113.1").unwrap();
        assert!(acquire("203.0.113.1").is_none());
        let _other = acquire("203.0.113.2").unwrap();
        drop(first);
        let _again = acquire("203.0.113.1").unwrap();
        assert!(acquire("203.0.113.1").is_none());

        let (_a, _b) = (acquire("2001:db8::1").unwrap(), acquire("2001:db8::2:2").unwrap());
        assert!(acquire("2001:db8::ffff:ffff:ffff:ffff").is_none());
        assert!(acquire("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn a14_a_56_and_a_48_have_more_connections_than_a_64_and_not_without_end() {
        let addresses = Addresses::new(1);
        let acquire = |high: u64| addresses.acquire(std::net::Ipv6Addr::from_bits(u128::from(high) << 64).into());
        let base = 0x2001_0db8_0000_0000;
        let of_56: Vec<_> = (0..8).filter_map(|n| acquire(base + n)).collect();
        assert_eq!(of_56.len(), 4);
        let of_48: Vec<_> = (1..100).filter_map(|n| acquire(base + (n << 8))).collect();
        assert_eq!(of_48.len(), 32 - 4);
        let _other = acquire(base + (1 << 16)).unwrap();
        drop(of_56);
        assert!(acquire(base).is_some());
    }

    #[test]
    fn a28_no_network_has_more_than_the_bound_for_any() {
        let addresses = Addresses::of_any_network(8);
        let acquire = |high: u64| addresses.acquire(std::net::Ipv6Addr::from_bits(u128::from(high) << 64).into());
        let base = 0x2001_0db8_0000_0000;
        let of_48: Vec<_> = (0..100).filter_map(|n| acquire(base + (n << 8))).collect();
        assert_eq!(of_48.len(), 8);
        let elsewhere: Vec<_> = (0..100).filter_map(|_| acquire(base + (1 << 16))).collect();
        assert_eq!(elsewhere.len(), 8);
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let addresses = Addresses::new(1);
        for last in 0..=255 {
            drop(addresses.acquire([203, 0, 113, last].into()));
        }
        assert!(addresses.in_use.lock().is_empty());
    }
}
