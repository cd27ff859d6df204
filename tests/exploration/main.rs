//! The proof of the rotation table. Every history of a small world is walked through, breadth first, with the `decide`
//! and `step` of production; the model around them is as small as it can be, and says what each part of the gate does:
//! the record and its compare-and-swap, the revocation list, the queue of confirmations, a store that loses its last
//! writes, a holder that stores what it receives and loses replies, a thief.
//!
//! 1. At most one successor of a generation is live (`anyone`).
//! 2. A sole holder that stores the new refresh token before it uses the new access token is never answered `Reuse`
//!    inside the windows, whatever he loses and however often he or the gate crashes (`holders`).
//! 3. A thief and a victim that never act within each other's grace do not both hold live tokens after two further
//!    rotations (`holders`).
//! 4. An acknowledged revocation is never undone (`anyone`).
//!
//! 1, 2 and 4 again on two nodes with one store that fails over (`nodes`).
//!
//! A walk ends when no new state is left: the worlds are small in the number of generations, not in time, since an age
//! past its window is as good as any other. Lifetimes are not in them (they only refuse more): they are in the rows of
//! the unit tests and in the long random histories (`histories`).
//!
//! Each proof is shown to be able to fail: with one fault planted in the table or in the gate around it, the same walk
//! finds a bad history, and prints the shortest.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod anyone;
mod cluster;
mod gate;
mod histories;
mod holders;
mod nodes;
mod search;
mod table;
