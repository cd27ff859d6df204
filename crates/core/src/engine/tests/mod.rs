//! The engine on virtual time: a store in memory that fails on demand, users that change, clocks moved by hand.

mod api_keys;
mod asserted;
mod browser;
mod browser_cache;
mod browser_device;
mod browser_provider;
mod cache;
mod changes;
mod clock;
mod confirmation;
mod counters;
mod durability;
mod faults;
mod lifetime;
mod many;
mod presented;
mod replay;
mod reuse;
mod revocation;
mod sealed;
mod sources;
mod support;

/// The kinds of stores that are tried here. The crate of the embedded store tries it.
const KINDS: &[support::Kind] =
    &[support::Kind::Alone, support::Kind::WithFile, support::Kind::FullFile, support::Kind::Shared];

fn embedded_in(_: &tempfile::TempDir) -> std::sync::Arc<dyn crate::store::Store> {
    unreachable!("the crate of the embedded store tries it")
}
