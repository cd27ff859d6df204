//! Faults: failures on our side. The gate decided nothing and consumed nothing, so the reply to a fault is 503 with
//! `Retry-After`, never a refusal.
//!
//! ```
//! use rotogate::fault::{Error, Fault};
//!
//! fn status(error: &Error) -> u16 {
//!     match error {
//!         Error::Denied(_) => 401,
//!         // Not decided: the client may send the same again.
//!         Error::Failed(_) => 503,
//!     }
//! }
//! assert_eq!(status(&Error::Failed(Fault::Clock)), 503);
//! ```

#[doc(inline)]
pub use rotogate_core::fault::{Error, Fault};
