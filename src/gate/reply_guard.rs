//! Long replies end with their authority: server-sent events, streams of gRPC, downloads. A reply of unknown length, or of
//! a long one, ends with its caller's session like a tunnel ([`Lease`]), and is checked every second.
//!
//! What ends it breaks it off, so that nobody takes a half for the whole: over HTTP/1.1 the connection closes without the
//! last chunk, over HTTP/2 the stream is reset. A gRPC reply ends with the status `UNAUTHENTICATED`. What was handed on
//! to the connection before may still arrive; nothing else does.

use std::sync::Arc;
use std::task;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use http_body::SizeHint;
use tokio::time::{Interval, MissedTickBehavior};

use super::Inner;
use crate::context::Context;
use crate::lease::Lease;
use crate::reply::GrpcCode;
use crate::route::Route;
use crate::verify_cache::Verified;

/// How often a long reply is looked at: what ends it has ended it within this time (requirement T9's bound for tunnels).
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A reply of more bytes is long, though its length is known.
const LONG_REPLY_BYTES: u64 = 1024 * 1024;
/// A reply that never makes anybody wait is looked at after so many frames.
const FRAMES_UNCHECKED: u32 = 64;

/// On whom a reply hangs.
struct Caller {
    gate: Arc<Inner>,
    verified: Arc<Verified>,
    route: Arc<Route>,
}

/// Is a reply over before it would be looked at?
pub(super) fn is_short(size: &SizeHint) -> bool {
    size.exact().is_some_and(|length| length <= LONG_REPLY_BYTES)
}

/// Looks at a reply.
pub(super) struct ReplyGuard {
    caller: Caller,
    state: State,
    is_grpc: bool,
    /// Why it was cut.
    cut: Option<&'static str>,
    /// The request that it answers.
    context: Option<Context>,
}

impl std::fmt::Debug for ReplyGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyGuard(…)")
    }
}

enum State {
    /// Most replies are over before this changes.
    New {
        frames: u32,
    },
    Checking {
        lease: Lease,
        ticks: Interval,
    },
    Over,
}

/// The caller may have this reply no more.
#[derive(Debug, thiserror::Error)]
#[error("a reply ended with its caller's session: {0}")]
struct Ended(&'static str);

/// How a reply ends that was cut.
pub(super) enum Cut {
    /// With a status.
    Trailers(HeaderMap),
    /// In the middle.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// It is over already.
    Silence,
}

impl ReplyGuard {
    pub(super) fn new(gate: Arc<Inner>, verified: Arc<Verified>, route: Arc<Route>, is_grpc: bool) -> Self {
        Self {
            caller: Caller { gate, verified, route },
            state: State::New { frames: 0 },
            is_grpc,
            cut: None,
            context: Context::current(),
        }
    }

    /// Why it was cut, if it was.
    pub(super) fn cut(&self) -> Option<&'static str> {
        self.cut
    }

    /// To be asked before each frame; `waits` if there is none yet.
    pub(super) fn poll_expired(&mut self, cx: &mut task::Context<'_>, waits: bool) -> Option<Cut> {
        match &mut self.state {
            State::New { frames } if !waits && *frames < FRAMES_UNCHECKED => {
                *frames += 1;
                return None;
            }
            State::New { .. } => {
                let Caller { gate, verified, route } = &self.caller;
                let lease = Lease::of(&gate.leases, Some(verified), route.policy.on_expiry);
                let mut ticks = tokio::time::interval(CHECK_INTERVAL);
                // After a pause in reading, one check is enough.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.state = State::Checking { lease, ticks };
            }
            State::Checking { .. } => {}
            State::Over => return Some(Cut::Silence),
        }
        let State::Checking { lease, ticks } = &mut self.state else { return None };
        while ticks.poll_tick(cx).is_ready() {
            if let Some(ending) = lease.end() {
                let reason = ending.reason();
                let request = self.context.as_ref();
                let session = self.caller.verified.token().session.map(|(session, _)| tracing::field::display(session));
                tracing::info!(
                    target: "rotogate::denial",
                    reason,
                    session.id = session,
                    rotogate.route = self.caller.route.id,
                    http.request.id = request.and_then(|request| request.id.to_str().ok()),
                    client.address = request.and_then(|request| request.client).map(tracing::field::display),
                    "a reply was cut with its caller's session"
                );
                self.cut = Some(ending.end());
                self.state = State::Over;
                return Some(if self.is_grpc {
                    Cut::Trailers(unauthenticated())
                } else {
                    Cut::Broken(Ended(reason).into())
                });
            }
        }
        None
    }
}

fn unauthenticated() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", GrpcCode::Unauthenticated.value());
    trailers.insert("grpc-message", HeaderValue::from_static("the access token is no longer good"));
    trailers
}
