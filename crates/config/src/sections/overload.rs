//! The bounds under overload, keys of `[server]`. A bound for one holder is a number, or a percentage of the bound for
//! all holders. It cannot exceed that bound.

use toml::{Table, Value};

use super::super::print::{Print, Put};
use super::super::value::{self, Share};
use rotogate_core::overload::{Bound, Bounds};
use rotogate_kit::config::Section;

/// The longest body and message that the gate buffers as a whole. A lower bound would refuse valid ones.
const MIN_BUFFERED_BYTES: usize = 1 << 20;

/// Reads the bounds.
pub(super) fn read(section: &Section<'_>, max_connections: usize) -> Bounds {
    let count = |key, default| section.get(key, value::count(1, 10_000_000)).unwrap_or(default);
    let part = |key, whole, percent| section.share_of(key, whole, Share::Percent(percent));
    let all = |key, each_key, all, percent| Bound { all, each: part(each_key, (key, all), percent) };

    let requests = ("max_requests", count("max_requests", 10_000));
    let tunnels = count("max_tunnels", max_connections);
    let bodies = part("max_pending_bodies", requests, 10);
    let streams = part("max_own_streams", requests, 2);
    let sockets = part("max_anonymous_sockets", ("max_connections", max_connections), 10);
    let buffered = section.get_or("max_buffered", value::size(MIN_BUFFERED_BYTES as u64, 1 << 40), 256 << 20);
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
    bounds
}

impl Print for Bounds {
    fn print(&self) -> Value {
        let Self {
            requests,
            requests_per_caller,
            pending_bodies,
            own_streams,
            tunnels,
            anonymous_sockets,
            buffered,
            ..
        } = self;
        let mut table = Table::new();
        let mut put = |all: &str, each: &str, bound: &Bound| {
            bound.all.put(&mut table, all);
            bound.each.put(&mut table, each);
        };
        put("max_requests", "max_requests_per_address", requests);
        put("max_pending_bodies", "max_pending_bodies_per_address", pending_bodies);
        put("max_own_streams", "max_own_streams_per_address", own_streams);
        put("max_tunnels", "max_tunnels_per_caller", tunnels);
        put("max_anonymous_sockets", "max_anonymous_sockets_per_address", anonymous_sockets);
        put("max_buffered", "max_buffered_per_caller", buffered);
        requests_per_caller.put(&mut table, "max_requests_per_caller");
        table.into()
    }
}
