//! Leases, which tie a long-lived connection to its caller.

#[cfg(feature = "kuzzle")]
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

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

/// The context that all leases of a gate share.
#[derive(Debug)]
pub struct LeaseContext {
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    /// The maximum duration of a connection.
    max_stream: ArcSwap<Duration>,
    closing: tokio::sync::watch::Sender<bool>,
    /// Whether long replies must also end.
    closing_replies: AtomicBool,
}

impl LeaseContext {
    /// Creates a context in which connections last at most `max_stream`.
    pub fn new(engine: Arc<Engine>, checker: Arc<TokenChecker>, max_stream: Duration) -> Self {
        Self {
            engine,
            checker,
            max_stream: ArcSwap::from_pointee(max_stream),
            closing: tokio::sync::watch::Sender::new(false),
            closing_replies: AtomicBool::new(false),
        }
    }

    /// Replaces the maximum duration of a connection. This also applies to open connections.
    pub fn set_max_stream(&self, longest: Duration) {
        self.max_stream.store(Arc::new(longest));
    }

    /// Ends all upgraded connections.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Ends all long replies, within a second.
    pub fn close_replies(&self) {
        self.closing_replies.store(true, Ordering::Release);
    }

    /// Waits until long-lived connections must end.
    pub async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// Ties a long-lived connection to its caller. The lease is valid as long as the token and session with which the
/// connection was opened. The gate inserts it into the extensions of a request for an upgrade, if the route permits
/// upgrades. A long response also has a lease.
///
/// The layer ends an upgraded connection when its lease ends, regardless of the connection's handler. A handler can
/// also wait for the end itself:
///
/// ```
/// # async fn handler(lease: rotogate::gate::Lease) {
/// let ending = lease.ended(std::time::Duration::from_millis(250)).await;
/// println!("over: {}", ending.reason());
/// # }
/// ```
///
/// A rotation extends the lease to the end of the new token's lifetime, even if the rotation revokes the old token. A
/// reissue ends the leases of the generation that it abandons. A revocation ends all leases that it matches.
/// Connections cannot last longer than `GateBuilder::max_stream`.
///
/// For a browser session, the lease lasts until the session's idle timeout or its absolute end. A renewal at any gate
/// extends the lease. Data that the client of a WebSocket sends counts as activity, but an open event stream does not.
#[derive(Clone)]
pub struct Lease {
    context: Arc<LeaseContext>,
    /// The caller, or `None` if the route does not require one. Without a caller, only the maximum duration and the
    /// gate's shutdown end the connection.
    verified: Option<Arc<Verified>>,
    line: Option<Arc<LiveConnection>>,
    opened: Timestamp,
    on_expiry: OnExpiry,
    /// The permit that the connection takes from the pool of tunnels.
    #[expect(dead_code, reason = "it is only kept until it is dropped")]
    place: Option<Arc<PoolPermit>>,
    /// Renews the browser session.
    renew: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The reason for which a long-lived connection ends.
///
/// ```
/// use rotogate::gate::LeaseEnd;
///
/// /// The close code of a WebSocket (RFC 6455 §7.4.1).
/// fn close_code(end: &LeaseEnd) -> u16 {
///     match end {
///         LeaseEnd::Closing => 1001,
///         _ => 1008,
///     }
/// }
/// assert_eq!(close_code(&LeaseEnd::Closing), 1001);
/// ```
#[derive(Debug)]
pub enum LeaseEnd {
    /// The connection's token or session is no longer valid.
    Denied(Denial),
    /// The gate currently cannot determine whether the connection's token is still valid.
    Undecided(Denial),
    /// The connection reached its maximum duration. The token may still be valid.
    MaxStream,
    /// The gate is shutting down.
    Closing,
}

impl LeaseEnd {
    /// The name of the reason in log lines, from a fixed set of names.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Denied(denial) | Self::Undecided(denial) => denial.reason(),
            Self::MaxStream => "max_stream",
            Self::Closing => "closing",
        }
    }
}

impl LeaseEnd {
    /// The name of the reason in the field `rotogate.end` of the access log.
    pub const fn end(&self) -> &'static str {
        match self {
            Self::Denied(Denial::TokenExpired) => "expired",
            Self::Denied(_) => "revoked",
            Self::Undecided(_) => "undecided",
            Self::MaxStream => "max_stream",
            Self::Closing => "shutdown",
        }
    }
}

crate::debug_with!(Lease);

impl Lease {
    /// Checks that the lease is valid now.
    ///
    /// # Errors
    /// The token expired or was revoked.
    pub fn check(&self) -> Result<(), Denial> {
        let Some(verified) = &self.verified else { return Ok(()) };
        let successor = || self.line.as_ref()?.advanced_to();
        // A browser session ends at its idle timeout, not together with an access token.
        let idle_expires = self.line.as_ref().and_then(|line| line.idle_expires());
        let on_expiry = if idle_expires.is_some() { OnExpiry::Keep } else { self.on_expiry };
        if self.on_expiry == OnExpiry::Close
            && idle_expires.is_some_and(|expires| self.context.engine.clock().latest() >= expires)
        {
            return Err(Denial::TokenExpired);
        }
        let check = |successor| self.context.checker.check_again(verified, successor, on_expiry);
        let before = successor();
        check(before).or_else(|denial| {
            // A concurrent rotation moves the connection to the new token before it revokes the old one.
            let after = successor();
            if after == before { Err(denial) } else { check(after) }
        })
    }

    /// Returns whether the connection has reached its maximum duration.
    pub fn is_over(&self) -> bool {
        self.context.engine.clock().now() >= self.opened.plus(**self.context.max_stream.load())
    }

    /// Waits until the lease is no longer valid, the connection reaches its maximum duration, or the gate shuts down.
    /// Returns the reason. Checks at intervals of `every`.
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

/// Functions that only our own crates call. docs.rs does not show them.
#[doc(hidden)]
impl Lease {
    /// Creates a lease for a token, which is checked now. If `is_presented` is false, the gate has just issued the
    /// token. The check then does not count as a use, because the token may never reach its client.
    #[cfg(feature = "kuzzle")]
    pub fn new(
        context: &Arc<LeaseContext>,
        token: &str,
        is_presented: bool,
        address: Option<IpAddr>,
    ) -> Result<Self, Denial> {
        let verified = match is_presented {
            true => {
                let miss = || MissContext::new(&context.engine, address);
                context.checker.check(Credential::new(token), miss, &mut ())?
            }
            false => context.checker.check_issued(token)?,
        };
        Ok(Self::for_caller(context, Some(&verified), OnExpiry::Close))
    }

    /// Creates a lease for a caller whose token has just been checked.
    pub fn for_caller(context: &Arc<LeaseContext>, caller: Option<&Arc<Verified>>, on_expiry: OnExpiry) -> Self {
        // A delegated token does not have a successor, so a rotation of the user's session does not extend the lease
        // (D6).
        let advancing = caller.filter(|caller| caller.token().delegation().is_none());
        let session = advancing.and_then(|caller| Some((caller.token().session?, caller.token().expires)));
        let line = session.map(|((id, generation), expires)| {
            let opened_by = caller.and_then(|caller| Some((caller.session_cookie()?, caller.session_terms()?)));
            context.engine.live_sessions().begin(id, generation, expires, opened_by)
        });
        let opened = context.engine.clock().now();
        let verified = caller.map(Arc::clone);
        Self { context: Arc::clone(context), verified, line, opened, on_expiry, place: None, renew: None }
    }

    /// Sets the function that renews the session, for a connection that was opened with a session cookie. It is called
    /// because data from the client counts as activity.
    pub fn renewed_by(self, renew: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { renew: Some(renew), ..self }
    }

    /// Notes that the client sent data, which renews the session as a request does.
    pub fn note_activity(&self) {
        if let (Some(renew), Some(line)) = (&self.renew, &self.line)
            && line.takes_renewal(self.context.engine.clock().now())
        {
            renew();
        }
    }

    /// Adds the permit of a tunnel. The permit is returned when the last clone of the lease is dropped.
    pub fn in_place(self, place: PoolPermit) -> Self {
        Self { place: Some(Arc::new(place)), ..self }
    }

    /// The holder whose share of the pools the connection uses.
    #[cfg(feature = "kuzzle")]
    pub fn holder(&self) -> Option<crate::overload::Holder> {
        self.verified.as_ref().map(|verified| verified.holder())
    }

    /// The caller that the connection's token identified.
    #[cfg(feature = "kuzzle")]
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.verified.as_ref()
    }

    /// The caller's session.
    pub fn session(&self) -> Option<crate::session::SessionId> {
        self.verified.as_ref()?.token().session.map(|(session, _)| session)
    }

    /// Returns whether this lease replaces `other`. It replaces `other` if it belongs to another session, or to the
    /// same session and the same or a later generation.
    #[cfg(feature = "kuzzle")]
    pub fn supersedes(&self, other: &Self) -> bool {
        match (&self.line, &other.line) {
            (Some(own), Some(other)) if own.session() == other.session() => own.generation() >= other.generation(),
            _ => true,
        }
    }

    /// The reason for which the lease has ended, if it has.
    pub fn end(&self) -> Option<LeaseEnd> {
        match self.check() {
            Err(denial) if denial.is_undecided() => Some(LeaseEnd::Undecided(denial)),
            Err(denial) => Some(LeaseEnd::Denied(denial)),
            Ok(()) => self.is_over().then_some(LeaseEnd::MaxStream),
        }
    }

    /// The reason for which the lease of a long reply has ended, including a shutdown of the gate that ends replies.
    pub fn reply_end(&self) -> Option<LeaseEnd> {
        if self.context.closing_replies.load(Ordering::Acquire) { Some(LeaseEnd::Closing) } else { self.end() }
    }

    /// The reason for which the lease has ended, including a shutdown of the gate.
    pub fn has_ended(&self) -> Option<LeaseEnd> {
        if *self.context.closing.borrow() { Some(LeaseEnd::Closing) } else { self.end() }
    }
}

/// A marker in the extensions of a request that the gate itself sends to take over the connection. A dialect that
/// authenticates each message of a WebSocket opens its upstream connection in this way.
#[derive(Clone, Copy, Debug)]
pub struct Dialled;

/// A value in the extensions of a request for an upgrade. It is kept until the upgraded connection closes.
#[derive(Clone)]
pub struct UntilClosed(pub Arc<dyn std::any::Any + Send + Sync>);
