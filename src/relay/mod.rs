//! The relay, which stands in front of a provider that rotates refresh tokens itself.
//!
//! A provider may accept each refresh token only once, and end the login if a token is presented twice. This affects,
//! for example, a client with two tabs, or a client that lost a reply. The relay exchanges each token once, and repeats
//! the reply for every presentation within `grace`. It does not store tokens: the presented token is the key that
//! decrypts its stored reply.
//!
//! [`engine`] has the steps of an exchange, [`provider`] the interface to a provider, [`http`] a provider at URLs,
//! [`oauth`] the replies of RFC 6749, [`record`] the rows in the store, [`seal`] the keys, and `dpop` the proofs of RFC
//! 9449.

mod dpop;
pub mod engine;
#[cfg(feature = "http-client")]
pub mod http;
pub mod oauth;
pub mod provider;
pub mod record;
pub mod seal;

pub use engine::{
    AfterUnknown, EndTokens, Presented, Relay, RelayAnswer, RelayParts, RelayRules, RelaySettings, Source,
};
#[cfg(feature = "http-client")]
pub use http::{HttpCaller, OAuthProvider, ProviderUrls, UrlSource};
pub use provider::{Meaning, Provider, ProviderReply, ProviderRequest, Renewal, SendError};
pub use seal::{Params, Presenter, Sealer};
