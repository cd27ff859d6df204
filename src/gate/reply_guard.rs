//! Ends long replies (server-sent events, gRPC streams, downloads) when their caller's session ends. A reply is long if
//! its length is unknown or exceeds [`LONG_REPLY_BYTES`]. The gate checks its [`Lease`] every second.
//!
//! The reply is aborted, so that a client does not mistake a part for the whole. Over HTTP/1.1 the connection closes
//! without the last chunk, and over HTTP/2 the stream is reset. A gRPC reply ends with the status `UNAUTHENTICATED`.
//! The client may still receive bytes that were already buffered.

use std::sync::Arc;
use std::task;
use std::time::Duration;

use http::HeaderMap;
use http_body::SizeHint;
use tokio::time::{Interval, MissedTickBehavior};

use super::Inner;
use rotogate_core::context::Context;
use rotogate_core::lease::{Lease, LeaseEnd};
use rotogate_core::policy::Permitted;
use rotogate_core::reply::{GrpcCode, grpc_trailers};
use rotogate_core::route::Route;
use rotogate_core::verify_cache::Verified;

/// The longest delay before a long reply ends, as for tunnels (requirement T9).
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Replies with more bytes than this are long.
const LONG_REPLY_BYTES: u64 = 1024 * 1024;
/// If frames are always ready, the reply is checked after this many frames.
const FRAMES_UNCHECKED: u32 = 64;

struct GuardedCaller {
    gate: Arc<Inner>,
    verified: Arc<Verified>,
    route: Arc<Route>,
}

pub(super) fn is_short(size: &SizeHint) -> bool {
    size.exact().is_some_and(|length| length <= LONG_REPLY_BYTES)
}

pub(super) struct ReplyGuard {
    caller: GuardedCaller,
    state: State,
    is_grpc: bool,
    cut: Option<&'static str>,
    context: Option<Context>,
}

rotogate_core::debug_with!(ReplyGuard);

enum State {
    /// Most replies end before they get a lease.
    New {
        frames: u32,
    },
    Checking {
        lease: Lease,
        ticks: Interval,
    },
    Over,
}

#[derive(Debug, thiserror::Error)]
#[error("the gate ended the response early: {0}")]
struct ReplyEnded(&'static str);

pub(super) enum Cut {
    Trailers(HeaderMap),
    Broken(Box<dyn std::error::Error + Send + Sync>),
    Silence,
}

impl ReplyGuard {
    pub(super) fn new(gate: Arc<Inner>, verified: Arc<Verified>, permitted: &Permitted, is_grpc: bool) -> Self {
        let route = Arc::clone(permitted.route());
        Self {
            caller: GuardedCaller { gate, verified, route },
            state: State::New { frames: 0 },
            is_grpc,
            cut: None,
            context: Context::current(),
        }
    }

    pub(super) fn cut(&self) -> Option<&'static str> {
        self.cut
    }

    /// Call this method before each frame. `waits` is true if no frame is ready.
    pub(super) fn poll_expired(&mut self, cx: &mut task::Context<'_>, waits: bool) -> Option<Cut> {
        match &mut self.state {
            State::New { frames } if !waits && *frames < FRAMES_UNCHECKED => {
                *frames += 1;
                return None;
            }
            State::New { .. } => {
                let GuardedCaller { gate, verified, route } = &self.caller;
                let lease = Lease::for_caller(&gate.leases, Some(verified), route.policy.on_expiry());
                let mut ticks = tokio::time::interval(CHECK_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.state = State::Checking { lease, ticks };
            }
            State::Checking { .. } => {}
            State::Over => return Some(Cut::Silence),
        }
        let State::Checking { lease, ticks } = &mut self.state else { return None };
        while ticks.poll_tick(cx).is_ready() {
            if let Some(ending) = lease.reply_end() {
                let reason = ending.reason();
                let request = self.context.as_ref();
                let session = self.caller.verified.token().session.map(|(session, _)| tracing::field::display(session));
                tracing::info!(
                    target: "rotogate::denial",
                    reason,
                    session.id = session,
                    rotogate.route = &*self.caller.route.id,
                    http.request.id = request.and_then(|request| request.id().to_str().ok()),
                    client.address = request.and_then(|request| request.client()).map(tracing::field::display),
                    "the gate ended a response early, because the request is no longer permitted"
                );
                self.cut = Some(ending.end());
                self.state = State::Over;
                return Some(if self.is_grpc {
                    Cut::Trailers(trailers_of(&ending))
                } else {
                    Cut::Broken(ReplyEnded(reason).into())
                });
            }
        }
        None
    }
}

fn trailers_of(ending: &LeaseEnd) -> HeaderMap {
    let (code, message) = match ending {
        LeaseEnd::Undecided(_) => (GrpcCode::Unavailable, "the access token cannot be checked at this moment"),
        LeaseEnd::Closing => (GrpcCode::Unavailable, "the gate is stopping"),
        LeaseEnd::Denied(_) | LeaseEnd::MaxStream => (GrpcCode::Unauthenticated, "the access token is no longer valid"),
    };
    grpc_trailers(code, message)
}
