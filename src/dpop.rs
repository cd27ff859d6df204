//! Proofs of possession (RFC 9449, DPoP): if a token is bound to a key, the gate accepts it only with a proof. The
//! proof is signed with that key, for this one request.
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
