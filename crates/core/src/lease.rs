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
use crate::session::expiry::OnExpiry;
#[cfg(feature = "kuzzle")]
use crate::token::verify::IssuerRules;
#[cfg(feature = "kuzzle")]
use crate::verify_cache::Check;
use crate::verify_cache::{TokenChecker, Verified};

/// The state that all leases of a gate share.
#[derive(Debug)]
pub struct LeaseContext {
    pub(crate) engine: Arc<Engine>,
    pub(crate) checker: Arc<TokenChecker>,
    max_stream: ArcSwap<Duration>,
    closing: tokio::sync::watch::Sender<bool>,
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

    /// Replaces the maximum duration, also for open connections.
    pub fn set_max_stream(&self, longest: Duration) {
        self.max_stream.store(Arc::new(longest));
    }

    /// Ends all upgraded connections.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Ends all long responses, within a second.
    pub fn close_replies(&self) {
        self.closing_replies.store(true, Ordering::Release);
    }

    /// Waits until long-lived connections must end.
    pub async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// Ties a long-lived connection to its caller. The lease is valid as long as the connection's token or session. If the
/// route permits upgrades, the gate inserts a lease into the extensions of an upgrade request. The layer ends an
/// upgraded connection when its lease ends. A handler can also wait for the end:
///
/// ```
/// # async fn handler(lease: rotogate::gate::Lease) {
/// let ending = lease.ended(std::time::Duration::from_millis(250)).await;
/// println!("over: {}", ending.reason());
/// # }
/// ```
/// A rotation extends the lease to the end of the new token's lifetime. A reissue, which replaces unused tokens, ends
/// the leases of those tokens. A revocation ends the leases that it matches. Connections cannot last longer than
/// `GateBuilder::max_stream`. For a browser session, the lease lasts until the session's idle timeout or its absolute
/// end. A renewal of the session at any gate extends the lease.
///
/// Data from a WebSocket client counts as activity, but an open event stream does not.
#[derive(Clone)]
pub struct Lease {
    context: Arc<LeaseContext>,
    verified: Option<Arc<Verified>>,
    line: Option<Arc<LiveConnection>>,
    opened: Timestamp,
    on_expiry: OnExpiry,
    #[expect(dead_code, reason = "dropping the lease frees the permit")]
    place: Option<Arc<PoolPermit>>,
    renew: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Why a long-lived connection ends.
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
    /// The token or session is no longer valid.
    Denied(Denial),
    /// The gate cannot determine whether the token is still valid.
    Undecided(Denial),
    /// The connection reached its maximum duration.
    MaxStream,
    /// The gate is shutting down.
    Closing,
}

impl LeaseEnd {
    /// The name of the reason in log lines.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Denied(denial) | Self::Undecided(denial) => denial.reason(),
            Self::MaxStream => "max_stream",
            Self::Closing => "closing",
        }
    }
}

impl LeaseEnd {
    /// The value of `rotogate.end` in the access log.
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
    /// Checks that the lease is still valid.
    ///
    /// # Errors
    /// The token expired or was revoked.
    pub fn check(&self) -> Result<(), Denial> {
        let Some(verified) = &self.verified else { return Ok(()) };
        let successor = || self.line.as_ref()?.advanced_to();
        // A browser session does not end with its access token.
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
            // A concurrent rotation moves the connection to the new token before it revokes the old token.
            let after = successor();
            if after == before { Err(denial) } else { check(after) }
        })
    }

    /// Returns whether the connection has reached its maximum duration.
    pub fn is_over(&self) -> bool {
        self.context.engine.clock().now() >= self.opened.plus(**self.context.max_stream.load())
    }

    /// Waits until the lease ends, and returns the reason. Checks the lease at intervals of `every`.
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

/// Functions for the crates of this project.
#[doc(hidden)]
impl Lease {
    /// Checks a token and creates a lease for it. If `is_presented` is false, the check does not count as a use of the
    /// token.
    #[cfg(feature = "kuzzle")]
    pub fn new(
        context: &Arc<LeaseContext>,
        token: &str,
        is_presented: bool,
        address: Option<IpAddr>,
    ) -> Result<Self, Denial> {
        let verified = match is_presented {
            true => {
                let miss = || context.engine.miss(address);
                let (credential, any) = (Credential::new(token), |_: &IssuerRules| true);
                context.checker.check(Check { taken: Some(&any), ..Check::from(credential) }, miss, &mut ())?
            }
            false => context.checker.check_issued(token)?,
        };
        Ok(Self::for_caller(context, Some(&verified), OnExpiry::Close))
    }

    /// Creates a lease for a caller whose token was just checked.
    pub fn for_caller(context: &Arc<LeaseContext>, caller: Option<&Arc<Verified>>, on_expiry: OnExpiry) -> Self {
        // Delegated tokens do not have successors, so rotations do not extend the lease (D6).
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

    /// Sets the function that renews the browser session when the client sends data.
    pub fn renewed_by(self, renew: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { renew: Some(renew), ..self }
    }

    /// Notes that the client sent data, which renews the browser session.
    pub fn note_activity(&self) {
        if let (Some(renew), Some(line)) = (&self.renew, &self.line)
            && line.takes_renewal(self.context.engine.clock().now())
        {
            renew();
        }
    }

    /// Adds a tunnel permit, which is returned when the last clone of the lease is dropped.
    pub fn in_place(self, place: PoolPermit) -> Self {
        Self { place: Some(Arc::new(place)), ..self }
    }

    /// The holder that is charged for the connection.
    #[cfg(feature = "kuzzle")]
    pub fn holder(&self) -> Option<crate::overload::Holder> {
        self.verified.as_ref().map(|verified| verified.holder())
    }

    /// The caller.
    #[cfg(feature = "kuzzle")]
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.verified.as_ref()
    }

    /// The caller's session.
    pub fn session(&self) -> Option<crate::session::SessionId> {
        self.verified.as_ref()?.token().session.map(|(session, _)| session)
    }

    /// Returns whether this lease replaces `other`. Within one session, a lease replaces only leases of the same or an
    /// earlier generation.
    #[cfg(feature = "kuzzle")]
    pub fn supersedes(&self, other: &Self) -> bool {
        match (&self.line, &other.line) {
            (Some(own), Some(other)) if own.session() == other.session() => own.generation() >= other.generation(),
            _ => true,
        }
    }

    /// Returns why the lease ended, or `None` if it is still valid.
    pub fn end(&self) -> Option<LeaseEnd> {
        match self.check() {
            Err(denial) if denial.is_undecided() => Some(LeaseEnd::Undecided(denial)),
            Err(denial) => Some(LeaseEnd::Denied(denial)),
            Ok(()) => self.is_over().then_some(LeaseEnd::MaxStream),
        }
    }

    /// Returns why a long response must end, or `None`.
    pub fn reply_end(&self) -> Option<LeaseEnd> {
        if self.context.closing_replies.load(Ordering::Acquire) { Some(LeaseEnd::Closing) } else { self.end() }
    }

    /// Returns why the lease ended, including a shutdown of the gate.
    pub fn has_ended(&self) -> Option<LeaseEnd> {
        if *self.context.closing.borrow() { Some(LeaseEnd::Closing) } else { self.end() }
    }
}

/// Marks an upgrade request that the gate itself sends to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Dialled;

/// A value that is kept until the upgraded connection closes.
#[derive(Clone)]
pub struct UntilClosed(pub Arc<dyn std::any::Any + Send + Sync>);
