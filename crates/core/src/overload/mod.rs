//! The bounds on the concurrent load of a gate (requirements A4, A9, A10, A11). This module counts all resources that
//! the gate uses for clients.
//!
//! Each resource has a pool with a total limit, and a limit for each holder (its share). A holder is a client address
//! (for IPv6, its /64) or a caller, which is one subject of one issuer. Shares apply only while a pool is nearly full
//! (requirement A17). A full pool refuses at once, because waiting costs memory and delays all clients. Holders are
//! mapped to a fixed number of counters by a hash that a client cannot predict. Each holder has two counters, which it
//! may share with other holders. The lower value counts.

use std::time::Duration;

pub use crate::network::Holder;

mod patience;
mod permit_body;
mod pool;
#[cfg(feature = "kuzzle")]
mod socket;

pub use patience::{DelayedRetries, LastRejection};
pub use permit_body::PermitBody;
pub use pool::Bound;
use pool::Full;
pub use pool::Lent;
pub use pool::{Pool, PoolPermit, Shares, Usage};
#[cfg(feature = "kuzzle")]
pub use socket::SocketPermit;

/// The value of `Retry-After`.
pub const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The bounds on the concurrent load of a gate. The layer does not limit tunnels or the requests of one caller by
/// default. The program `rotogate` sets all bounds from `gateway.toml`.
///
/// ```
/// use rotogate::gate::Bounds;
///
/// let mut bounds = Bounds::default();
/// bounds.requests_per_caller = 50;
/// bounds.tunnels.each = 10;
/// let builder = rotogate::Gate::builder().bounds(bounds);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Requests in flight, in total and from one address. Only the program `rotogate` applies this bound.
    pub requests: Bound,
    /// The share of [`Self::requests`] that one caller may have in flight. The gate's layer always enforces this share.
    pub requests_per_caller: usize,
    /// Requests whose body has not arrived, in total and from one address.
    pub pending_bodies: Bound,
    /// Streams that the gate itself serves, in total and to one address.
    pub own_streams: Bound,
    /// Upgraded connections, in total and of one caller.
    pub tunnels: Bound,
    /// The gate's own WebSockets without a valid token, in total and from one address.
    pub anonymous_sockets: Bound,
    /// Tokens that wait for verification, in total and from one address.
    pub unverified: Bound,
    /// Buffered bytes, in total and for one caller or address.
    pub buffered: Bound,
}

impl Default for Bounds {
    fn default() -> Self {
        let mebibyte = 1024 * 1024;
        Self {
            requests: Bound::NONE,
            requests_per_caller: usize::MAX,
            pending_bodies: Bound { all: 1000, each: 100 },
            own_streams: Bound { all: 200, each: 20 },
            tunnels: Bound::NONE,
            anonymous_sockets: Bound { all: 1000, each: 100 },
            unverified: Bound { all: 4096, each: 64 },
            buffered: Bound { all: 256 * mebibyte, each: 32 * mebibyte },
        }
    }
}

/// The bound that refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests are in flight.
    Requests,
    /// Too many requests from this address are in flight.
    Address,
    /// Too many requests of this caller are in flight.
    Caller,
    /// Too many requests wait for their bodies.
    Bodies,
    /// The gate serves too many streams itself.
    Streams,
    /// Too many tunnels are open, in total or for this caller.
    Tunnels,
    /// Too many WebSockets without a valid token are open.
    #[cfg(feature = "kuzzle")]
    Sockets,
    /// Too many bytes are buffered.
    Buffered,
}

impl Refusal {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Requests => "overloaded",
            Self::Address => "address_overloaded",
            Self::Caller => "caller_overloaded",
            Self::Bodies => "bodies_overloaded",
            Self::Streams => "streams_overloaded",
            Self::Tunnels => "tunnels_overloaded",
            #[cfg(feature = "kuzzle")]
            Self::Sockets => "sockets_overloaded",
            Self::Buffered => "buffer_overloaded",
        }
    }

    /// The message in the response.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Requests => "too many requests are in progress",
            Self::Address => "too many requests from this address are in progress",
            Self::Caller => "too many requests from this caller are in progress",
            Self::Bodies => "too many requests are waiting for their bodies",
            Self::Streams => "too many streams are open",
            Self::Tunnels => "too many upgraded connections are open",
            #[cfg(feature = "kuzzle")]
            Self::Sockets => "too many connections without a token are open",
            Self::Buffered => "too many bytes are buffered",
        }
    }
}

/// The pools of a gate.
#[derive(Debug)]
pub struct Overload {
    /// Requests in flight.
    pub requests: Pool,
    /// Delayed requests that were retried too early.
    pub delayed_retries: DelayedRetries,
    /// Requests whose body has not arrived.
    pub bodies: Pool,
    /// Streams that the gate itself serves.
    pub streams: Pool,
    /// Upgraded connections.
    pub tunnels: Pool,
    #[cfg(feature = "kuzzle")]
    pub(crate) sockets: Pool,
    /// Tokens that wait for verification.
    pub unverified: Pool,
    /// Buffered bytes.
    pub buffered: Pool,
}

impl Overload {
    /// Creates empty pools.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            requests: Pool::new(bounds.requests),
            delayed_retries: DelayedRetries::new(bounds.requests),
            bodies: Pool::new(bounds.pending_bodies),
            streams: Pool::new(bounds.own_streams),
            tunnels: Pool::new(bounds.tunnels),
            #[cfg(feature = "kuzzle")]
            sockets: Pool::new(bounds.anonymous_sockets),
            unverified: Pool::new(bounds.unverified),
            buffered: Pool::new(bounds.buffered),
        }
    }

    /// Changes the bounds for new requests.
    pub fn set(&self, bounds: &Bounds) {
        self.requests.set(bounds.requests);
        self.delayed_retries.set(bounds.requests);
        self.bodies.set(bounds.pending_bodies);
        self.streams.set(bounds.own_streams);
        self.tunnels.set(bounds.tunnels);
        #[cfg(feature = "kuzzle")]
        self.sockets.set(bounds.anonymous_sockets);
        self.unverified.set(bounds.unverified);
        self.buffered.set(bounds.buffered);
    }

    /// Takes a permit for a request of this holder.
    pub fn request(&self, holder: Option<Holder>) -> Result<PoolPermit, Refusal> {
        self.requests.enter(holder).map_err(|full| match full {
            Full::All => Refusal::Requests,
            Full::Holder => Refusal::Address,
        })
    }
}
