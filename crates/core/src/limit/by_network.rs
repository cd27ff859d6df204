//! Rates for each caller, and higher rates for larger networks.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::Buckets;
use super::{BUCKET_BITS, Rate};
use crate::clock::TimeSource;
use crate::network::{SITE_48, SITE_56, network, sites};

/// Large networks need fewer buckets.
const WIDE_BUCKET_BITS: u32 = BUCKET_BITS - 3;

pub(super) fn wider(rate: Rate, times: u32) -> Rate {
    let burst = rate.burst.saturating_mul(NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN));
    Rate { burst, every: (rate.every / times).max(Duration::from_nanos(1)) }
}

/// Counts attempts by network and by the argument `what`.
pub(super) struct ByNetwork {
    callers: Buckets,
    sites_56: Buckets,
    sites_48: Buckets,
}

impl ByNetwork {
    pub(super) fn new(rate: Rate, time: &Arc<dyn TimeSource>) -> Self {
        Self {
            callers: Buckets::new(BUCKET_BITS, rate, Arc::clone(time)),
            sites_56: Buckets::new(WIDE_BUCKET_BITS, wider(rate, SITE_56), Arc::clone(time)),
            sites_48: Buckets::new(WIDE_BUCKET_BITS, wider(rate, SITE_48), Arc::clone(time)),
        }
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        self.callers.set_rate(rate);
        self.sites_56.set_rate(wider(rate, SITE_56));
        self.sites_48.set_rate(wider(rate, SITE_48));
    }

    /// Takes a token from the caller's bucket and from each larger network's bucket, or from none.
    pub(super) fn take(&self, address: IpAddr, what: impl Hash + Copy) -> Result<(), Duration> {
        self.take_share(address, what, NonZeroU32::MIN)
    }

    pub(super) fn look(&self, address: IpAddr, what: impl Hash + Copy) -> Result<(), Duration> {
        self.callers.look((network(address), what))?;
        match sites(address) {
            Some((site_56, site_48)) => {
                self.sites_56.look((site_56, what)).and_then(|()| self.sites_48.look((site_48, what)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn take_share(
        &self,
        address: IpAddr,
        what: impl Hash + Copy,
        share: NonZeroU32,
    ) -> Result<(), Duration> {
        let caller = (network(address), what);
        self.callers.take_share(caller, share)?;
        let Some((site_56, site_48)) = sites(address) else { return Ok(()) };
        let around = self.sites_56.take_share((site_56, what), share).and_then(|()| {
            let wider = self.sites_48.take_share((site_48, what), share);
            wider.inspect_err(|_| self.sites_56.give_back((site_56, what), share))
        });
        around.inspect_err(|_| self.callers.give_back(caller, share))
    }

    pub(super) fn charge(&self, address: IpAddr, what: impl Hash + Copy, share: NonZeroU32) {
        self.callers.charge_share((network(address), what), share);
        if let Some((site_56, site_48)) = sites(address) {
            self.sites_56.charge_share((site_56, what), share);
            self.sites_48.charge_share((site_48, what), share);
        }
    }

    pub(super) fn debt(&self, address: IpAddr, what: impl Hash + Copy) -> Option<Duration> {
        let caller = self.callers.debt((network(address), what));
        match sites(address) {
            None => caller,
            Some((site_56, site_48)) => {
                caller.max(self.sites_56.debt((site_56, what))).max(self.sites_48.debt((site_48, what)))
            }
        }
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl ByNetwork {
        pub(crate) fn memory(&self) -> usize {
            self.callers.memory() + self.sites_56.memory() + self.sites_48.memory()
        }
    }
}
