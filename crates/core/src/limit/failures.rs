//! Counts failures by network.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::Rate;
use super::by_network::ByNetwork;
use crate::clock::TimeSource;

/// The failures of each network.
pub struct Failures(ByNetwork);

crate::debug_with!(Failures);

impl Failures {
    /// Allows a burst of `most` failures, and then `most` more in each period of length `within`.
    pub fn new(most: u32, within: Duration, time: &Arc<dyn TimeSource>) -> Self {
        // A bucket accepts one failure more than its burst.
        let rate = Rate::new(most.saturating_sub(1), within / most.max(1));
        Self(ByNetwork::new(rate, time))
    }

    /// Counts a failure.
    pub fn count(&self, address: IpAddr) {
        self.0.charge(address, (), NonZeroU32::MIN);
    }

    /// The time that the network must still wait, or `None`.
    pub fn wait(&self, address: IpAddr) -> Option<Duration> {
        self.0.debt(address, ())
    }
}
