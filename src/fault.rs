//! Faults are failures on our side. The gate has neither decided on the request nor consumed its credentials, so the
//! reply is 503 with `Retry-After`.
//!
//! ```
//! use rotogate::denial::Denial;
//! use rotogate::fault::{Error, Fault};
//!
//! // An application's own reply can use this status. With the feature `axum`, a handler may return the error itself.
//! assert_eq!(Error::from(Denial::UnknownRefreshToken).status(), 401);
//! // Neither accepted nor rejected: the client keeps its tokens, and may send the same request again.
//! let failed = Error::from(Fault::Clock);
//! assert_eq!((failed.status().as_u16(), failed.retry_after().is_some()), (503, true));
//! ```

#[doc(inline)]
pub use rotogate_core::fault::{Error, Fault};
