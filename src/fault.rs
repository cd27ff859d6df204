//! Faults: failures on our side. The gate decided nothing and consumed nothing, so the reply to a fault is 503 with
//! `Retry-After`, never a refusal.
//!
//! ```
//! use rotogate::denial::Denial;
//! use rotogate::fault::{Error, Fault};
//!
//! // The status of an application's own reply. With the feature `axum`, a handler may return the error itself.
//! assert_eq!(Error::from(Denial::UnknownRefreshToken).status(), 401);
//! // Not decided: the client keeps its tokens, and may send the same again.
//! let failed = Error::from(Fault::Clock);
//! assert_eq!((failed.status().as_u16(), failed.retry_after().is_some()), (503, true));
//! ```

#[doc(inline)]
pub use rotogate_core::fault::{Error, Fault};
