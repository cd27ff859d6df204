//! The common parts of the stores that are separate crates: the encoding of records, the ids of writes, the high-water
//! mark, and the options for a server. This module needs the feature `store-kit`, and it may change without notice.

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
