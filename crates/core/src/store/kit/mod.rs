//! The common parts of the stores that are separate crates: bytes of records, names of writes, the high-water mark, the
//! options for a server. Needs the feature `store-kit`, and may change without notice.

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
