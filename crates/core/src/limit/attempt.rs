//! The attempts and senders to which the limits apply.

use std::net::IpAddr;

use tokio::sync::OwnedSemaphorePermit;

/// An attempt to log in.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The caller's address, if known.
    pub address: Option<IpAddr>,
    /// The account.
    pub account: Option<&'a str>,
    /// The name in the login request.
    pub username: &'a str,
    /// The client.
    pub client: &'a str,
}

/// The sender of a token.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An address, if known.
    Address(Option<IpAddr>),
    /// An authenticated client that introspects tokens.
    Client(&'a str),
}

impl From<Option<IpAddr>> for Source<'_> {
    fn from(address: Option<IpAddr>) -> Self {
        Self::Address(address)
    }
}

/// A permit for one password check. Dropping the permit frees it for another check.
#[derive(Debug)]
pub struct CheckPermit(#[expect(dead_code, reason = "held, not read")] pub(super) Option<OwnedSemaphorePermit>);
