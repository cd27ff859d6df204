//! What a dialect needs that takes over a connection: WebSockets whose messages the gate itself reads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::upgrade::Upgraded;

use super::{CommandHandler, EnclosedCall, Reply};
use crate::denial::Denial;
use crate::lease::Lease;
use crate::overload::SocketPermit;

/// Whose connection to the upstream a message goes over: callers of one identity share it.
pub type Identity = Box<[u8]>;

/// The gate, for the messages of one connection.
#[async_trait]
pub trait SocketGate: CommandHandler {
    /// Authorises a message like a request to the route of the connection's path, and as what it asks for.
    ///
    /// # Errors
    /// Why it may not pass.
    fn permit(&self, token: Option<&str>, called: &EnclosedCall) -> Result<Identity, Denial>;

    /// What a connection hangs on that is opened with this token.
    ///
    /// # Errors
    /// Why the token is not good now.
    fn lease(&self, token: &str) -> Result<Lease, Denial>;

    /// What the connection holds of what the gate bears.
    fn place(&self) -> &SocketPermit;

    /// Waits until the gate lets go of its connections, because it is about to stop.
    async fn closing(&self);

    /// A WebSocket to the upstream, opened in the name of a token's owner for this call; `None` where there is none to be
    /// had.
    async fn dial(&self, token: Option<&str>, called: &EnclosedCall) -> Option<Upgraded>;
}

/// What serves a connection to its end.
pub type Serve = Box<dyn FnOnce(Upgraded, Arc<dyn SocketGate>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A connection that a dialect takes over.
pub struct Upgrade {
    /// 101, with what the protocol wants in its head.
    pub reply: Reply,
    /// Serves it.
    pub serve: Serve,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade(…)")
    }
}
