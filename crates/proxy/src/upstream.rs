//! Upstream configuration.

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
    /// The upstream's addresses. All addresses of a host name are used.
    pub urls: Vec<UpstreamUrl>,
    /// Whether the upstream receives the client's `Host`. HTTPS addresses then use HTTP/1.1.
    pub preserve_host: bool,
    /// Overrides [`Settings::connect_timeout`](super::Settings::connect_timeout).
    pub connect_timeout: Option<Duration>,
    /// Overrides [`Settings::head_timeout`](super::Settings::head_timeout).
    pub head_timeout: Option<Duration>,
    /// Overrides [`Settings::idle_timeout`](super::Settings::idle_timeout).
    pub idle_timeout: Option<Duration>,
    /// TLS settings for `https://` addresses.
    pub tls: UpstreamTls,
    /// The file with the gate's own `Authorization`, which replaces the caller's.
    pub authorization_file: Option<PathBuf>,
    /// The `aud` of signed assertions. The default is the upstream's name.
    pub assertion_audience: Option<String>,
    /// The token exchange for callers.
    pub exchange: Option<ExchangeSettings>,
    /// The maximum number of requests in flight at one address, including streams and upgraded connections. Default
    /// 1024.
    pub max_requests: usize,
    /// The maximum number of requests in flight per caller, at each address. Default 103, a tenth of `max_requests`.
    pub max_requests_per_caller: usize,
    /// The maximum number of requests in flight per client address, at each upstream address. Default 256, a quarter of
    /// `max_requests`.
    pub max_requests_per_address: usize,
    /// The maximum waiting time while all addresses are full. Default 1 s.
    pub queue_timeout: Duration,
    /// The number of consecutive failures that eject an address. Default 5.
    pub max_failures: u32,
    /// The duration of the first ejection. The duration doubles with each consecutive ejection, up to [`MAX_EJECTION`].
    /// Default 10 s.
    pub eject_for: Duration,
    /// Active health checks. Default: none.
    pub health: Option<HealthCheck>,
    /// How often host names are resolved again. Default 30 s.
    pub dns_refresh: Duration,
    /// The maximum age of a reused connection. Default 5 min.
    pub max_connection_age: Duration,
    /// Whether HTTP/1.1 connections are reused. Default [`Reuse::Safe`].
    pub reuse: Reuse,
    /// The maximum number of requests per HTTP/1.1 connection. Default [`MAX_REQUESTS_PER_CONNECTION`].
    pub max_requests_per_connection: NonZeroU32,
}

/// A token exchange for callers of an upstream.
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
    /// The authorization server that accepts an identity assertion.
    pub authorization_server: Option<String>,
    /// The maximum cache time of an exchanged token.
    pub max_age: Duration,
}

/// Whether HTTP/1.1 connections are reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// A connection is reused after a complete response without surplus bytes. A second response from the upstream
    /// would answer the next request. [`Upstream::max_requests_per_connection`] limits the number of affected requests.
    #[default]
    Safe,
    /// Each request opens its own connection. Use this for upstreams that may respond twice.
    Never,
}

/// The default of [`Upstream::max_requests_per_connection`].
pub const MAX_REQUESTS_PER_CONNECTION: NonZeroU32 = match NonZeroU32::new(1000) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};

/// The maximum duration of an ejection, unless [`Upstream::eject_for`] is longer.
pub const MAX_EJECTION: Duration = Duration::from_secs(300);

impl Upstream {
    /// Creates an upstream with default settings.
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

    /// The configured files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.files().chain(self.authorization_file.as_deref())
    }

    pub(super) const fn requests_per_connection(&self) -> NonZeroU32 {
        match self.reuse {
            Reuse::Safe => self.max_requests_per_connection,
            Reuse::Never => NonZeroU32::MIN,
        }
    }
}

/// A health check that requires a timely 2xx response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of the request.
    pub path: PathAndQuery,
    /// The time between two checks. Default 5 s.
    pub interval: Duration,
    /// The time limit for a response. Default 2.5 s.
    pub timeout: Duration,
    /// The number of consecutive successful checks that readmit an address. Default 2.
    pub healthy_after: u32,
    /// The number of consecutive failed checks that eject an address. Default 3.
    pub unhealthy_after: u32,
}

impl HealthCheck {
    /// Creates a health check with default settings.
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
