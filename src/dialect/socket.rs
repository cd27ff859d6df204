//! The interface for dialects that take over a connection: a WebSocket whose messages the gate reads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::upgrade::Upgraded;

use super::{CommandHandler, EnclosedCall, Reply};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::overload::SocketPermit;

/// Selects the upstream connection for a message. Callers with the same identity share a connection.
pub(crate) type SocketIdentity = Box<[u8]>;

#[async_trait]
pub(crate) trait SocketGate: CommandHandler {
    /// Checks an open upstream connection against the current rules. A refresh may have replaced the lease's token
    /// since its verification.
    ///
    /// # Errors
    /// The connection is denied.
    fn judge(&self, lease: Option<&Lease>) -> Result<(), Denial>;

    /// Authorises a message by the rules for the connection's path, and by the rules for its call. Limits count the
    /// message.
    ///
    /// # Errors
    /// The message is denied.
    async fn admit(&self, token: Option<&str>, called: &EnclosedCall) -> Result<SocketIdentity, Denial>;

    /// Returns the lease for a connection with this token. `is_presented` is false for a token that the gate has just
    /// issued. The lease then does not count as a use of the token.
    ///
    /// # Errors
    /// The token is not valid at present.
    fn lease(&self, token: &str, is_presented: bool) -> Result<Lease, Denial>;

    /// Introspects a token that the provider behind a relay has just issued. This does not count as a use.
    async fn learn(&self, token: &str) {
        let _ = token;
    }

    fn place(&self) -> &SocketPermit;

    async fn closing(&self);

    /// Returns whether the rules have changed since the connection started. The connection can then only open upstream
    /// connections that the old rules also permit.
    fn are_rules_replaced(&self) -> bool;

    fn has_new_rules(&self) -> bool;

    fn is_served(&self) -> bool;

    /// Opens a WebSocket to the upstream on behalf of the token's caller. Returns `None` if this fails.
    async fn dial(&self, token: Option<&str>, called: &EnclosedCall) -> Option<Upgraded>;
}

pub(crate) type Serve =
    Box<dyn FnOnce(Upgraded, Arc<dyn SocketGate>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A connection that a dialect takes over. Only [`Kuzzle`](super::kuzzle::Kuzzle) creates one.
pub struct Upgrade {
    pub(crate) reply: Reply,
    pub(crate) serve: Serve,
}

rotogate_core::debug_with!(Upgrade);
