//! The bounds under overload, keys of `[server]`. A bound for one holder is a number or a percentage of the bound for
//! all, and at most that.

use toml::Table;

use super::super::print::{number, put};
use super::super::raw::Section;
use super::super::value::{self, Share};
use rotogate_core::overload::{Bound, Bounds};

/// The default of `max_requests`.
const MAX_REQUESTS: usize = 10_000;
/// The default of `max_buffered`.
const MAX_BUFFERED_BYTES: u64 = 256 << 20;

/// The default of `max_requests_per_connection`: the concurrent requests of one HTTP/2 connection (RFC 9113 §6.5.2
/// recommends no fewer).
const REQUESTS_PER_CONNECTION: usize = 100;

/// The longest body and message that the gate buffers whole: a lower bound would refuse valid ones.
const MIN_BUFFERED_BYTES: usize = 1 << 20;

/// Reads the bounds, and the most requests of one connection.
pub(super) fn bounds(section: &Section<'_>, max_connections: usize) -> (Bounds, u32) {
    let count = |key, default| section.get(key, value::count(1, 10_000_000)).unwrap_or(default);
    let part = |key, of: (&str, usize), percent| {
        let (name, whole) = of;
        let Some(share) = section.get(key, value::share) else { return Share::Percent(percent).of(whole) };
        let amount = share.of(whole);
        if amount > whole {
            section.blame(key, format!("is {amount}, and {name} is {whole}; expected no more than that"));
        }
        amount
    };
    let all = |key, each_key, all, percent| Bound { all, each: part(each_key, (key, all), percent) };

    let requests = ("max_requests", count("max_requests", MAX_REQUESTS));
    let tunnels = count("max_tunnels", max_connections);
    let bodies = part("max_pending_bodies", requests, 10);
    let streams = part("max_own_streams", requests, 2);
    let sockets = part("max_anonymous_sockets", ("max_connections", max_connections), 10);
    let buffered =
        section.get("max_buffered", value::size(MIN_BUFFERED_BYTES as u64, 1 << 40)).unwrap_or(MAX_BUFFERED_BYTES);
    let buffered = usize::try_from(buffered).unwrap_or(usize::MAX);
    let connection = Share::Amount(REQUESTS_PER_CONNECTION.min(requests.1) as u64);
    let connection = section.get("max_requests_per_connection", value::share).unwrap_or(connection).of(requests.1);
    if connection > requests.1 {
        let message = format!("is {connection}, and max_requests is {}; expected no more than that", requests.1);
        section.blame("max_requests_per_connection", message);
    }
    let mut bounds = Bounds::default();
    bounds.requests = all(requests.0, "max_requests_per_address", requests.1, 10);
    bounds.requests_per_caller = part("max_requests_per_caller", requests, 5);
    bounds.pending_bodies = all("max_pending_bodies", "max_pending_bodies_per_address", bodies, 10);
    bounds.own_streams = all("max_own_streams", "max_own_streams_per_address", streams, 10);
    bounds.tunnels = all("max_tunnels", "max_tunnels_per_caller", tunnels, 5);
    bounds.anonymous_sockets = all("max_anonymous_sockets", "max_anonymous_sockets_per_address", sockets, 10);
    bounds.buffered = all("max_buffered", "max_buffered_per_caller", buffered, 10);
    if section.has("max_buffered_per_caller") && bounds.buffered.each < MIN_BUFFERED_BYTES {
        section.blame("max_buffered_per_caller", "is less than 1 MiB, the longest message that is kept whole");
    }
    bounds.buffered.each = bounds.buffered.each.max(MIN_BUFFERED_BYTES);
    (bounds, u32::try_from(connection).unwrap_or(u32::MAX))
}

/// Puts the bounds into the table of `[server]`.
pub(super) fn print(bounds: &Bounds, table: &mut Table) {
    let Bounds {
        requests, requests_per_caller, pending_bodies, own_streams, tunnels, anonymous_sockets, buffered, ..
    } = bounds;
    let mut bound = |all: &str, each: &str, bound: &Bound| {
        put(table, all, number(bound.all));
        put(table, each, number(bound.each));
    };
    bound("max_requests", "max_requests_per_address", requests);
    bound("max_pending_bodies", "max_pending_bodies_per_address", pending_bodies);
    bound("max_own_streams", "max_own_streams_per_address", own_streams);
    bound("max_tunnels", "max_tunnels_per_caller", tunnels);
    bound("max_anonymous_sockets", "max_anonymous_sockets_per_address", anonymous_sockets);
    bound("max_buffered", "max_buffered_per_caller", buffered);
    put(table, "max_requests_per_caller", number(*requests_per_caller));
}
