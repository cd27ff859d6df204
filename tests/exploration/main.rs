//! The proof of the rotation table. A breadth-first search visits every history of a small model, with `decide` and
//! `step` of production. The model around them is minimal: the record and its compare-and-swap, the revocation list,
//! the queue of confirmations, a store that loses its last writes, a holder that stores received tokens and loses
//! replies, and a thief.
//!
//! 1. At most one successor of a generation is live (`anyone`).
//! 2. A sole holder that stores the new refresh token before it uses the new access token is never answered `Reuse`
//!    inside the windows, whatever it loses and however often it or the gate crashes (`holders`).
//! 3. A thief and a victim that never act within each other's grace do not both hold live tokens after two further
//!    rotations (`holders`).
//! 4. An acknowledged revocation is never undone (`anyone`).
//!
//! 1, 2 and 4 again on two nodes with one store that fails over (`nodes`).
//!
//! The five largest worlds have one generation fewer here than in the weekly run (`tests/long.sh exploration`).
//!
//! A search ends when no new state is left: the models bound the number of generations, not time, because all ages past
//! their window are equivalent. The models leave out lifetimes, which only refuse more: the unit tests and the long
//! random histories (`histories`) have these.
//!
//! Each proof can fail: with a fault planted in the table or in the gate around it, the same search finds a bad
//! history, and prints the shortest.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod anyone;
mod cluster;
mod gate;
mod histories;
mod holders;
mod nodes;
mod search;
mod table;
