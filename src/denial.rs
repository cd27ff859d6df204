//! A [`Denial`] is the caller's error. A [`Fault`](crate::fault::Fault) is the gate's failure.
//!
//! A reply reveals only the [`Class`] of a denial, and the log names the variant. [`Denial::class`] alone decides what
//! a caller learns.
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
