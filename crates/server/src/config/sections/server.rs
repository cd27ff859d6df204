//! `[server]`: the public listeners and their limits.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;

use super::super::declare::{DeclaredKeys, section};
use super::super::raw::{Section, Value as Raw};
use super::super::value::{self, Share};
use super::listeners::{self, ListenerConfig};
use super::{HOUR, overload, processors};
use rotogate_core::overload::Bounds;

section! {
    /// `[server]`: the public listeners.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServerConfig, read by read_keys(section, dir: &Path) {
        /// The proxies whose forwarding headers count (requirement T6).
        reload trusted_proxies: Vec<IpNet> = list_or_empty(value::network),
        /// The most concurrent connections, over all listeners.
        reload max_connections: usize = get_or(value::count(1, 1_000_000), 10_000),
        /// The bounds under overload.
        reload overload as "..": Bounds = by { overload::read(section, max_connections) },
        /// The most concurrent requests of one HTTP/2 connection. RFC 9113 §6.5.2 recommends no fewer than 100.
        reload max_requests_per_connection: u32 = by {
            let max_requests = overload.requests.all;
            let default = Share::Amount(max_requests.min(100) as u64);
            let most = section.share_of("max_requests_per_connection", ("max_requests", max_requests), default);
            u32::try_from(most).unwrap_or(u32::MAX)
        },
        /// The listeners; at least one.
        restart("listen" if are_other_sockets) listeners: Vec<ListenerConfig> = by {
            listeners::read(section, dir, &trusted_proxies)
        },
        /// Scheme and authority of the gate, as clients see it.
        reload public_url: Uri = required(PUBLIC_URL, value::origin_url),
        /// The hosts that are served besides those of `public_url` and of the routes (requirement T23).
        reload hosts: Vec<String> = list_or_empty(value::served_host),
        /// The timeout of a connection to an upstream, unless the upstream has its own.
        reload connect_timeout: Duration = get_or(timeout(), Duration::from_secs(5)),
        /// The timeout of a request head.
        reload head_timeout: Duration = get_or(timeout(), Duration::from_secs(10)),
        /// The timeout of a request or response body without progress, and of an HTTP/2 connection without requests.
        reload idle_timeout: Duration = get_or(timeout(), Duration::from_secs(60)),
        /// The longest request head, in bytes.
        reload max_head: usize = get_or(value::size(8 << 10, 1 << 20), 32 << 10),
        /// The threads that serve requests: as many as processors.
        restart workers: NonZeroUsize = get_or(value::count(1, 1024), processors()),
        /// The minimum rate at which a client sends or reads a body, in bytes a second. A client may lag behind it by
        /// `idle_timeout`.
        reload min_body_rate: u64 = get_or(value::size(0, 1 << 20), 256),
        /// How long requests in flight may take after a stop.
        reload drain_timeout: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_secs(30)),
        /// How long streams may go on after the order to upgrade in place.
        reload stream_drain: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_millis(500)),
        /// Whether a change of `gateway.toml` is a reload.
        restart watch: bool = get_or(value::boolean, false),
        /// The header that carries the request id.
        restart request_id_header: HeaderName = get_or(
            |v| value::header(&value::text(v)?),
            HeaderName::from_static("x-request-id")
        ),
    }
}

const PUBLIC_URL: &str = "the URL at which clients reach the gate, such as \"https://api.example.com\"";

fn timeout() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::from_millis(100), HOUR)
}

impl ServerConfig {
    /// Where requests are accepted.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|listener| listener.address)
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> ServerConfig {
    let server = read_keys(section, dir);
    // Each listener holds a permit for the connection that it waits for.
    if server.max_connections < server.listeners.len() {
        let message = format!("is {}, and there are {} listeners", server.max_connections, server.listeners.len());
        section.blame("max_connections", message);
    }
    section.finish();
    server
}

/// Whether a listener comes, goes, or differs in a key that needs a restart.
fn are_other_sockets(old: &[ListenerConfig], new: &[ListenerConfig]) -> bool {
    old.len() != new.len() || old.iter().zip(new).any(|(old, new)| !new.clone().keep(old).is_empty())
}
