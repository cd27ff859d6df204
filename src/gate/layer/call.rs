//! MCP calls that are authorised by their bodies, and forwarded byte for byte.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body::Body;
use tower::Service;

use super::GateLayer;
use super::future::{EndpointOutcome, PassedRequest, ResponseFuture};
use super::refuse::shed;
use super::settle::{Judged, UNPAID};
use crate::gate::Inner;
use crate::gate::body_pieces::BodyPieces;
use crate::gate::forward_buffered::ForwardBuffered;
use crate::gate::verdict::Verdict;
use rotogate_core::denial::{CallFlaw, Denial};
use rotogate_core::overload::{Holder, PoolPermit, Refusal};
use rotogate_core::policy::{Due, Owing, Permit, Settled};
use rotogate_core::reason::Reason;
use rotogate_core::reply;

const BODY_WITHIN: Duration = Duration::from_secs(10);

enum UnreadCall {
    Denied(Denial),
    TooSlow,
    Shed(Refusal),
}

impl<M> GateLayer<M> {
    pub(super) async fn body_outcome<S, B>(
        self,
        permit: Permit<Owing>,
        mut parts: Parts,
        body: B,
        kept: M::Kept,
    ) -> EndpointOutcome<S::Future>
    where
        S: Service<Request<B>>,
        M: ForwardBuffered<S, B>,
        B: Body<Data: Send> + Send + 'static,
    {
        let gate = &self.gate.0;
        let route = Arc::clone(permit.route());
        let own = |future: ResponseFuture<S::Future>| EndpointOutcome::Admitted(Box::new(future));
        let refuse = |parts: &Parts, denial| own(self.refuse(parts, denial, None, Some(Arc::clone(&route))));
        if self.options.head_alone {
            // This layer does not have the body, so it cannot authorise the call.
            return refuse(&parts, Denial::BadCall(CallFlaw::NoBody));
        }
        let Some(mcp) = gate.mcp(&route.policy) else { return refuse(&parts, Denial::NoRoute) };
        let longest = route.policy.max_body.map_or(mcp.settings.max_message, |most| most.min(mcp.settings.max_message));
        let holder = permit.caller().map(|caller| caller.holder()).or_else(|| gate.holder(&parts));
        let (body, room) = match read(gate, holder, longest, body).await {
            Ok(read) => read,
            Err(UnreadCall::Denied(denial)) => return refuse(&parts, denial),
            Err(UnreadCall::TooSlow) => {
                Reason::BODY_TOO_SLOW.tell();
                let verdict = self
                    .options
                    .annotate
                    .then(|| Verdict { route: Some(route), ..Verdict::new(Reason::BODY_TOO_SLOW) });
                return EndpointOutcome::reply(reply::problem(StatusCode::REQUEST_TIMEOUT, None), verdict);
            }
            Err(UnreadCall::Shed(why)) => {
                return own(shed(gate, &parts, why, permit.into_parts(), self.options.annotate));
            }
        };
        if let Err(denial) = gate.judge_body(mcp, &mut parts, permit.caller(), &body) {
            return refuse(&parts, denial);
        }
        let permit = match gate.settle((permit.body_checked(), None), None, &mut parts).await.without_body() {
            Ok(permit) => permit,
            Err(denial) => return refuse(&parts, denial),
        };
        let passed = match self.prepared(&mut parts, permit) {
            Ok(passed) => passed,
            Err(why) => return own(self.not_entered(why, &parts)),
        };
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let passed = passed.map(|passed| {
            let counted = passed.counted.map(|counted| counted.keeping(Some(room)));
            PassedRequest { counted, ..passed }
        });
        match M::forward(kept, parts, body).await {
            Ok(future) => EndpointOutcome::In { future, passed, annotate: self.options.annotate },
            Err(why) => {
                Reason::NOT_FORWARDED.tell();
                let verdict = self
                    .options
                    .annotate
                    .then(|| Verdict { route: Some(route), ..Verdict::new(Reason::NOT_FORWARDED) });
                EndpointOutcome::reply(why.reply(None), verdict)
            }
        }
    }
}

impl Judged {
    /// The settled permit. A request that still owes its body is refused, because the caller of this method has no body.
    pub(in crate::gate) fn without_body(self) -> Result<Permit<Settled>, Denial> {
        match self {
            Self::Pass(permit, _) => Ok(permit),
            Self::Refuse(denial) => Err(denial),
            Self::Owe((permit, _)) if permit.owes(Due::Body) => Err(Denial::BadCall(CallFlaw::NoBody)),
            Self::Owe(_) => Err(UNPAID),
        }
    }
}

/// Reads at most `longest` bytes, and counts them as buffered.
// Requirement M17.
async fn read<B: Body>(
    gate: &Inner,
    holder: Option<Holder>,
    longest: u64,
    body: B,
) -> Result<(Bytes, PoolPermit), UnreadCall> {
    let full = |_| UnreadCall::Shed(Refusal::Buffered);
    let mut room = gate.running.overload.buffered.take(holder, 0).map_err(full)?;
    let mut body = pin!(body);
    let whole = async {
        let mut pieces = BodyPieces::default();
        while let Some(frame) = poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await {
            let broken = |_| UnreadCall::Denied(Denial::BadCall(CallFlaw::NotJson));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if (pieces.so_far().len() + data.remaining()) as u64 > longest {
                return Err(UnreadCall::Denied(Denial::BodyTooLarge));
            }
            room.grow(data.remaining()).map_err(full)?;
            pieces.push(data);
        }
        Ok(pieces.whole())
    };
    let whole = tokio::time::timeout(BODY_WITHIN, whole).await.unwrap_or(Err(UnreadCall::TooSlow))?;
    Ok((whole, room))
}
