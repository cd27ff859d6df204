//! What an upstream is, as the configuration says it.

use std::num::NonZeroU32;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::tls::UpstreamTls;
use super::url::UpstreamUrl;

/// One `[[upstreams]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What logs and metrics call it.
    pub name: String,
    /// Its addresses. A name that stands for several is as many addresses.
    pub urls: Vec<UpstreamUrl>,
    /// It is sent the client's `Host`, as it was checked; else the address from the configuration. An `https://` address
    /// is then spoken to in HTTP/1.1.
    pub preserve_host: bool,
    /// Its own [`Settings::connect_timeout`](super::Settings::connect_timeout).
    pub connect_timeout: Option<Duration>,
    /// Its own [`Settings::head_timeout`](super::Settings::head_timeout).
    pub head_timeout: Option<Duration>,
    /// Its own [`Settings::idle_timeout`](super::Settings::idle_timeout).
    pub idle_timeout: Option<Duration>,
    /// Whom `https://` addresses must prove to be, and who we are to them.
    pub tls: UpstreamTls,
    /// How many requests may be on their way at one address, streams and upgraded connections among them. In HTTP/1.1
    /// each has a connection of its own. Default 1024.
    pub max_requests: usize,
    /// How many of them may be one caller's, for each address. Default 103, a tenth.
    pub max_requests_per_caller: usize,
    /// How many of them may come from one client address, for each address. Default 256, a quarter.
    pub max_requests_per_address: usize,
    /// How long a request may wait while all addresses are full. Default 1 s.
    pub queue_timeout: Duration,
    /// So many failures in a row put an address aside. Default 5.
    pub max_failures: u32,
    /// For how long; twice as long each further time in a row, up to [`LONGEST_ASIDE`]. Default 10 s.
    pub eject_for: Duration,
    /// Ask the addresses themselves whether they are well. Default: no.
    pub health: Option<HealthCheck>,
    /// How often a host name is looked up again. Default 30 s.
    pub dns_refresh: Duration,
    /// A connection that is older takes no further request. Default 5 min.
    pub max_connection_age: Duration,
    /// Whether an HTTP/1.1 connection carries more than one request. Default [`Reuse::Safe`].
    pub reuse: Reuse,
    /// An HTTP/1.1 connection that carried so many requests takes no further one. Default
    /// [`MAX_REQUESTS_PER_CONNECTION`].
    pub max_requests_per_connection: NonZeroU32,
}

/// Whether a connection to an upstream is used again. HTTP/2 numbers its responses, so this concerns HTTP/1.1 alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// A connection is used again once its response was read to the end and nothing else came. An upstream that sends a
    /// second response *after* that, while the next request is under way, still gives it to that request: HTTP/1.1 has no
    /// number to tell them apart by. [`Upstream::max_requests_per_connection`] bounds how long that lasts.
    #[default]
    Safe,
    /// Each request has a connection of its own. For upstreams that are not trusted to answer once.
    Never,
}

/// The default of [`Upstream::max_requests_per_connection`].
pub const MAX_REQUESTS_PER_CONNECTION: NonZeroU32 = match NonZeroU32::new(1000) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};

/// The longest that an address is put aside, unless [`Upstream::eject_for`] is longer.
pub const LONGEST_ASIDE: Duration = Duration::from_secs(300);

impl Upstream {
    /// One with the defaults.
    pub fn new(name: impl Into<String>, urls: Vec<UpstreamUrl>) -> Self {
        Self {
            name: name.into(),
            urls,
            preserve_host: false,
            connect_timeout: None,
            head_timeout: None,
            idle_timeout: None,
            tls: UpstreamTls::default(),
            max_requests: 1024,
            max_requests_per_caller: 103,
            max_requests_per_address: 256,
            queue_timeout: Duration::from_secs(1),
            max_failures: 5,
            eject_for: Duration::from_secs(10),
            health: None,
            dns_refresh: Duration::from_secs(30),
            max_connection_age: Duration::from_secs(300),
            reuse: Reuse::default(),
            max_requests_per_connection: MAX_REQUESTS_PER_CONNECTION,
        }
    }

    /// How many requests one HTTP/1.1 connection carries at most.
    pub(super) const fn requests_per_connection(&self) -> NonZeroU32 {
        match self.reuse {
            Reuse::Safe => self.max_requests_per_connection,
            Reuse::Never => NonZeroU32::MIN,
        }
    }
}

/// `[upstreams.health]`: a `GET` to each address, which is well when it answers 2xx in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: PathAndQuery,
    /// The time between two checks. Default 5 s.
    pub interval: Duration,
    /// How long the whole answer may take. Default 2 s.
    pub timeout: Duration,
    /// So many good checks in a row bring an address back. Default 2.
    pub healthy_after: u32,
    /// So many bad ones put it aside. Default 3.
    pub unhealthy_after: u32,
}

impl HealthCheck {
    /// One with the defaults.
    pub fn new(path: PathAndQuery) -> Self {
        Self {
            path,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}
