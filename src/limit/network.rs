//! Which addresses count as one caller.
//!
//! An IPv4 address is one. Whoever has IPv6 has at least a /64, most home lines have a /56, and a /48 is to be had for
//! the asking: so a caller is a /64, and a /56 and a /48 have rates of their own, wider because many may share one.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::Buckets;
use super::{BITS, Rate};
use crate::clock::TimeSource;

/// How much more than a single caller a /56 may do.
pub const SITE_56: u32 = 4;
/// How much more than a single caller a /48 may do.
pub const SITE_48: u32 = 32;

/// 2^this many buckets for the networks above a /64: there are fewer.
const WIDE_BITS: u32 = BITS - 3;

/// The network that counts as one caller: a single IPv4 address, a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // Setting the highest bit keeps it apart from every IPv4 address.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default() | 1 << 63,
    }
}

/// A network that callers share, or a caller.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    bits: u8,
    prefix: u64,
}

/// The networks that an address counts for, the narrowest first, each with how much more than a caller it may do.
#[cfg(feature = "server")]
pub(crate) fn networks(address: IpAddr) -> impl Iterator<Item = (Network, u32)> {
    let caller = (Network { bits: 64, prefix: network(address) }, 1);
    let around = sites(address).map(|(site_56, site_48)| {
        [(Network { bits: 56, prefix: site_56 }, SITE_56), (Network { bits: 48, prefix: site_48 }, SITE_48)]
    });
    std::iter::once(caller).chain(around.into_iter().flatten())
}

/// The /56 and the /48 of an IPv6 address.
fn sites(address: IpAddr) -> Option<(u64, u64)> {
    match address.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let high = u64::try_from(v6.to_bits() >> 64).unwrap_or_default();
            Some((high >> 8, high >> 16))
        }
    }
}

fn wider(rate: Rate, times: u32) -> Rate {
    let burst = rate.burst.saturating_mul(NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN));
    Rate { burst, every: (rate.every / times).max(Duration::from_nanos(1)) }
}

/// One rate for each caller, and wider ones for the networks that callers share. `what` tells apart what is counted of
/// one caller.
pub(super) struct ByNetwork {
    callers: Buckets,
    sites_56: Buckets,
    sites_48: Buckets,
}

impl ByNetwork {
    pub(super) fn new(rate: Rate, time: &Arc<dyn TimeSource>) -> Self {
        Self {
            callers: Buckets::new(BITS, rate, Arc::clone(time)),
            sites_56: Buckets::new(WIDE_BITS, wider(rate, SITE_56), Arc::clone(time)),
            sites_48: Buckets::new(WIDE_BITS, wider(rate, SITE_48), Arc::clone(time)),
        }
    }

    /// Takes one from the caller and from each network around it, or from none.
    pub(super) fn take(&self, address: IpAddr, what: impl Hash + Copy) -> Result<(), Duration> {
        let caller = (network(address), what);
        self.callers.take(caller)?;
        let Some((site_56, site_48)) = sites(address) else { return Ok(()) };
        let around = self.sites_56.take((site_56, what)).and_then(|()| {
            self.sites_48.take((site_48, what)).inspect_err(|_| self.sites_56.give_back((site_56, what)))
        });
        around.inspect_err(|_| self.callers.give_back(caller))
    }

    /// Counts one that has happened.
    pub(super) fn charge(&self, address: IpAddr, what: impl Hash + Copy) {
        self.callers.charge((network(address), what));
        if let Some((site_56, site_48)) = sites(address) {
            self.sites_56.charge((site_56, what));
            self.sites_48.charge((site_48, what));
        }
    }

    /// How long it is until neither the caller nor a network around it is in debt.
    pub(super) fn debt(&self, address: IpAddr, what: impl Hash + Copy) -> Option<Duration> {
        let caller = self.callers.debt((network(address), what));
        match sites(address) {
            None => caller,
            Some((site_56, site_48)) => {
                caller.max(self.sites_56.debt((site_56, what))).max(self.sites_48.debt((site_48, what)))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.callers.memory() + self.sites_56.memory() + self.sites_48.memory()
    }
}
