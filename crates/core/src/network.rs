//! Determines which addresses count as one caller.
//!
//! An IPv4 address is one caller. A user of IPv6 has at least a /64, most home connections have a /56, and a /48 is
//! easy to get, so a /64 is one caller. A /56 and a /48 also have their own rates, which are higher because several
//! callers may share the network.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

/// The rate of a /56, as a multiple of a single caller's rate.
pub const SITE_56: u32 = 4;
/// The rate of a /48, as a multiple of a single caller's rate.
pub const SITE_48: u32 = 32;

/// The network that counts as one caller: a single IPv4 address, or a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // The highest bit distinguishes IPv6 networks from IPv4 addresses.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default() | 1 << 63,
    }
}

/// A network that counts as one caller, or that several callers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    bits: u8,
    prefix: u64,
}

impl Network {
    /// The bytes that identify the network. They differ between networks, and are the same on every machine.
    pub(crate) fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [self.bits; 9];
        bytes.iter_mut().skip(1).zip(self.prefix.to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// The networks that contain an address, narrowest first. Each has its multiple of a single caller's rate.
pub fn networks(address: IpAddr) -> impl Iterator<Item = (Network, u32)> {
    let caller = (Network { bits: 64, prefix: network(address) }, 1);
    let around = sites(address).map(|(site_56, site_48)| {
        [(Network { bits: 56, prefix: site_56 }, SITE_56), (Network { bits: 48, prefix: site_48 }, SITE_48)]
    });
    std::iter::once(caller).chain(around.into_iter().flatten())
}

/// The /56 and the /48 of an IPv6 address.
pub(crate) fn sites(address: IpAddr) -> Option<(u64, u64)> {
    match address.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let high = u64::try_from(v6.to_bits() >> 64).unwrap_or_default();
            Some((high >> 8, high >> 16))
        }
    }
}

/// The holder of a resource: an address or a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u32);

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Holder {
    fn new(what: impl Hash) -> Self {
        // The upper half of the hash is as random as the whole hash.
        Self(u32::try_from(KEY.hash_one(what) >> 32).unwrap_or_default())
    }

    /// The index of the holder's counter among this many counters.
    pub const fn index(self, counters: usize) -> usize {
        self.0 as usize % counters
    }

    /// The indices of the holder's two counters, in two rows of this many counters each. They are independent of each
    /// other, so two holders rarely share both counters.
    pub const fn indices(self, counters: usize) -> [usize; 2] {
        [self.index(counters), (self.0 >> 16) as usize % counters]
    }

    /// The network of an address.
    pub fn address(address: IpAddr) -> Self {
        Self::new(network(address))
    }

    /// The subject of an issuer's tokens. All sessions of the subject count together.
    pub(crate) fn caller(issuer: &str, subject: &str) -> Self {
        Self::new((issuer, subject))
    }
}
