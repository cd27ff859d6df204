//! OAuth clients (RFC 6749 §2): who may request tokens, and how they authenticate.
//!
//! ```
//! use rotogate::client::{Client, Grant};
//!
//! let web = Client::public("web");
//! assert!(web.may(Grant::RefreshToken) && web.secret_hash.is_none());
//! let builder = rotogate::Gate::builder().client(web);
//! # let _ = builder;
//! ```

#[doc(inline)]
pub use rotogate_core::client::{Client, ExchangeRules, Grant, PresentedClient, SecretHash};
