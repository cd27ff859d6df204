//! The listeners of the real binary: TLS with certificates made for each run, and the bounds of connections.

mod addresses;
mod bound;
mod certificates;
mod floods;
mod handshake;
mod mistakes;
mod proxied;
mod reload;
mod slow;
mod unread;
