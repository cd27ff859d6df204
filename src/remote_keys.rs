//! Fetches other issuers' keys in the background.
//!
//! Each issuer has its own task that fetches the keys. A token with an unknown key waits for one fetch, at most once
//! per `cooldown`. If the keys cannot be fetched, the last valid keys stay in use for `stale_for`. An invalid key set
//! counts as a failed fetch. Without usable keys, the gate replies with 503, because clients discard a refused token
//! that may be valid.
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
// Only the program needs these items. They may change in any release.
#[doc(hidden)]
pub use rotogate_issuers::remote_keys::{
    FetchFailure, FetchFiles, FetchSettings, Inspected, KeyLocation, Metadata, RemoteStatus, inspect,
    revocation_target, token_target,
};
