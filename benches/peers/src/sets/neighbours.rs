//! Verdicts for other proxies.

use super::{Cell, REMEMBERS, ROTOGATE, Set, VERIFIES, Weight, Work};
use crate::client::Speech;
use crate::contender::Contender::{self, Authorizer, Envoy, Nginx};
use crate::contender::{EnvoyAuth, NginxAuth, Question};

pub const NEIGHBOURS: &str = "neighbours";
/// The calls that are in flight on the one connection of `ext_authz`.
const CALLS: usize = 32;

pub const FORWARD_AUTH: Contender = Authorizer(Question::ForwardAuth);
pub const EXT_AUTHZ: Contender = Authorizer(Question::ExtAuthz);
pub const BEHIND_NGINX: Contender = Nginx { auth: Some(NginxAuth::Gate) };

/// The row that shows how long Envoy waits.
pub const CHECKS_AT_A_RATE: &str = "rotogate, verdict of ext_authz, 5000 a second";

pub fn set() -> Set {
    let checks = |contender| Cell { speech: Speech::Checks(CALLS), connections: 1, ..Cell::of(contender) };
    let cells = vec![
        Cell::of(ROTOGATE),
        Cell { speech: Speech::Questions, ..Cell::of(FORWARD_AUTH) },
        checks(EXT_AUTHZ),
        Cell { work: Work::Rate(5000), ..checks(EXT_AUTHZ) }.named(CHECKS_AT_A_RATE),
        Cell::of(Nginx { auth: None }),
        Cell::of(BEHIND_NGINX),
        Cell::of(REMEMBERS),
        Cell::of(VERIFIES),
        Cell::of(Envoy { auth: None }),
        Cell::of(Envoy { auth: Some(EnvoyAuth::Gate) }),
    ];
    Set {
        key: NEIGHBOURS,
        title: "Verdicts for other proxies: RS256, 1000 tokens used before",
        note: "The rows *verdict* are rotogate alone, which the load asks as nginx and Envoy ask: forward-auth on 32 connections \
               of HTTP/1.1, ext_authz as 32 calls at a time on one connection of HTTP/2. The rows of nginx and Envoy have the \
               CPU time of both programs, which share a processor. nginx with rotogate is set up as in `examples/nginx`: it \
               hands five identity headers to the upstream and removes eleven others. With another auth server it hands on \
               nothing.",
        cells,
        base: "rotogate",
        weight: Weight::Light,
    }
}
