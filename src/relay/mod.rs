//! The relay: in front of a provider that rotates refresh tokens by itself.
//!
//! A provider that exchanges each refresh token once punishes a client that presents one twice: two tabs at once, or a
//! reply that was lost. The relay exchanges a token once, and gives every presentation within `grace` the same answer.
//! It holds no token: an answer is sealed under the token that it answers.

pub mod seal;

pub use seal::{Params, Presenter, Sealer};
