//! Several gates on one store, for each kind of store.

mod browsers;
mod callers;
mod chaos;
mod doubt;
mod ended_elsewhere;
mod fleet;
mod servers;
mod stopped;
mod together;
mod used_elsewhere;
mod wires;
