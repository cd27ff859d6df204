//! What a gate bears at once (requirements A4, A9, A10, A11). Everything that is held for a client is counted here:
//! requests under way, request bodies of endpoints that are not there yet, our own streams, tunnels, WebSockets of nobody
//! known, and bytes that are kept. Nothing of it knows HTTP.
//!
//! Each kind is a pool: so much in all, and so much of it for one holder. A holder is a client address (IPv6: its
//! /64) or a caller, the subject of an issuer. Whatever one holder does, the rest of each pool is left to the others. A
//! pool that is full says so at once, because a refusal costs next to nothing, and waiting costs memory and everybody's
//! time.
//!
//! Holders share a fixed number of counters under a hash that nobody outside can foresee, so memory is bounded and a
//! place costs two atomic additions. Two holders that share a counter share its bound.

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
pub use pool::{Pool, PoolPermit, Shares};
#[cfg(feature = "kuzzle")]
pub use socket::SocketPermit;

/// When to try again. Long enough that who keeps to it makes the load smaller, and short enough to wait for.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What a gate bears. The default is that of a layer: nothing bounds how many requests of one caller, or tunnels, the
/// service behind it takes. The program has all of it in `gateway.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Requests under way, and of them from one address. For the program alone: a layer does not count them.
    pub requests: Bound,
    /// Requests under way of one caller.
    pub requests_per_caller: usize,
    /// Requests to endpoints whose body is not there yet, and of them from one address.
    pub pending_bodies: Bound,
    /// Streams that the gate answers itself, such as `grpc.health.v1.Health/Watch`, and of them to one address.
    pub own_streams: Bound,
    /// Upgraded connections, and of them those of one caller.
    pub tunnels: Bound,
    /// WebSockets that the gate answers itself and on which no token was good yet, and of them from one address.
    pub anonymous_sockets: Bound,
    /// Bytes kept of bodies, messages and queues; and of them for one caller, or one address where no caller is known.
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
            buffered: Bound { all: 256 * mebibyte, each: 32 * mebibyte },
        }
    }
}

/// Why something is not borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests are under way.
    Requests,
    /// Of them too many from this address.
    Address,
    /// Too many requests of this caller are under way.
    Caller,
    /// Too many bodies have not come yet.
    Bodies,
    /// Too many streams of our own.
    Streams,
    /// Too many tunnels, of this caller or in all.
    Tunnels,
    /// Too many WebSockets of nobody known.
    #[cfg(feature = "kuzzle")]
    Sockets,
    /// Too much is kept.
    Buffered,
}

impl Refusal {
    /// One word for the access log and metrics, from a fixed set.
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

    /// What the client is told.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Requests => "too many requests are under way",
            Self::Address => "too many requests from this address are under way",
            Self::Caller => "too many requests of this caller are under way",
            Self::Bodies => "too many requests wait for their body",
            Self::Streams => "too many streams are open",
            Self::Tunnels => "too many upgraded connections are open",
            #[cfg(feature = "kuzzle")]
            Self::Sockets => "too many connections without a token are open",
            Self::Buffered => "too many bytes wait",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Overload {
    pub requests: Pool,
    /// Requests that were refused and wait for another chance.
    pub delayed_retries: DelayedRetries,
    pub bodies: Pool,
    pub streams: Pool,
    pub tunnels: Pool,
    #[cfg(feature = "kuzzle")]
    pub(crate) sockets: Pool,
    pub buffered: Pool,
}

impl Overload {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            requests: Pool::new(bounds.requests),
            delayed_retries: DelayedRetries::new(bounds.requests),
            bodies: Pool::new(bounds.pending_bodies),
            streams: Pool::new(bounds.own_streams),
            tunnels: Pool::new(bounds.tunnels),
            #[cfg(feature = "kuzzle")]
            sockets: Pool::new(bounds.anonymous_sockets),
            buffered: Pool::new(bounds.buffered),
        }
    }

    /// Other bounds, for what comes from now on.
    pub fn set(&self, bounds: &Bounds) {
        self.requests.set(bounds.requests);
        self.delayed_retries.set(bounds.requests);
        self.bodies.set(bounds.pending_bodies);
        self.streams.set(bounds.own_streams);
        self.tunnels.set(bounds.tunnels);
        #[cfg(feature = "kuzzle")]
        self.sockets.set(bounds.anonymous_sockets);
        self.buffered.set(bounds.buffered);
    }

    /// A place for a request from there.
    pub fn request(&self, holder: Option<Holder>) -> Result<PoolPermit, Refusal> {
        self.requests.enter(holder).map_err(|full| match full {
            Full::All => Refusal::Requests,
            Full::Holder => Refusal::Address,
        })
    }
}
