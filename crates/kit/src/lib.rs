//! Code shared by the crates of `rotogate`. This API may change in any release.

pub mod config;
pub mod durations;
pub mod exchange;
pub mod file_stamp;
pub mod lazy_sleep;
pub mod metric_families;
pub mod upstream_tls;
pub mod worker_id;
