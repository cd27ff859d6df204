//! The client of what the gate asks itself: documents of other issuers, and answers of an operator's own services.
//!
//! The other side may lie, and a URL may come from it. So a request has one time for everything, a bound for the body,
//! and a set of addresses that it may lead to. Addresses are checked after the name is resolved and before the
//! connection is made: the address that was checked is the one that is connected to. Redirects, compression and the
//! proxy variables of the environment have no effect; a [`Proxy`] is set openly.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rotogate_core::http_client::{Allowed, Document, FetchTarget, HttpClient};
//!
//! let client = HttpClient::new()?.with_max_size(256 << 10);
//! let keys = FetchTarget::parse("https://id.example.com/keys", Allowed::by_operator())?;
//! match client.get_document(&keys, None, None).await {
//!     Ok(Document::New { body, .. }) => println!("{} bytes", body.len()),
//!     Ok(Document::Unchanged { .. }) => println!("as before"),
//!     Err(error) => println!("{}: {error}", error.word()),
//! }
//! # Ok(()) }
//! ```
//!
//! Each request has a connection of its own, which ends with it. An idle connection that the other side closes at the
//! wrong moment would make it uncertain whether a request was received, and [`FetchError::not_sent`] answers exactly
//! that. TLS sessions are resumed, so that the next connection costs less.

mod address;
mod client;
mod connect;
mod error;
mod proxy;
mod target;
mod tls;

#[cfg(test)]
mod tests;

pub use address::{Allowed, Reach};
pub use client::{Document, HttpClient, bearer};
pub use connect::{Lookup, LookupFuture};
pub use error::{FetchError, FetchErrorKind};
pub use proxy::{BadProxy, Proxy};
pub use target::{BadTarget, FetchTarget};
pub use tls::{BadTls, Tls};
