//! Changes of a running gate: another configuration, and another program in its process.

mod browser_reload;
mod commands;
mod limits;
mod outputs;
mod reload;
mod rules;
mod successor;
