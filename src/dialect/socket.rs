//! The interface for dialects that take over a connection. Such a connection is a WebSocket whose messages the gate
//! reads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::upgrade::Upgraded;

use super::{CommandHandler, EnclosedCall, Reply};
use rotogate_core::denial::Denial;
use rotogate_core::lease::Lease;
use rotogate_core::overload::SocketPermit;

/// Selects the upstream connection for a message. Messages of callers with the same identity share a connection.
pub(crate) type SocketIdentity = Box<[u8]>;

/// The gate's interface for the messages of one connection.
#[async_trait]
pub(crate) trait SocketGate: CommandHandler {
    /// Checks an open connection to the upstream against the rules in force. The caller is the holder of the lease, and
    /// the route is the route of the connection's path. The token of the lease may have been refreshed since it was
    /// verified.
    ///
    /// # Errors
    /// The reason why the connection is denied.
    fn judge(&self, lease: Option<&Lease>) -> Result<(), Denial>;

    /// Authorises a message twice: as a request to the route of the connection's path, and as the call that it
    /// contains. Counts the message against the limits that apply to it.
    ///
    /// # Errors
    /// The reason why the message is denied.
    async fn admit(&self, token: Option<&str>, called: &EnclosedCall) -> Result<SocketIdentity, Denial>;

    /// Returns the lease of a connection that is opened with this token. `is_presented` says that the client sent
    /// the token. If the gate has just issued the token instead, the lease does not count as a use of the token.
    ///
    /// # Errors
    /// The reason why the token is not valid at present.
    fn lease(&self, token: &str, is_presented: bool) -> Result<Lease, Denial>;

    /// Returns the permit of the connection.
    fn place(&self) -> &SocketPermit;

    /// Waits until the gate shuts down its connections.
    async fn closing(&self);

    /// Returns whether the rules under which the connection started have been replaced. In that case the connection
    /// can open only upstream connections that the old rules permit as well.
    fn are_rules_replaced(&self) -> bool;

    /// Returns whether the rules have changed since the last call.
    fn has_new_rules(&self) -> bool;

    /// Returns whether the connection's endpoint still exists in the rules in force.
    fn is_served(&self) -> bool;

    /// Opens a WebSocket to the upstream for this call, on behalf of the token's caller. Returns `None` if that
    /// fails.
    async fn dial(&self, token: Option<&str>, called: &EnclosedCall) -> Option<Upgraded>;
}

/// The function that serves a connection to its end.
pub(crate) type Serve =
    Box<dyn FnOnce(Upgraded, Arc<dyn SocketGate>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A connection that a dialect takes over. Only [`Kuzzle`](super::kuzzle::Kuzzle) creates one.
pub struct Upgrade {
    /// The reply with status 101 and the headers of the protocol.
    pub(crate) reply: Reply,
    /// The function that serves the connection.
    pub(crate) serve: Serve,
}

rotogate_core::debug_with!(Upgrade);
