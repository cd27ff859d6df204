//! The sets of measurements. All combinations would take days, so each set varies one thing.

use std::time::Duration;

use rotogate::token::Algorithm;
use rotogate_core::token::algorithm::Family;

use crate::client::Speech;
use crate::contender::Contender::{self, Envoy, Haproxy, Nginx, Rotogate, Rust};
use crate::contender::{EnvoyAuth, NginxAuth};
use crate::flood::Flood;
use crate::keys;
use crate::load::{CONNECTIONS, Mix};
use crate::serve::Kind;
use crate::template::Contents;

mod cores;
mod deployed;
mod neighbours;

pub use cores::{CORES, set as cores};
pub use deployed::{TLS, TLS_HTTP2};
pub use neighbours::{BEHIND_NGINX, CHECKS_AT_A_RATE, EXT_AUTHZ, FORWARD_AUTH, NEIGHBOURS};

/// The default number of tokens that were used before.
const KNOWN: usize = 1000;

/// What the gateway does while it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Requests.
    Requests,
    /// Requests at so many percent of the rate that the gateway reaches at most.
    ShareOfMost(u8),
    /// So many requests a second.
    Rate(u32),
    /// A few requests, beside so many connections that were used once and stay open.
    Idle(usize),
    /// Requests, and beside them this many clients, each refreshing at this interval.
    Beside(usize, Duration),
    /// Refreshes only, by this many clients without a pause.
    Rotations(usize),
    /// Requests at a fixed rate, and forged tokens beside them.
    Flooded(Flood),
}

/// One row.
#[derive(Clone, Debug)]
pub struct Cell {
    pub name: String,
    pub contender: Contender,
    pub algorithm: Algorithm,
    pub mix: Mix,
    pub known: usize,
    pub revoked: usize,
    pub work: Work,
    pub speech: Speech,
    pub connections: usize,
    /// Does the gateway write an access log?
    pub logs: bool,
    pub tls: bool,
    /// Of the gateway.
    pub workers: usize,
}

impl Cell {
    /// RS256, 1000 tokens used before, and nothing else.
    fn of(contender: Contender) -> Self {
        Self {
            name: contender.name().to_owned(),
            contender,
            algorithm: Algorithm::Rs256,
            mix: Mix::Cached,
            known: KNOWN,
            revoked: 0,
            work: Work::Requests,
            speech: Speech::Http1,
            connections: CONNECTIONS,
            logs: false,
            tls: false,
            workers: 1,
        }
    }

    /// The same with an access log.
    fn logged(self) -> Self {
        let name = logged(self.contender);
        Self { logs: true, ..self }.named(name)
    }

    fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many tokens it takes.
    pub fn tokens(&self, scale: &Scale) -> usize {
        if self.mix == Mix::Cached { self.known } else { scale.tokens }
    }

    /// What rotogate's store holds.
    pub fn contents(&self, scale: &Scale) -> Contents {
        let chains = match self.work {
            Work::Requests | Work::ShareOfMost(_) | Work::Rate(_) | Work::Idle(_) | Work::Flooded(_) => 0,
            Work::Beside(chains, _) | Work::Rotations(chains) => chains,
        };
        Contents { sessions: self.tokens(scale), revoked: self.revoked, chains }
    }
}

/// The name of a row with an access log.
pub fn logged(contender: Contender) -> String {
    format!("{}, access log to a file", contender.name())
}

/// Rows that are measured in turn, and compared with one of them.
pub struct Set {
    pub key: &'static str,
    pub title: &'static str,
    pub note: &'static str,
    pub cells: Vec<Cell>,
    /// The row that the others are compared with, by its name.
    pub base: &'static str,
    pub weight: Weight,
}

/// How many processors load and upstream need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// One for both.
    Light,
    /// One for the upstream and two for the load, if the machine has them.
    Heavy,
    /// More of both, the more workers the gateway has.
    ByWorkers,
}

/// The size of a run.
pub struct Scale {
    /// Distinct tokens, the most.
    pub tokens: usize,
    /// Live revocations, the most.
    pub revocations: usize,
}

impl Scale {
    pub const WHOLE: Self = Self { tokens: 100_000, revocations: 1_000_000 };
    pub const QUICK: Self = Self { tokens: 5_000, revocations: 20_000 };
}

pub const ALGORITHMS: &str = "algorithms";
pub const CONTENDERS: &str = "contenders";
pub const REVOCATIONS: &str = "revocations";
pub const REFRESH: &str = "refresh";

pub const ROTOGATE: Contender = Rotogate { guarded: true };
pub const UNGUARDED: Contender = Rotogate { guarded: false };
pub const ENVOY_CACHED: Contender = Envoy { auth: Some(EnvoyAuth::Jwt { cache: true }) };
/// nginx with each of the auth servers.
pub const REMEMBERS: Contender = Nginx { auth: Some(NginxAuth::Server(Kind::AuthCached)) };
pub const VERIFIES: Contender = Nginx { auth: Some(NginxAuth::Server(Kind::Auth)) };
pub const HYPER: Contender = Rust(Kind::Hyper);
const BASE: &str = "plain hyper proxy, no auth";

pub fn all(scale: &Scale) -> Vec<Set> {
    let mut all = vec![contenders(), neighbours::set()];
    all.extend(deployed::sets());
    all.extend([algorithms(), tokens(scale), revocations(scale), rotations(), forged(), refresh()]);
    all
}

fn contenders() -> Set {
    let cells = [
        Rust(Kind::Relay),
        Haproxy { jwt: false },
        HYPER,
        Nginx { auth: None },
        Envoy { auth: None },
        UNGUARDED,
        ROTOGATE,
        Haproxy { jwt: true },
        REMEMBERS,
        VERIFIES,
        ENVOY_CACHED,
        Envoy { auth: Some(EnvoyAuth::Jwt { cache: false }) },
        Rust(Kind::Jsonwebtoken),
        Rust(Kind::JwtAuthorizer),
        Rust(Kind::AxumJwtAuth),
        Rust(Kind::ResourceServer),
    ];
    let mut cells = Vec::from(cells.map(Cell::of));
    // Right after the rows without.
    for (place, contender) in [(6, UNGUARDED), (8, ROTOGATE)] {
        cells.insert(place, Cell::of(contender).logged());
    }
    Set {
        key: CONTENDERS,
        title: "All gateways: RS256, 1000 tokens used before",
        note: "No peer writes an access log, so compare the rows of rotogate without one; its default is to write one. \
               rotogate sends subject, client, scope and session to the upstream; HAProxy and the hyper proxy with \
               jsonwebtoken send the subject, as Envoy's jwt_authn does, the others nothing. axum-jwt-auth refuses `alg` none with 500 instead of \
               401.",
        cells,
        base: BASE,
        weight: Weight::Light,
    }
}

fn algorithms() -> Set {
    let mut cells = vec![Cell::of(HYPER)];
    for algorithm in keys::ALGORITHMS {
        for (mix, what) in [(Mix::Cached, "used before"), (Mix::Half, "half and half"), (Mix::New, "each token new")] {
            let name = format!("rotogate, {algorithm}, {what}");
            cells.push(Cell { algorithm, mix, ..Cell::of(ROTOGATE) }.named(name));
        }
        let peers = [Haproxy { jwt: true }, Rust(Kind::Jsonwebtoken)];
        // `jwt_verify` knows no EdDSA.
        for peer in
            peers.into_iter().filter(|peer| !matches!(peer, Haproxy { .. }) || algorithm.family() != Family::Edwards)
        {
            cells.push(Cell { algorithm, ..Cell::of(peer) }.named(format!("{}, {algorithm}", peer.name())));
        }
    }
    Set {
        key: ALGORITHMS,
        title: "Algorithms; tokens used before, new ones, and both in turn",
        note: "The peers cache nothing, so each token is new to them. A token that is new to rotogate is also the first of \
               its session; no confirmation of a first generation is written to the store.",
        cells,
        base: BASE,
        weight: Weight::Light,
    }
}

fn tokens(scale: &Scale) -> Set {
    let mut cells = vec![Cell::of(HYPER)];
    cells.extend(
        [100, KNOWN, scale.tokens]
            .map(|known| Cell { known, ..Cell::of(ROTOGATE) }.named(format!("rotogate, {known} tokens"))),
    );
    Set {
        key: "tokens",
        title: "Number of distinct tokens: RS256, used before",
        note: "Each request has one of them, chosen at random.",
        cells,
        base: BASE,
        weight: Weight::Light,
    }
}

fn revocations(scale: &Scale) -> Set {
    let mut cells = vec![Cell::of(HYPER)];
    cells.extend(
        [0, 1000, scale.revocations].map(|revoked| {
            Cell { revoked, ..Cell::of(ROTOGATE) }.named(format!("rotogate, {revoked} live revocations"))
        }),
    );
    cells.extend([0, scale.revocations].map(|revoked| {
        Cell { revoked, mix: Mix::New, ..Cell::of(ROTOGATE) }
            .named(format!("rotogate, {revoked} live revocations, each token new"))
    }));
    Set {
        key: REVOCATIONS,
        title: "Live revocations: RS256, 1000 tokens",
        note: "The sessions were revoked before the gate started. None of the tokens belongs to one of them.",
        cells,
        base: BASE,
        weight: Weight::Light,
    }
}

fn rotations() -> Set {
    let beside = Work::Beside(8, Duration::from_millis(20));
    Set {
        key: "rotations",
        title: "Rotations beside: RS256, 1000 tokens used before",
        note: "Eight clients each refresh fifty times a second, on separate connections. The CPU time includes that of the \
               rotations, and is divided by the number of requests only.",
        cells: vec![
            Cell::of(HYPER),
            Cell::of(ROTOGATE).named("rotogate, no rotations"),
            Cell { work: beside, ..Cell::of(ROTOGATE) }.named("rotogate, 400 rotations a second beside"),
        ],
        base: BASE,
        weight: Weight::Light,
    }
}

fn forged() -> Set {
    let flooded = |contender: Contender, forged, everywhere, what: &str| {
        let work = Work::Flooded(Flood { forged, everywhere });
        Cell { work, ..Cell::of(contender) }.named(format!("{}, {what}", contender.name()))
    };
    let (alone, one, all) = ("no forged tokens", "forged ones of one address", "forged ones of ever other addresses");
    Set {
        key: "forged",
        title: "Forged tokens beside: RS256, 1000 tokens used before",
        note: "Good clients send 2000 requests a second at a fixed rate. Latencies are theirs only, counted from when a \
               request was due. Beside them, other clients send 10,000 tokens with a bad signature a second. The CPU time \
               includes that of the forged tokens, and is divided by the number of good requests only; *busy* covers \
               both.",
        cells: vec![
            flooded(ROTOGATE, 0, false, alone),
            flooded(ROTOGATE, 10_000, false, one),
            flooded(ROTOGATE, 10_000, true, all),
            flooded(Rust(Kind::Jsonwebtoken), 0, false, alone),
            flooded(Rust(Kind::Jsonwebtoken), 10_000, true, all),
            flooded(Haproxy { jwt: true }, 0, false, alone),
            flooded(Haproxy { jwt: true }, 10_000, true, all),
        ],
        base: "rotogate, no forged tokens",
        weight: Weight::Light,
    }
}

fn refresh() -> Set {
    Set {
        key: REFRESH,
        title: "Refreshes only",
        note: "`POST /connect/token`. Each rotation is on the disk before it is answered; the new access token is EdDSA. \
               Figures are per rotation.",
        cells: vec![Cell { work: Work::Rotations(64), ..Cell::of(ROTOGATE) }.named("rotogate, 64 clients")],
        base: "rotogate, 64 clients",
        weight: Weight::Light,
    }
}
