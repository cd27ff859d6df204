//! Operates a running gate: reload, keys, admin listener, metrics and watchdog.

pub(crate) mod admin;
pub(crate) mod key_roll;
pub(crate) mod metrics;
pub(crate) mod reload;
pub(crate) mod watchdog;
