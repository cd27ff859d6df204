//! Whether the caller of a long connection may still be there.

use std::fmt;
#[cfg(feature = "kuzzle")]
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
#[cfg(feature = "kuzzle")]
use crate::credential::Credential;
use crate::denial::Denial;
use crate::engine::Engine;
use crate::engine::live_sessions::LiveConnection;
use crate::overload::PoolPermit;
use crate::route::OnExpiry;
#[cfg(feature = "kuzzle")]
use crate::verify_cache::MissContext;
use crate::verify_cache::{TokenChecker, Verified};

/// What every lease of a gate needs.
#[derive(Debug)]
pub(crate) struct LeaseContext {
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    /// How long a connection lasts at most.
    pub(crate) max_stream: Duration,
    closing: tokio::sync::watch::Sender<bool>,
}

impl LeaseContext {
    pub(crate) fn new(engine: Arc<Engine>, checker: Arc<TokenChecker>, max_stream: Duration) -> Self {
        Self { engine, checker, max_stream, closing: tokio::sync::watch::Sender::new(false) }
    }

    /// Ends all long connections.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until long connections are to end.
    pub(crate) async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// What a long connection hangs on: the token that it was opened with, and the session behind it. In the extensions of a
/// request that asks for an upgrade, on a route that passes upgrades; a long reply has one, too.
///
/// The layer ends an upgraded connection with its lease, whatever its handler does. A handler may wait for the end itself:
///
/// ```
/// # async fn handler(lease: rotogate::gate::Lease) {
/// let ending = lease.ended(std::time::Duration::from_millis(250)).await;
/// println!("over: {}", ending.reason());
/// # }
/// ```
///
/// A rotation carries it on, to the end of the new token's life, also where it ends the old token. A reissue ends what
/// hangs on a generation that it abandons; a revocation ends all that it matches. No connection outlives
/// [`GateBuilder::max_stream`](crate::gate::GateBuilder::max_stream).
#[derive(Clone)]
pub struct Lease {
    context: Arc<LeaseContext>,
    /// None where nobody was asked who is there: nothing ends such a connection but its own length, and the gate.
    verified: Option<Arc<Verified>>,
    line: Option<Arc<LiveConnection>>,
    opened: Timestamp,
    on_expiry: OnExpiry,
    /// The place of the tunnel.
    #[expect(dead_code, reason = "it is held, not looked at")]
    place: Option<Arc<PoolPermit>>,
}

/// Why a long connection ends.
#[derive(Debug)]
pub enum LeaseEnd {
    /// What it hung on is good no more.
    Denied(Denial),
    /// It has lasted as long as any may; its token may be as good as ever.
    MaxStream,
    /// The gate is about to stop.
    Closing,
}

impl LeaseEnd {
    /// One word for log lines, from a fixed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Denied(denial) => denial.reason(),
            Self::MaxStream => "max_stream",
            Self::Closing => "closing",
        }
    }
}

impl LeaseEnd {
    /// The same for the access log's `rotogate.end`.
    pub const fn end(&self) -> &'static str {
        match self {
            Self::Denied(Denial::TokenExpired) => "expired",
            Self::Denied(_) => "revoked",
            Self::MaxStream => "max_stream",
            Self::Closing => "shutdown",
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(…)")
    }
}

impl Lease {
    /// Begins with a token that is good now.
    #[cfg(feature = "kuzzle")]
    pub(crate) fn new(context: &Arc<LeaseContext>, token: &str, address: Option<IpAddr>) -> Result<Self, Denial> {
        let verified = context.checker.check(Credential::new(token), || MissContext::new(&context.engine, address))?;
        Ok(Self::of(context, Some(&verified), OnExpiry::Close))
    }

    /// Begins with a caller whose token was good a moment ago.
    pub(crate) fn of(context: &Arc<LeaseContext>, caller: Option<&Arc<Verified>>, on_expiry: OnExpiry) -> Self {
        let session = caller.and_then(|caller| caller.token().session);
        let line = session.map(|(id, generation)| context.engine.live_sessions().begin(id, generation));
        let opened = context.engine.clock().now();
        Self { context: Arc::clone(context), verified: caller.map(Arc::clone), line, opened, on_expiry, place: None }
    }

    /// With the place of a tunnel, to be given back with the last of its clones.
    pub(crate) fn in_place(self, place: PoolPermit) -> Self {
        Self { place: Some(Arc::new(place)), ..self }
    }

    /// Whose it is.
    #[cfg(feature = "kuzzle")]
    pub(crate) fn holder(&self) -> Option<crate::overload::Holder> {
        self.verified.as_ref().map(|verified| verified.holder())
    }

    /// Is it good now?
    ///
    /// # Errors
    /// Why it is not: it expired, or was revoked.
    pub fn check(&self) -> Result<(), Denial> {
        let Some(verified) = &self.verified else { return Ok(()) };
        let successor = || self.line.as_ref()?.advanced_to();
        let check = |successor| self.context.checker.check_again(verified, successor, self.on_expiry);
        let before = successor();
        check(before).or_else(|denial| {
            // A rotation that came in between carries first and revokes then.
            let after = successor();
            if after == before { Err(denial) } else { check(after) }
        })
    }

    /// The session behind it.
    pub(crate) fn session(&self) -> Option<crate::session::SessionId> {
        self.verified.as_ref()?.token().session.map(|(session, _)| session)
    }

    /// Has the connection lasted as long as any may?
    pub fn is_over(&self) -> bool {
        self.context.engine.clock().now() >= self.opened.plus(self.context.max_stream)
    }

    /// Does it say no less than another: is it of another session, or of the same, no earlier?
    #[cfg(feature = "kuzzle")]
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        match (&self.line, &other.line) {
            (Some(own), Some(other)) if own.session() == other.session() => own.generation() >= other.generation(),
            _ => true,
        }
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self) -> Option<LeaseEnd> {
        match self.check() {
            Err(denial) => Some(LeaseEnd::Denied(denial)),
            Ok(()) => self.is_over().then_some(LeaseEnd::MaxStream),
        }
    }

    /// Waits until it is good no more, the connection is over, or the gate is about to stop, and says why. Looks every so
    /// often.
    pub async fn ended(&self, every: Duration) -> LeaseEnd {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.context.closed() => return LeaseEnd::Closing,
            }
            if let Some(reason) = self.end() {
                return reason;
            }
        }
    }
}

/// In the extensions of a request that the gate itself sends, to take the connection over: a dialect that authenticates each
/// message of a WebSocket dials its upstream so.
#[derive(Clone, Copy, Debug)]
pub struct Dialled;

/// In the extensions of a request that asks for an upgrade: kept until the upgraded connection is closed.
#[derive(Clone)]
pub struct UntilClosed(pub Arc<dyn std::any::Any + Send + Sync>);
