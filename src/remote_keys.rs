//! Keys of other issuers: found by discovery or by URL, fetched in the background, and kept up to date.
//!
//! One task fetches the keys of one issuer; requests only read them. A token with an unknown key waits for one fetch,
//! at most once in `cooldown`. If the keys cannot be fetched, the last good keys count for `stale_for`. After that, and
//! before the first keys arrive, the gate answers 503: the token may be good, and a client discards a token that is
//! refused. Only a valid key set counts as an answer.
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
// Further items that only the program needs, without a promise of compatibility, as in `crate::program`.
#[cfg(feature = "program")]
pub use rotogate_issuers::remote_keys::{
    FetchFailure, FetchFiles, FetchSettings, Inspected, KeyLocation, Metadata, RemoteStatus, inspect,
    revocation_target, token_target,
};
