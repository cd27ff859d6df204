//! What the stores in crates of their own need besides the API of stores: bytes of records, names of writes, the mark apart
//! from a store, the way to a server. With the feature `store-kit`; it has no promise.

pub mod begin;
pub mod commit;
pub mod doubts;
pub mod encoding;
pub mod fields;
pub mod highwater;
pub mod mark;
pub mod network;
pub mod password;
pub mod snapshot;
