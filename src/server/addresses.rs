//! How many connections each address has (requirement A4). An IPv6 address counts as its /64, of which one subscriber
//! has them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limit::network;

/// See the module. Holds as many entries as there are connections, at most.
#[derive(Debug)]
pub(super) struct Addresses {
    most: AtomicUsize,
    held: Mutex<HashMap<u64, Held>>,
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
    network: u64,
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
        let (network, most) = (network(address), self.most.load(Ordering::Relaxed));
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.entry(network).or_default();
        if held.places < most {
            held.places += 1;
            return Some(Place { of: Arc::clone(self), network });
        }
        if !held.told {
            held.told = true;
            // Once for each flood: a line for each connection would be a second one.
            tracing::warn!(%address, most, "more connections from one address are closed at once");
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get_mut(&self.network) {
            held.places -= 1;
            if held.places == 0 {
                all.remove(&self.network);
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
    fn nothing_is_remembered_of_who_left() {
        let addresses = Addresses::new(1);
        for last in 0..=255 {
            drop(addresses.enter([203, 0, 113, last].into()));
        }
        assert!(addresses.held.lock().unwrap().is_empty());
    }
}
