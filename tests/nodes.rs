//! What several gates on one store do, whichever kind the store is.

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
