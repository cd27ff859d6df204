//! The gate's own claims ([`OwnClaims`]), and paths to a claim in any token ([`ClaimPath`]).
//!
//! ```
//! use rotogate::claim::{ClaimPath, OwnClaims};
//!
//! let mut claims = OwnClaims::new();
//! claims.insert("roles", ["editor", "admin"])?;
//! claims.insert("tenant", "acme")?;
//! assert!(claims.insert("sub", "root").is_err(), "reserved");
//!
//! let path = ClaimPath::parse("realm_access.roles")?;
//! # let _ = path;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[doc(inline)]
pub use rotogate_core::claim::{ClaimPath, OwnClaims};
