//! The client for requests that the gate itself sends.
//!
//! The server may be malicious, and the URL may come from an attacker. Each request therefore has a time limit, a size
//! limit and a set of permitted addresses. Addresses are checked after the name is resolved, and the client connects to
//! the checked address. Redirects are not followed. A [`Proxy`] must be set explicitly, because environment variables
//! have no effect.
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
//! By default each request has its own connection. If a server closes a reused connection, the client cannot know
//! whether the server received the last request. TLS sessions are resumed, so that further connections cost less.

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
