//! Shared code for the stores in separate crates. Needs the feature `store-kit`, and may change without notice.

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
