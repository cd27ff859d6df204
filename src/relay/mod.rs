//! The relay: in front of a provider that rotates refresh tokens by itself.
//!
//! A provider that exchanges each refresh token once punishes a client that presents one twice: two tabs at once, or a
//! reply that was lost. The relay exchanges a token once, and gives every presentation within `grace` the same answer.
//! It holds no token: an answer is sealed under the token that it answers.
//!
//! [`engine`] has the steps, [`provider`] what it needs of a provider, [`oauth`] the words of RFC 6749, [`seal`] the
//! keys.

pub mod engine;
pub mod oauth;
pub mod provider;
pub mod seal;

pub use engine::{AfterUnknown, Answer, EndTokens, Presented, Relay, RelayParts, RelayRules, Source};
pub use provider::{Meaning, Provider, ProviderReply, ProviderRequest, SendError};
pub use seal::{Params, Presenter, Sealer};
