//! Sockets, TLS and connections. The caller supplies the request handler.

pub(crate) mod addresses;
mod conditions;
pub(crate) mod connection;
pub(crate) mod connection_counts;
mod gather;
mod h2;
pub(crate) mod half_close;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod min_rate;
mod once_woken;
pub(crate) mod origin;
mod proxy_protocol;
pub(crate) mod sockets;
pub(crate) mod stream;
pub(crate) mod tls;
mod unread;
pub(crate) mod workers;
