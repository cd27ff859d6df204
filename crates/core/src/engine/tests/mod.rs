//! The engine on virtual time: a store in memory that fails on demand, users that change, clocks moved by hand.

mod cache;
mod changes;
mod clock;
mod confirmation;
mod durability;
mod faults;
mod lifetime;
mod many;
mod presented;
mod replay;
mod reuse;
mod revocation;
mod sealed;
mod support;
