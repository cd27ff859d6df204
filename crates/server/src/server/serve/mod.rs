//! Handles one request: access record, permit, CORS, gate, proxy and counters.

pub(crate) mod authorizer;
mod body;
mod checks;
pub(crate) mod cors;
pub(crate) mod drain;
pub(crate) mod handler;
pub(crate) mod request;
mod request_record;
pub(crate) mod route_label;
pub(crate) mod tally;
