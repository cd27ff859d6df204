//! Which addresses count as one caller. An IPv4 address or an IPv6 /64 is one caller. An attacker can easily get a
//! whole /56 or /48, so these networks have their own, higher rates.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

/// The rate of a /56, as a multiple of a single caller's rate.
pub const SITE_56: u32 = 4;
/// The rate of a /48, as a multiple of a single caller's rate.
pub const SITE_48: u32 = 32;

/// Returns an IPv4 address, or the /64 of an IPv6 address.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // The highest bit distinguishes IPv6 networks from IPv4 addresses.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default() | 1 << 63,
    }
}

/// A network that belongs to one caller, or a larger network with several callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    bits: u8,
    prefix: u64,
}

impl Network {
    /// Encodes the network in the same way on every machine.
    pub(crate) fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [self.bits; 9];
        bytes.iter_mut().skip(1).zip(self.prefix.to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// Returns the networks that contain an address, narrowest first, with factors for a caller's rate.
pub fn networks(address: IpAddr) -> impl Iterator<Item = (Network, u32)> {
    let caller = (Network { bits: 64, prefix: network(address) }, 1);
    let around = sites(address).map(|(site_56, site_48)| {
        [(Network { bits: 56, prefix: site_56 }, SITE_56), (Network { bits: 48, prefix: site_48 }, SITE_48)]
    });
    std::iter::once(caller).chain(around.into_iter().flatten())
}

pub(crate) fn sites(address: IpAddr) -> Option<(u64, u64)> {
    match address.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let high = u64::try_from(v6.to_bits() >> 64).unwrap_or_default();
            Some((high >> 8, high >> 16))
        }
    }
}

/// The holder of a resource: a network or a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u32);

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Holder {
    fn new(what: impl Hash) -> Self {
        Self(u32::try_from(KEY.hash_one(what) >> 32).unwrap_or_default())
    }

    /// The index of the holder's counter.
    pub const fn index(self, counters: usize) -> usize {
        self.0 as usize % counters
    }

    /// The indices of the holder's two counters, one in each row. The two indices are independent, so two holders
    /// rarely share both counters.
    pub const fn indices(self, counters: usize) -> [usize; 2] {
        [self.index(counters), (self.0 >> 16) as usize % counters]
    }

    /// The holder for an address.
    pub fn address(address: IpAddr) -> Self {
        Self::new(network(address))
    }

    pub(crate) fn caller(issuer: &str, subject: &str) -> Self {
        Self::new((issuer, subject))
    }
}
