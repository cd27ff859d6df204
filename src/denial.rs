//! Refusals as data. A [`Denial`] is an error of the caller: one variant for each rule that refuses. A
//! [`Fault`](crate::fault::Fault) is a failure on our side.
//!
//! A reply reveals no more than the [`Class`] of a denial; the log names the variant. The writers of replies (the
//! dialects, and the gate for data routes) match classes, so [`Denial::class`] is the one place that decides what a
//! caller learns.
//!
//! ```
//! use rotogate::denial::{Class, Denial};
//!
//! let denial = Denial::TokenExpired;
//! assert_eq!(denial.reason(), "token_expired");
//! assert!(matches!(denial.class(), Class::BadToken { .. }));
//! assert!(denial.is_dead(), "the client must refresh; to repeat the request is no use");
//! ```

#[doc(inline)]
pub use rotogate_core::denial::{CallFlaw, Class, Denial, PathError, ProofFlaw};
