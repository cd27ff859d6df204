//! The relay, which stands in front of a provider that rotates refresh tokens itself.
//!
//! A provider that accepts each refresh token once ends the login of a client that presents a token twice, for example
//! from two tabs, or after a lost reply. The relay exchanges each token once, and repeats the answer for every
//! presentation within `grace`. It stores no token: the presented token is the key that decrypts its answer.
//!
//! [`engine`] has the steps, [`provider`] the interface to a provider, [`http`] a provider behind URLs, [`oauth`] the
//! replies of RFC 6749, [`seal`] the keys, `dpop` the proofs of RFC 9449.

mod dpop;
pub mod engine;
#[cfg(feature = "http-client")]
pub mod http;
pub mod oauth;
pub mod provider;
pub mod seal;

pub use engine::{
    AfterUnknown, EndTokens, Presented, Relay, RelayAnswer, RelayParts, RelayRules, RelaySettings, Source,
};
#[cfg(feature = "http-client")]
pub use http::{HttpCaller, OAuthProvider, ProviderUrls, UrlSource};
pub use provider::{Meaning, Provider, ProviderReply, ProviderRequest, SendError};
pub use seal::{Params, Presenter, Sealer};
