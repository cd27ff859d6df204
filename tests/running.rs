//! What changes under a gate that runs: another configuration, and another program in its place.

mod browser_reload;
mod commands;
mod limits;
mod outputs;
mod reload;
mod rules;
mod successor;
