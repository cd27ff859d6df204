//! `[server]`: the public listeners and their limits.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;

use super::super::declare::{DeclaredKeys, section};
use super::super::value::{self, Share};
use super::listeners::{self, ListenerConfig};
use super::{HOUR, overload, processors};
use rotogate_core::overload::Bounds;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `[server]`: the public listeners.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServerConfig, read by read_keys(section, dir: &Path) {
        /// Networks of proxies whose `X-Forwarded-*` headers the gate trusts (`["10.0.0.0/8"]`). Set it behind a
        /// proxy, whose address would otherwise count as that of every client.
        // Requirement T6.
        reload trusted_proxies: Vec<IpNet> = list_or_empty(value::network),
        /// Most concurrent connections at all listeners together. Lower it on a machine with little memory, and raise
        /// it for more clients (docs/edge.md).
        reload max_connections: usize = get_or(value::count(1, 1_000_000), 10_000),
        /// Bounds under overload.
        reload overload as "..": Bounds = by { overload::read(section, max_connections) },
        /// Most concurrent requests of one HTTP/2 connection.
        no_key max_requests_per_connection: u32 = by {
            let max_requests = overload.requests.all;
            let default = Share::Amount(max_requests.min(100) as u64);
            let most = section.for_tests().share_of("max_requests_per_connection", ("max_requests", max_requests), default);
            u32::try_from(most).unwrap_or(u32::MAX)
        },
        /// Most connections of one address at one listener; an IPv6 address counts as its /64. `trusted_proxies` are
        /// exempt. Raise it if more clients than that share an address, behind a carrier's or a company's NAT.
        reload max_connections_per_address: usize = get_or(value::count(1, 1_000_000), 1000),
        /// Listener with its own settings, instead of `listen` or beside it: docs/edge.md.
        restart("listen" if are_other_sockets) listeners: Vec<ListenerConfig> = by {
            listeners::read(section, dir, &trusted_proxies, max_connections_per_address)
        },
        /// URL by which clients reach the gate: scheme and authority.
        reload public_url: Uri = required(PUBLIC_URL, value::origin_url),
        /// Hosts to serve in addition to those of `public_url` and of routes: `"example.com"`, `"*.example.com"`, `"*"`
        /// for any. Another Host gets 421. A listener on loopback also accepts localhost and loopback addresses.
        // Requirement T23.
        reload hosts: Vec<String> = list_or_empty(value::served_host),
        /// Time for a request's head, and how long a connection may wait for its next request. Raise it behind a load
        /// balancer that keeps idle connections longer. Otherwise the load balancer may send a request on a connection
        /// that the gate is closing.
        reload head_timeout: Duration = get_or(timeout(), Duration::from_secs(10)),
        /// How long a body of a client may stall, and how long an HTTP/2 connection may be without requests.
        fixed idle_timeout: Duration = get_or(timeout(), Duration::from_secs(60)),
        /// Longest request line and headers together; 8KiB to 1MiB. Raise it for clients with large cookies or
        /// Kerberos tickets.
        reload max_head: usize = get_or(value::size(8 << 10, 1 << 20), 64 << 10),
        /// Threads that serve requests. Set it in a container that has a memory limit but no processor limit. Default:
        /// the number of processors.
        restart workers: NonZeroUsize = get_or(value::count(1, 1024), processors()),
        /// Bytes a second that a client must send or accept; it may lag behind by `idle_timeout`.
        fixed min_body_rate: u64 = get_or(value::size(0, 1 << 20), 256),
        /// How long running requests may take to finish after a stop. Raise it for longer requests, but keep it below
        /// the time after which the supervisor kills the gate.
        reload drain_timeout: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_secs(30)),
        /// How long event streams and gRPC calls continue at an in-place upgrade.
        fixed stream_drain: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_millis(500)),
        /// true: a change of this file causes a reload, as SIGHUP does. Set it where you cannot send a signal, such
        /// as in Kubernetes.
        restart watch: bool = get_or(value::boolean, false),
        /// Header that identifies a request in logs, response and upstream request (docs/logs.md). Set it if your
        /// other services use another one.
        restart request_id_header: HeaderName = get_or(
            |v| value::header(&value::text(v)?),
            HeaderName::from_static("x-request-id")
        ),
    }
    with {
        /// Address, or a list of several.
        restart listen: text,
        /// Certificate for the addresses of `listen` with its intermediates, and its private key (0600); read again
        /// when the files change. Further keys: `tls` of `[[server.listeners]]`.
        reload tls: table,
        /// Most concurrent requests, streams included. Beyond that: 503. Lower it on a machine with little memory.
        reload max_requests: number,
        /// Part of `max_requests`: the most requests of one address at a busy gate; an address that is alone may have
        /// 7/8 (docs/edge.md). An IPv6 address counts as its /64, here and in all shares below.
        fixed max_requests_per_address: share = "10%",
        /// As `max_requests_per_address`, for all sessions and addresses of one subject.
        fixed max_requests_per_caller: share = "5%",
        /// Part of `max_requests`: requests to endpoints whose body has not arrived.
        fixed max_pending_bodies: share = "10%",
        /// Part of `max_pending_bodies`, for one address.
        fixed max_pending_bodies_per_address: share = "10%",
        /// Part of `max_requests`: streams that the gate answers itself (gRPC health, reflection).
        fixed max_own_streams: share = "2%",
        /// Part of `max_own_streams`, for one address.
        fixed max_own_streams_per_address: share = "10%",
        /// Part of `max_connections`: WebSockets and other upgraded connections.
        fixed max_tunnels: share = "100%",
        /// Part of `max_tunnels`, for one subject.
        fixed max_tunnels_per_caller: share = "5%",
        /// Part of `max_connections`: kuzzle WebSockets without a valid token so far.
        fixed max_anonymous_sockets: share = "10%",
        /// Part of `max_anonymous_sockets`, for one address.
        fixed max_anonymous_sockets_per_address: share = "10%",
        /// Bytes of bodies, messages and queues in memory; at least 1MiB. Lower it on a machine with little memory.
        reload max_buffered: size,
        /// Part of `max_buffered`: for one caller, or one address of unknown callers; at least 1MiB.
        fixed max_buffered_per_caller: share = "10%",
        /// Most concurrent requests of one HTTP/2 connection.
        fixed max_requests_per_connection: number = 100_u32,
    }
}

const PUBLIC_URL: &str = "the URL at which clients reach the gate, such as \"https://api.example.com\"";

fn timeout() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::from_millis(100), HOUR)
}

impl ServerConfig {
    /// The addresses at which requests are accepted.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|listener| listener.address)
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> ServerConfig {
    let server = read_keys(section, dir);
    // Each listener takes one permit in advance, for the next connection that it accepts.
    if server.max_connections < server.listeners.len() {
        let message = format!("is {}, and there are {} listeners", server.max_connections, server.listeners.len());
        section.blame("max_connections", message);
    }
    server
}

/// Whether a listener was added or removed, or differs in a key that needs a restart.
fn are_other_sockets(old: &[ListenerConfig], new: &[ListenerConfig]) -> bool {
    old.len() != new.len() || old.iter().zip(new).any(|(old, new)| !new.clone().keep(old).is_empty())
}
