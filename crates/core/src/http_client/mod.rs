//! The client of the gate's own requests: for documents of other issuers, and to an operator's services.
//!
//! The other side may be malicious, and may have supplied the URL. So a request has a total time limit, a bound for the
//! body, and a set of permitted addresses. Addresses are checked after the name is resolved and before the connection
//! is made: the client connects to the checked address. Redirects, compression and the proxy variables of the
//! environment have no effect; a [`Proxy`] is set explicitly.
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
//! wrong moment would make it uncertain whether a request was received, and [`FetchError::not_sent`] must be certain.
//! TLS sessions are resumed, so that the next connection costs less.

mod address;
mod client;
mod connect;
mod credentials;
mod error;
mod proxy;
mod retry_after;
mod target;

#[cfg(test)]
mod tests;

pub use crate::client_tls::{BadTls, Tls};
pub use address::{Allowed, Reach};
pub use client::{Document, HttpClient, bearer};
pub use connect::{Lookup, LookupFuture};
pub use credentials::{ClientAssertions, ClientCredentials, SecretPlace, basic};
pub use error::{FetchError, FetchErrorKind};
pub use proxy::{BadProxy, Proxy};
pub use retry_after::retry_after;
pub use target::{BadTarget, FetchTarget};
