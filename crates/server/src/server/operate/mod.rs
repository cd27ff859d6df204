//! The operation of a running gate: reload, keys, the admin listener, metrics and the watchdog.

pub(crate) mod admin;
pub(crate) mod key_roll;
pub(crate) mod metrics;
pub(crate) mod reload;
pub(crate) mod watchdog;
