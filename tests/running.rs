//! What changes under a gate that runs: another configuration, and another program in its place.

mod outputs;
mod reload;
mod rules;
mod successor;
