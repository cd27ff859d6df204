//! The configuration of an upstream.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;

use super::url::UpstreamUrl;
use rotogate_core::exchange::ExchangeForm;

use rotogate_core::session::Scope;
use rotogate_kit::upstream_tls::UpstreamTls;

/// One `[[upstreams]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The upstream's name in logs and metrics.
    pub name: String,
    /// The upstream's addresses. If a host name resolves to several addresses, all of them are used.
    pub urls: Vec<UpstreamUrl>,
    /// Whether the upstream receives the client's verified `Host` instead of the host of the configured URL. The proxy
    /// then uses HTTP/1.1 for an `https://` address.
    pub preserve_host: bool,
    /// Overrides [`Settings::connect_timeout`](super::Settings::connect_timeout).
    pub connect_timeout: Option<Duration>,
    /// Overrides [`Settings::head_timeout`](super::Settings::head_timeout).
    pub head_timeout: Option<Duration>,
    /// Overrides [`Settings::idle_timeout`](super::Settings::idle_timeout).
    pub idle_timeout: Option<Duration>,
    /// How the gate verifies `https://` addresses, and which client certificate it presents.
    pub tls: UpstreamTls,
    /// The file with the gate's own `Authorization`, which replaces the caller's.
    pub authorization_file: Option<PathBuf>,
    /// The `aud` of the signed assertions that the upstream receives. If `None`, the upstream's name.
    pub assertion_audience: Option<String>,
    /// How callers' tokens are exchanged for tokens of this upstream. `None` if they are not exchanged.
    pub exchange: Option<ExchangeSettings>,
    /// The maximum number of requests in flight at one address, including streams and upgraded connections. Over
    /// HTTP/1.1 each request has a connection of its own. Default 1024.
    pub max_requests: usize,
    /// The maximum number of requests in flight for one caller, at each address. Default 103, a tenth of
    /// `max_requests`.
    pub max_requests_per_caller: usize,
    /// The maximum number of requests in flight from one client address, at each address of the upstream. Default 256,
    /// a quarter of `max_requests`.
    pub max_requests_per_address: usize,
    /// How long a request may wait while all addresses are full. Default 1 s.
    pub queue_timeout: Duration,
    /// The number of consecutive failures that eject an address. Default 5.
    pub max_failures: u32,
    /// How long an address is ejected. The time doubles with each further ejection in a row, up to [`MAX_EJECTION`].
    /// Default 10 s.
    pub eject_for: Duration,
    /// Active health checks of the addresses. Default: none.
    pub health: Option<HealthCheck>,
    /// How often a host name is looked up again. Default 30 s.
    pub dns_refresh: Duration,
    /// The age after which a connection is not used for further requests. Default 5 min.
    pub max_connection_age: Duration,
    /// Whether an HTTP/1.1 connection is used for more than one request. Default [`Reuse::Safe`].
    pub reuse: Reuse,
    /// The maximum number of requests on one HTTP/1.1 connection. Default [`MAX_REQUESTS_PER_CONNECTION`].
    pub max_requests_per_connection: NonZeroU32,
}

/// The token request to a provider on behalf of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// The provider's name.
    pub provider: String,
    /// The kind of token request.
    pub form: ExchangeForm,
    /// The parameter `audience` of the request.
    pub audience: Option<String>,
    /// The parameter `resource` of the request.
    pub resource: Option<String>,
    /// The parameter `scope` of the request.
    pub scope: Scope,
    /// The name of the authorization server that accepts an identity assertion.
    pub authorization_server: Option<String>,
    /// The maximum time for which an obtained token is cached.
    pub max_age: Duration,
}

/// Whether a connection to an upstream is reused. This applies to HTTP/1.1 only, because HTTP/2 numbers its responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// A connection is reused once its response was read to the end and no other bytes arrived. If the upstream sends a
    /// second response *after* that, the proxy takes it for the response to the next request, because HTTP/1.1 does not
    /// number responses. [`Upstream::max_requests_per_connection`] limits how many requests can get the response to
    /// another request.
    #[default]
    Safe,
    /// Each request has its own connection. Use this for upstreams that may send more than one response to a request.
    Never,
}

/// The default value of [`Upstream::max_requests_per_connection`].
pub const MAX_REQUESTS_PER_CONNECTION: NonZeroU32 = match NonZeroU32::new(1000) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};

/// The maximum duration of an ejection, unless [`Upstream::eject_for`] is longer.
pub const MAX_EJECTION: Duration = Duration::from_secs(300);

impl Upstream {
    /// Creates an upstream with the defaults.
    pub fn new(name: impl Into<String>, urls: Vec<UpstreamUrl>) -> Self {
        Self {
            name: name.into(),
            urls,
            preserve_host: false,
            connect_timeout: None,
            head_timeout: None,
            idle_timeout: None,
            tls: UpstreamTls::default(),
            authorization_file: None,
            assertion_audience: None,
            exchange: None,
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

    /// The files that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.files().chain(self.authorization_file.as_deref())
    }

    /// The maximum number of requests on one HTTP/1.1 connection.
    pub(super) const fn requests_per_connection(&self) -> NonZeroU32 {
        match self.reuse {
            Reuse::Safe => self.max_requests_per_connection,
            Reuse::Never => NonZeroU32::MIN,
        }
    }
}

/// `[upstreams.health]`: a `GET` to each address. The check succeeds if a 2xx response arrives in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of the request.
    pub path: PathAndQuery,
    /// The time between two checks. Default 5 s.
    pub interval: Duration,
    /// The time limit for the whole response. Default 2.5 s, half of the interval.
    pub timeout: Duration,
    /// The number of consecutive successful checks that readmit an address. Default 2.
    pub healthy_after: u32,
    /// The number of consecutive failed checks that eject an address. Default 3.
    pub unhealthy_after: u32,
}

impl HealthCheck {
    /// Creates a health check with the defaults.
    pub fn new(path: PathAndQuery) -> Self {
        Self {
            path,
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(2500),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}
