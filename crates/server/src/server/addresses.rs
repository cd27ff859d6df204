//! How many connections each address has (requirements A4, A14). An IPv6 address counts as its /64, of which one subscriber
//! has them all; the /56 and the /48 around it may have more, and not as many as they have /64s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rotogate::network::{Network, networks};

/// See the module. Holds three entries for each connection, at most.
#[derive(Debug)]
pub(super) struct Addresses {
    most: AtomicUsize,
    held: Mutex<HashMap<Network, Held>>,
}

#[derive(Debug, Default)]
struct Held {
    places: usize,
    /// Was it said that there are too many?
    told: bool,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), held: Mutex::default() })
    }

    /// Another bound. Who is beyond it stays.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A place for a connection from there, if there is one left.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let most = self.most.load(Ordering::Relaxed);
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (network, times) in networks(address) {
            let most = most.saturating_mul(times as usize);
            let Some(held) = all.get_mut(&network) else { continue };
            if held.places < most {
                continue;
            }
            if !held.told {
                held.told = true;
                // Once for each flood: a line for each connection would be a second one.
                tracing::warn!(%address, most, "more connections from one address are closed at once");
            }
            return None;
        }
        if most == 0 {
            return None;
        }
        for (network, _) in networks(address) {
            all.entry(network).or_default().places += 1;
        }
        Some(Place { of: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (network, _) in networks(self.address) {
            if let Some(held) = all.get_mut(&network) {
                held.places -= 1;
                if held.places == 0 {
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
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let first = enter("203.0.113.1").unwrap();
        // The same address as IPv6 sees it.
        let _second = enter("::ffff:203.0.113.1").unwrap();
        assert!(enter("203.0.113.1").is_none());
        let _other = enter("203.0.113.2").unwrap();
        drop(first);
        let _again = enter("203.0.113.1").unwrap();
        assert!(enter("203.0.113.1").is_none());

        let (_a, _b) = (enter("2001:db8::1").unwrap(), enter("2001:db8::2:2").unwrap());
        assert!(enter("2001:db8::ffff:ffff:ffff:ffff").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn a14_a_56_and_a_48_have_more_connections_than_a_64_and_not_without_end() {
        let addresses = Addresses::new(1);
        let enter = |high: u64| addresses.enter(std::net::Ipv6Addr::from_bits(u128::from(high) << 64).into());
        let base = 0x2001_0db8_0000_0000;
        let of_56: Vec<_> = (0..8).filter_map(|n| enter(base + n)).collect();
        assert_eq!(of_56.len(), 4);
        let of_48: Vec<_> = (1..100).filter_map(|n| enter(base + (n << 8))).collect();
        assert_eq!(of_48.len(), 32 - 4);
        let _other = enter(base + (1 << 16)).unwrap();
        drop(of_56);
        assert!(enter(base).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let addresses = Addresses::new(1);
        for last in 0..=255 {
            drop(addresses.enter([203, 0, 113, last].into()));
        }
        assert!(addresses.held.lock().unwrap().is_empty());
    }
}
