//! Refusals as data. A [`Denial`] is the caller's error, and has one variant for each rule that can refuse a request. A
//! [`Fault`](crate::fault::Fault) is a failure on our side.
//!
//! A reply reveals only the [`Class`] of a denial, but the log names the variant. The code that writes replies (the
//! dialects, and the gate for data routes) matches only classes, so [`Denial::class`] alone decides what a caller
//! learns.
//!
//! ```
//! use rotogate::denial::{Class, Denial};
//!
//! let denial = Denial::TokenExpired;
//! assert_eq!(denial.reason(), "token_expired");
//! assert!(matches!(denial.class(), Class::BadToken { .. }));
//! assert!(denial.is_dead(), "the client must refresh, because repeating the request cannot succeed");
//! ```

#[doc(inline)]
pub use rotogate_core::denial::{CallFlaw, Class, Denial, PathError, ProofFlaw};
