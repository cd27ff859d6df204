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
        /// Networks of proxies whose `X-Forwarded-*` headers the gate trusts (`["10.0.0.0/8"]`). Set it behind a proxy,
        /// because otherwise the gate takes the proxy's address for the address of every client.
        // Requirement T6.
        reload trusted_proxies: Vec<IpNet> = list_or_empty(value::network),
        /// Maximum number of concurrent connections at all listeners together. Lower it on a machine with little
        /// memory. Raise it for more clients (docs/edge.md).
        reload max_connections: usize = get_or(value::count(1, 1_000_000), 10_000),
        /// The limits that protect the gate against overload.
        reload overload as "..": Bounds = by { overload::read(section, max_connections) },
        /// Maximum number of concurrent requests on one HTTP/2 connection.
        no_key max_requests_per_connection: u32 = by {
            let max_requests = overload.requests.all;
            let default = Share::Amount(max_requests.min(100) as u64);
            let most = section.for_tests().share_of("max_requests_per_connection", ("max_requests", max_requests), default);
            u32::try_from(most).unwrap_or(u32::MAX)
        },
        /// Maximum number of connections from one address to one listener. IPv6 addresses in the same /64 count as one
        /// address. The limit does not apply to `trusted_proxies`. Raise it if more clients share an address, for
        /// example behind the NAT of a carrier or a company.
        reload max_connections_per_address: usize = get_or(value::count(1, 1_000_000), 1000),
        /// Listeners with settings of their own, instead of `listen` or in addition to it (docs/edge.md).
        restart("listen" if are_other_sockets) listeners: Vec<ListenerConfig> = by {
            listeners::read(section, dir, &trusted_proxies, max_connections_per_address)
        },
        /// URL by which clients reach the gate, consisting of scheme, host and optional port.
        reload public_url: Uri = required(PUBLIC_URL, value::origin_url),
        /// Hosts that the gate serves in addition to the hosts of `public_url` and of routes: `"example.com"`,
        /// `"*.example.com"`, or `"*"` for any host. Requests with another `Host` get 421. A listener on loopback also
        /// accepts localhost and loopback addresses.
        // Requirement T23.
        reload hosts: Vec<String> = list_or_empty(value::served_host),
        /// Time limit for receiving a request's head, and how long a connection may stay idle between two requests.
        /// Raise it behind a load balancer that keeps idle connections longer. Otherwise the load balancer may send a
        /// request on a connection that the gate is closing.
        reload head_timeout: Duration = get_or(timeout(), Duration::from_secs(10)),
        /// How long a client may pause while it sends or receives a body, and how long an HTTP/2 connection may be
        /// without requests.
        fixed idle_timeout: Duration = get_or(timeout(), Duration::from_secs(60)),
        /// Maximum size of a request's head (request line and headers); 8KiB to 1MiB. Raise it for clients with large
        /// cookies or Kerberos tickets.
        reload max_head: usize = get_or(value::size(8 << 10, 1 << 20), 64 << 10),
        /// Number of threads that serve requests. Set it in a container that has a memory limit but no processor limit.
        /// Default: the number of processors.
        restart workers: NonZeroUsize = get_or(value::count(1, 1024), processors()),
        /// Minimum rate, in bytes per second, at which a client must send or receive a body. It may fall behind this
        /// rate by at most `idle_timeout`.
        fixed min_body_rate: u64 = get_or(value::size(0, 1 << 20), 256),
        /// How long running requests may take to finish when the gate stops. Raise it for longer requests, but keep it
        /// below the time after which the supervisor kills the gate.
        reload drain_timeout: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_secs(30)),
        /// How long event streams and gRPC calls may continue in the old process after an in-place upgrade.
        fixed stream_drain: Duration = get_or(value::duration_within(Duration::ZERO, HOUR), Duration::from_millis(500)),
        /// true: the gate reloads the configuration when this file changes, as it does at SIGHUP. Set it where you
        /// cannot send a signal, such as in Kubernetes.
        restart watch: bool = get_or(value::boolean, false),
        /// Header with the request id. The gate writes the id to the logs, to the response and to the upstream request
        /// (docs/logs.md). Set it if your other services use another header.
        restart request_id_header: HeaderName = get_or(
            |v| value::header(&value::text(v)?),
            HeaderName::from_static("x-request-id")
        ),
    }
    with {
        /// Address of the listener, or a list of several addresses.
        restart listen: text,
        /// Certificate with its intermediates, and private key (0600), for all addresses of `listen`. The gate reads
        /// the files again when they change. Further keys are those of `tls` in `[[server.listeners]]`.
        reload tls: table,
        /// Maximum number of concurrent requests, streams included. Further requests get 503. Lower it on a machine
        /// with little memory.
        reload max_requests: number,
        /// Share of `max_requests` that one address may use while the gate is busy. If no other address sends requests,
        /// it may use 7/8 (docs/edge.md). IPv6 addresses in the same /64 count as one address, here and in all shares
        /// below.
        fixed max_requests_per_address: share = "10%",
        /// The same share as `max_requests_per_address`, but for all sessions and addresses of one subject.
        fixed max_requests_per_caller: share = "5%",
        /// Share of `max_requests` for requests to endpoints whose body has not arrived yet.
        fixed max_pending_bodies: share = "10%",
        /// Share of `max_pending_bodies` that one address may use.
        fixed max_pending_bodies_per_address: share = "10%",
        /// Share of `max_requests` for streams that the gate serves itself (gRPC health, reflection).
        fixed max_own_streams: share = "2%",
        /// Share of `max_own_streams` that one address may use.
        fixed max_own_streams_per_address: share = "10%",
        /// Share of `max_connections` for WebSockets and other upgraded connections.
        fixed max_tunnels: share = "100%",
        /// Share of `max_tunnels` that one subject may use.
        fixed max_tunnels_per_caller: share = "5%",
        /// Share of `max_connections` for Kuzzle WebSockets that have not yet sent a valid token.
        fixed max_anonymous_sockets: share = "10%",
        /// Share of `max_anonymous_sockets` that one address may use.
        fixed max_anonymous_sockets_per_address: share = "10%",
        /// Maximum memory for buffered bodies, messages and queues; at least 1MiB. Lower it on a machine with little
        /// memory.
        reload max_buffered: size,
        /// Share of `max_buffered` that one caller, or one address with unknown callers, may use; at least 1MiB.
        fixed max_buffered_per_caller: share = "10%",
        /// Maximum number of concurrent requests on one HTTP/2 connection.
        fixed max_requests_per_connection: number = 100_u32,
    }
}

const PUBLIC_URL: &str = "the URL at which clients reach the gate, such as \"https://api.example.com\"";

fn timeout() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::from_millis(100), HOUR)
}

impl ServerConfig {
    /// The addresses of the listeners.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|listener| listener.address)
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> ServerConfig {
    let server = read_keys(section, dir);
    // Each listener reserves one permit for the next connection.
    if server.max_connections < server.listeners.len() {
        let message = format!(
            "is {}, but there are {} listeners, and each of them needs at least one connection",
            server.max_connections,
            server.listeners.len()
        );
        section.blame("max_connections", message);
    }
    server
}

fn are_other_sockets(old: &[ListenerConfig], new: &[ListenerConfig]) -> bool {
    old.len() != new.len() || old.iter().zip(new).any(|(old, new)| !new.clone().keep(old).is_empty())
}
