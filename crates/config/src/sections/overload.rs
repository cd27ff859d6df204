//! The overload limits of `[server]`.

use toml::{Table, Value};

use super::super::print::{Print, Put};
use super::super::value::{self, Share};
use rotogate_core::overload::{Bound, Bounds};
use rotogate_kit::config::Section;

/// The longest body or message that the gate buffers as a whole. With a lower limit, the gate would refuse valid
/// requests.
const MIN_BUFFERED_BYTES: usize = 1 << 20;

/// Reads the bounds.
pub(super) fn read(section: &Section<'_>, max_connections: usize) -> Bounds {
    let count = |key, default| section.get(key, value::count(1, 10_000_000)).unwrap_or(default);
    let fixed = section.for_tests();
    let part = |key, whole, percent| fixed.share_of(key, whole, Share::Percent(percent));
    let all = |key, each_key, all, percent| Bound { all, each: part(each_key, (key, all), percent) };

    let requests = ("max_requests", count("max_requests", 10_000));
    let tunnels = fixed.get_or("max_tunnels", value::count(1, 10_000_000), max_connections);
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
    bounds.buffered.each = bounds.buffered.each.max(MIN_BUFFERED_BYTES);
    bounds
}

impl Print for Bounds {
    fn print(&self) -> Value {
        let mut table = Table::new();
        self.requests.all.put(&mut table, "max_requests");
        self.buffered.all.put(&mut table, "max_buffered");
        table.into()
    }
}
