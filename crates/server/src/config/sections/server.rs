//! `[server]`: the public listeners and their limits.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;
use toml::{Table, Value};

use super::super::print::{list, number, put, texts, time};
use super::super::raw::Section;
use super::super::value;
use super::listeners::{self, ListenerConfig};
use super::{HOUR, overload, usize_or};
use rotogate_core::overload::Bounds;

/// `[server]`: the public listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The listeners; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Scheme and authority of the gate, as clients see it.
    pub public_url: Uri,
    /// The proxies whose forwarding headers count (requirement T6).
    pub trusted_proxies: Vec<IpNet>,
    /// The hosts that are served besides those of `public_url` and of the routes (requirement T23).
    pub hosts: Vec<String>,
    /// The timeout of a connection to an upstream, unless the upstream has its own.
    pub connect_timeout: Duration,
    /// The timeout of a request head.
    pub head_timeout: Duration,
    /// The timeout of a request or response body without progress, and of an HTTP/2 connection without requests.
    pub idle_timeout: Duration,
    /// The longest request head, in bytes.
    pub max_head: usize,
    /// The most concurrent connections, over all listeners.
    pub max_connections: usize,
    /// The bounds under overload.
    pub overload: Bounds,
    /// The most concurrent requests of one HTTP/2 connection.
    pub max_requests_per_connection: u32,
    /// The threads that serve requests.
    pub workers: NonZeroUsize,
    /// The minimum rate at which a client sends or reads a body, in bytes a second. A client may lag behind it by
    /// `idle_timeout`.
    pub min_body_rate: u64,
    /// How long requests in flight may take after a stop.
    pub drain_timeout: Duration,
    /// How long streams may go on after the order to upgrade in place.
    pub stream_drain: Duration,
    /// Whether a change of `gateway.toml` is a reload.
    pub watch: bool,
    /// The header that carries the request id.
    pub request_id_header: HeaderName,
}

/// The defaults of the section.
impl ServerConfig {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
    const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
    const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_CONNECTIONS: usize = 10_000;
    const MAX_HEAD_BYTES: usize = 32 << 10;
    const MIN_BODY_RATE: u64 = 256;
    const STREAM_DRAIN: Duration = Duration::from_millis(500);
    const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// As many threads as processors.
    fn default_workers() -> NonZeroUsize {
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    }
}

impl ServerConfig {
    /// Where requests are accepted.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|listener| listener.address)
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> ServerConfig {
    let timeout =
        |key, default| section.get(key, value::duration_within(Duration::from_millis(100), HOUR)).unwrap_or(default);
    let trusted_proxies = section.list("trusted_proxies", value::network).unwrap_or_default();
    let expected = "the URL at which clients reach the gate, such as \"https://api.example.com\"";
    let max_connections =
        section.get("max_connections", value::count(1, 1_000_000)).unwrap_or(ServerConfig::MAX_CONNECTIONS);
    let (overload, max_requests_per_connection) = overload::bounds(section, max_connections);
    let server = ServerConfig {
        listeners: listeners::read(section, dir, &trusted_proxies),
        public_url: section.require("public_url", expected, value::origin_url).unwrap_or_default(),
        trusted_proxies,
        hosts: section.list("hosts", value::served_host).unwrap_or_default(),
        connect_timeout: timeout("connect_timeout", ServerConfig::CONNECT_TIMEOUT),
        head_timeout: timeout("head_timeout", ServerConfig::HEAD_TIMEOUT),
        idle_timeout: timeout("idle_timeout", ServerConfig::IDLE_TIMEOUT),
        max_head: usize_or(section.get("max_head", value::size(8 << 10, 1 << 20)), ServerConfig::MAX_HEAD_BYTES),
        max_connections,
        overload,
        max_requests_per_connection,
        workers: section
            .get("workers", value::count(1, 1024))
            .and_then(NonZeroUsize::new)
            .unwrap_or_else(ServerConfig::default_workers),
        min_body_rate: section.get("min_body_rate", value::size(0, 1 << 20)).unwrap_or(ServerConfig::MIN_BODY_RATE),
        drain_timeout: section
            .get("drain_timeout", value::duration_within(Duration::ZERO, HOUR))
            .unwrap_or(ServerConfig::DRAIN_TIMEOUT),
        stream_drain: section
            .get("stream_drain", value::duration_within(Duration::ZERO, HOUR))
            .unwrap_or(ServerConfig::STREAM_DRAIN),
        watch: section.get("watch", value::boolean).unwrap_or(false),
        request_id_header: section
            .get("request_id_header", |v| value::header(&value::text(v)?))
            .unwrap_or(ServerConfig::REQUEST_ID_HEADER),
    };
    // Each listener holds a permit for the connection that it waits for.
    if server.max_connections < server.listeners.len() {
        let message = format!("is {}, and there are {} listeners", server.max_connections, server.listeners.len());
        section.blame("max_connections", message);
    }
    section.finish();
    server
}

pub(super) fn print(server: &ServerConfig) -> Value {
    let ServerConfig {
        listeners,
        public_url,
        trusted_proxies,
        connect_timeout,
        head_timeout,
        idle_timeout,
        max_head,
        max_connections,
        overload,
        max_requests_per_connection,
        workers,
        min_body_rate,
        drain_timeout,
        stream_drain,
        watch,
        hosts,
        request_id_header,
    } = server;
    let mut table = Table::new();
    put(&mut table, "listeners", list(listeners, listeners::print));
    put(&mut table, "public_url", public_url.to_string().trim_end_matches('/'));
    put(&mut table, "trusted_proxies", texts(trusted_proxies));
    put(&mut table, "connect_timeout", time(*connect_timeout));
    put(&mut table, "head_timeout", time(*head_timeout));
    put(&mut table, "idle_timeout", time(*idle_timeout));
    put(&mut table, "max_head", number(*max_head));
    put(&mut table, "max_connections", number(*max_connections));
    overload::print(overload, &mut table);
    put(&mut table, "max_requests_per_connection", number(*max_requests_per_connection));
    put(&mut table, "workers", number(workers.get()));
    put(&mut table, "min_body_rate", number(*min_body_rate));
    put(&mut table, "drain_timeout", time(*drain_timeout));
    put(&mut table, "stream_drain", time(*stream_drain));
    put(&mut table, "watch", *watch);
    put(&mut table, "hosts", texts(hosts));
    put(&mut table, "request_id_header", request_id_header.as_str());
    table.into()
}
