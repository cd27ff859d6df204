//! Proofs of possession (RFC 9449, DPoP): a token that is bound to a key is good only with a proof for this one
//! request, signed with that key.
//!
//! ```
//! use rotogate::dpop::DpopSettings;
//!
//! // Bound tokens are accepted with a proof, beside bearer tokens.
//! let builder = rotogate::Gate::builder().dpop(DpopSettings::default());
//! # let _ = builder;
//! ```

#[doc(inline)]
pub use rotogate_core::dpop::DpopSettings;
