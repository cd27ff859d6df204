//! The interface for dialects that take over a connection: WebSockets whose messages the gate reads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::upgrade::Upgraded;

use super::{CommandHandler, EnclosedCall, Reply};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::overload::SocketPermit;

/// Selects the upstream connection of a message: messages of callers with the same identity share a connection.
pub(crate) type SocketIdentity = Box<[u8]>;

/// The gate, for the messages of one connection.
#[async_trait]
pub(crate) trait SocketGate: CommandHandler {
    /// Judges an open connection to the upstream by the rules in force: the caller whose token was verified for its
    /// lease, by the route of the connection's path. The token itself may have been refreshed since.
    ///
    /// # Errors
    /// Why the connection is refused.
    fn judge(&self, lease: Option<&Lease>) -> Result<(), Denial>;

    /// Authorises a message in two ways: like a request to the route of the connection's path, and as the call that it
    /// makes. Counts the message with the limits that govern it.
    ///
    /// # Errors
    /// Why the message is refused.
    async fn admit(&self, token: Option<&str>, called: &EnclosedCall) -> Result<SocketIdentity, Denial>;

    /// The lease of a connection that is opened with this token. `is_presented`: the client sent the token. If the gate
    /// has just issued it, the lease is no use of it.
    ///
    /// # Errors
    /// Why the token is not good now.
    fn lease(&self, token: &str, is_presented: bool) -> Result<Lease, Denial>;

    /// The permit of the connection.
    fn place(&self) -> &SocketPermit;

    /// Waits until the gate shuts down its connections.
    async fn closing(&self);

    /// Have other rules replaced the rules under which the connection began? If so, the connection can open only
    /// upstream connections that the old rules permit, too.
    fn are_rules_replaced(&self) -> bool;

    /// Have the rules changed since the last call?
    fn has_new_rules(&self) -> bool;

    /// Do the rules in force still have the connection's endpoint?
    fn is_served(&self) -> bool;

    /// A WebSocket to the upstream for this call, opened as the token's caller; `None` if no connection can be opened.
    async fn dial(&self, token: Option<&str>, called: &EnclosedCall) -> Option<Upgraded>;
}

/// Serves a connection to its end.
pub(crate) type Serve =
    Box<dyn FnOnce(Upgraded, Arc<dyn SocketGate>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A connection that a dialect takes over. Only [`Kuzzle`](super::kuzzle::Kuzzle) makes one.
pub struct Upgrade {
    /// 101, with the headers of the protocol.
    pub(crate) reply: Reply,
    /// Serves the connection.
    pub(crate) serve: Serve,
}

rotogate_core::debug_with!(Upgrade);
