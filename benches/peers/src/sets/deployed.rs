//! Gateways as they are deployed: TLS, HTTP/2, gRPC, WebSockets, long bodies, access logs, and not at their limit.

use super::{Cell, ENVOY_CACHED, ROTOGATE, Set, UNGUARDED, Weight, Work};
use crate::client::Speech;
use crate::contender::Contender::{self, Envoy, Haproxy, Nginx};
use crate::limits::Limits;

/// TLS 1.3 and HTTP/1.1.
pub const TLS: &str = "tls";
/// TLS 1.3 and HTTP/2, 16 connections with 16 streams.
pub const TLS_HTTP2: &str = "tls-http2";

const NGINX: Contender = Nginx { auth: None };
const HAPROXY: Contender = Haproxy { jwt: false };
const JWT_VERIFY: Contender = Haproxy { jwt: true };
const ENVOY: Contender = Envoy { auth: None };
/// Everyone, unchecked and checked.
const ALL: [Contender; 7] = [NGINX, HAPROXY, ENVOY, UNGUARDED, ROTOGATE, JWT_VERIFY, ENVOY_CACHED];
/// One row of each, rotogate's with its check.
const EACH: [Contender; 4] = [NGINX, HAPROXY, ENVOY, ROTOGATE];

const BASE: &str = "nginx, no auth";

pub fn sets() -> Vec<Set> {
    vec![
        of(
            TLS,
            "TLS 1.3, HTTP/1.1",
            "32 connections that are kept. All speak X25519 and AES-128-GCM, with a certificate of P-256.",
            ALL.map(|contender| Cell { tls: true, ..Cell::of(contender) }),
        )
        .heavy(),
        http2(TLS_HTTP2, "TLS 1.3, HTTP/2: 16 connections, 16 streams on each", 16),
        http2("tls-http2-many", "TLS 1.3, HTTP/2: 32 connections, 32 streams on each", 32),
        handshakes(),
        of(
            "grpc",
            "gRPC: unary calls",
            "HTTP/2 in clear text to the gateway and to the upstream: 8 connections with 16 calls at a time, 1 KiB back. nginx \
             speaks HTTP/2 to the upstream on a connection for each call at a time.",
            ALL.map(|contender| Cell { speech: Speech::Calls(16), connections: 8, ..Cell::of(contender) }),
        )
        .heavy(),
        of(
            "websockets",
            "WebSockets: messages",
            "32 WebSockets, each with a message of 256 bytes under way, which the upstream sends back. The token is checked \
             when a WebSocket opens; rotogate also ends it when its session is revoked. Figures are per message and its echo.",
            EACH.map(|contender| Cell { speech: Speech::Messages, ..Cell::of(contender) }),
        ),
        bodies(),
        logs(),
        rates(),
        idle(),
    ]
}

fn rates() -> Set {
    let cells = [10, 50, 80].into_iter().flat_map(|percent| {
        [NGINX, HAPROXY, JWT_VERIFY, ENVOY, ENVOY_CACHED, ROTOGATE].map(|contender| {
            let name = format!("{}, {percent} %", contender.name());
            Cell { work: Work::ShareOfMost(percent), ..Cell::of(contender) }.named(name)
        })
    });
    Set {
        base: "nginx, no auth, 50 %",
        ..of(
            "rates",
            "At a tenth, a half and four fifths of the load that each can carry",
            "Each gateway is driven at a share of the rate that it reached just before. Requests come at fixed times, on 32 \
             connections, whether the last was answered or not; latencies count from when a request was due. The CPU time of \
             a request is higher than at full load: the gateway sleeps in between.",
            cells.collect::<Vec<_>>(),
        )
    }
}

fn idle() -> Set {
    let cells = [0, Limits::get().idle].into_iter().flat_map(|number| {
        EACH.map(|contender| {
            let name = format!("{}, {number} idle", contender.name());
            Cell { work: Work::Idle(number), tls: true, ..Cell::of(contender) }.named(name)
        })
    });
    Set {
        base: "nginx, no auth, 0 idle",
        ..of(
            "idle",
            "Memory of idle connections: TLS 1.3, HTTP/1.1",
            "So many connections had one request each and stay open; 32 others have 100 requests a second together. The memory \
             of an idle connection is the difference of a gateway's two rows, divided by their number. Afterwards each idle \
             connection is used again: one that the gateway closed ends the run.",
            cells.collect::<Vec<_>>(),
        )
        .heavy()
    }
}

fn of(key: &'static str, title: &'static str, note: &'static str, cells: impl Into<Vec<Cell>>) -> Set {
    Set { key, title, note, cells: cells.into(), base: BASE, weight: Weight::Light }
}

impl Set {
    /// Load and upstream have several processors.
    fn heavy(self) -> Self {
        Self { weight: Weight::Heavy, ..self }
    }
}

fn http2(key: &'static str, title: &'static str, each: usize) -> Set {
    let cell = |contender| Cell { speech: Speech::Http2(each), connections: each, tls: true, ..Cell::of(contender) };
    of(key, title, "HTTP/1.1 in clear text to the upstream.", ALL.map(cell)).heavy()
}

fn handshakes() -> Set {
    let cells = [false, true].into_iter().flat_map(|resumed| {
        EACH.map(|contender| {
            let name = if resumed { format!("{}, resumed", contender.name()) } else { contender.name().to_owned() };
            Cell { speech: Speech::Handshakes { resumed }, tls: true, ..Cell::of(contender) }.named(name)
        })
    });
    of(
        "handshakes",
        "TLS 1.3: a connection for each request",
        "32 clients open a connection, send a request, read the answer and close the connection. A resumed handshake takes \
         up the session of the connection before; each is verified to be what the row says. Figures are per connection with \
         its request.",
        cells.collect::<Vec<_>>(),
    )
    .heavy()
}

fn bodies() -> Set {
    let kinds = [(100 << 10, "100 KiB", 16), (10 << 20, "10 MiB", 4)];
    let cells = kinds.into_iter().flat_map(|(length, name, connections)| {
        [(Speech::Download(length), "down"), (Speech::Upload(length), "up")].into_iter().flat_map(
            move |(speech, way)| {
                EACH.map(|contender| {
                    let name = format!("{}, {name} {way}", contender.name());
                    // Each is sent once before it is measured.
                    Cell { speech, connections, known: connections, ..Cell::of(contender) }.named(name)
                })
            },
        )
    });
    Set {
        base: "nginx, no auth, 100 KiB down",
        ..of(
            "bodies",
            "Long bodies",
            "Responses (down) and request bodies (up), HTTP/1.1 in clear text: 100 KiB on 16 connections, 10 MiB on 4. Every \
             byte is compared. nginx has the settings that make it stream: its default is to keep long bodies in files.",
            cells.collect::<Vec<_>>(),
        )
        .heavy()
    }
}

fn logs() -> Set {
    let both = |contender| [Cell::of(contender), Cell::of(contender).logged()];
    let cells = [NGINX, ENVOY_CACHED, ROTOGATE].into_iter().flat_map(both);
    of(
        "logs",
        "Access log: a line of JSON for each request, to a file on disk",
        "The lines have about the same fields. nginx and Envoy write theirs 64 KiB at a time, as rotogate does several at a \
         time. HAProxy writes no file: it sends its lines to another program, whose CPU time would have to count.",
        cells.collect::<Vec<_>>(),
    )
}
