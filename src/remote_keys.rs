//! Keys of other issuers: found by discovery or by URL, fetched in the background, and kept up to date.
//!
//! Each issuer has its own task that fetches the keys, and requests only read them. A token with an unknown key waits
//! for one fetch, at most once per `cooldown`. If the keys cannot be fetched, the last valid keys remain in use for
//! `stale_for`. After that, and before the first keys arrive, the gate replies with 503 instead of refusing tokens. The
//! tokens may be valid, and clients discard a token that is refused. A response that is not a valid key set counts as a
//! failed fetch.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rotogate::remote_keys::{RemoteIssuer, RemoteKeys};
//!
//! let issuer = RemoteIssuer::new("kc", "https://id.example.com/realms/x").kept_in("data/issuers");
//! let remote = RemoteKeys::start(issuer)?;
//! remote.first_attempt().await;
//! let gate = rotogate::Gate::builder().trusted_issuer(remote.rules(["api"]));
//! # let _ = gate;
//! # Ok(()) }
//! ```
//!
//! The task ends when the gate and the [`RemoteKeys`] are dropped.

#[doc(inline)]
pub use rotogate_issuers::remote_keys::{RemoteIssuer, RemoteKeys};
// More items that only the program needs. Like `crate::program`, they may change in any release.
#[cfg(feature = "program")]
pub use rotogate_issuers::remote_keys::{
    FetchFailure, FetchFiles, FetchSettings, Inspected, KeyLocation, Metadata, RemoteStatus, inspect,
    revocation_target, token_target,
};
