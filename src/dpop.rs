//! Proofs of possession (RFC 9449, DPoP). A token that is bound to a key needs a proof, which is signed with that key
//! for one request.
//!
//! ```
//! use rotogate::dpop::DpopSettings;
//!
//! // Accepts bearer tokens, and bound tokens with a proof.
//! let builder = rotogate::Gate::builder().dpop(DpopSettings::default());
//! # let _ = builder;
//! ```

#[doc(inline)]
pub use rotogate_core::dpop::DpopSettings;
