use std::sync::Arc;

use http::Request;
use http::request::Parts;
use http_body::Body;
use tower::Service;

use super::GateLayer;
use super::future::{EndpointOutcome, PassedRequest};
use crate::dialect::{Consult, ConsultResult, Dialect, Forward};
use crate::gate::Inner;
#[cfg(feature = "kuzzle")]
use crate::gate::endpoint::TakenOver;
use crate::gate::endpoint::{self, EndpointResponse};
use crate::gate::forward_buffered::{ForwardBuffered, NotForwarded};
#[cfg(feature = "kuzzle")]
use crate::gate::overloaded::overloaded;
#[cfg(feature = "kuzzle")]
use crate::gate::socket;
use crate::gate::verdict::{Operation, Verdict};
use rotogate_core::overload::PoolPermit;
#[cfg(feature = "kuzzle")]
use rotogate_core::overload::SocketPermit;
use rotogate_core::reason::Reason;
use rotogate_core::trace::{self, StepKind, Value};

pub(super) struct EndpointRun<M> {
    layer: GateLayer<M>,
    index: usize,
    named: Operation,
}

impl<M> EndpointRun<M> {
    pub(super) fn new(layer: GateLayer<M>, operation: &endpoint::MatchedOperation) -> Self {
        let index = operation.endpoint();
        let dialect = layer.gate.0.endpoints.dialect(index).map_or("", Dialect::name);
        Self { index, named: Operation::new(dialect, operation.name()), layer }
    }

    fn gate(&self) -> &Arc<Inner> {
        &self.layer.gate.0
    }

    fn dialect(&self) -> Option<&dyn Dialect> {
        self.gate().endpoints.dialect(self.index)
    }

    /// Logs the reason for an endpoint's reply, and returns the verdict. Every such reply passes through this method.
    fn verdict(&self, reason: Reason) -> Option<Verdict> {
        reason.tell();
        self.layer.options.annotate.then(|| Verdict::at(self.named, reason))
    }

    fn not_forwarded<F>(&self, why: NotForwarded) -> EndpointOutcome<F> {
        EndpointOutcome::reply(why.reply(self.dialect()), self.verdict(Reason::NOT_FORWARDED))
    }

    pub(super) async fn outcome<S, B>(
        self,
        operation: endpoint::MatchedOperation,
        parts: Parts,
        body: B,
        kept: M::Kept,
    ) -> EndpointOutcome<S::Future>
    where
        S: Service<Request<B>>,
        M: ForwardBuffered<S, B>,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        match self.answered(operation, parts, body).await {
            EndpointResponse::Reply(reply, reason, who) => {
                let verdict = self.verdict(reason).map(|verdict| Verdict { who, ..verdict });
                EndpointOutcome::reply(reply, verdict)
            }
            EndpointResponse::Consult(parts, consult) => self.consulted::<S, B>(*parts, consult, kept).await,
            EndpointResponse::Forward(parts, forward, room) => {
                self.forwarded::<S, B>(*parts, forward, room, kept).await
            }
            #[cfg(feature = "kuzzle")]
            EndpointResponse::Upgrade(taken) => self.taken_over::<S, B>(*taken, kept),
        }
    }

    async fn answered<B>(&self, operation: endpoint::MatchedOperation, parts: Parts, body: B) -> EndpointResponse
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let gate = self.gate();
        let address = gate.client_address(&parts);
        let span = trace::begin(StepKind::Internal, "rotogate.endpoint");
        if let Some(span) = &span {
            span.set("rotogate.dialect", Value::Fixed(self.named.dialect));
            span.set("rotogate.operation", Value::Fixed(self.named.name));
        }
        let answering = endpoint::answer(Arc::clone(gate), operation, parts, body, address);
        let answered = trace::inside(span.as_ref(), answering).await;
        if let Some(span) = span {
            if let EndpointResponse::Reply(_, reason, _) = &answered
                && !reason.is_served()
            {
                span.set_error(reason.word(), !reason.is_refusal());
            }
            span.end();
        }
        answered
    }

    async fn consulted<S, B>(self, mut parts: Parts, consult: Consult, kept: M::Kept) -> EndpointOutcome<S::Future>
    where
        S: Service<Request<B>>,
        M: ForwardBuffered<S, B>,
    {
        let said = match self.layer.prepared_bare(&mut parts).await {
            Ok(()) => M::consult(kept, parts).await,
            Err(denial) => ConsultResult::Refused(denial),
        };
        let (reply, reason) = (consult.then)(said);
        EndpointOutcome::reply(reply, self.verdict(reason))
    }

    async fn forwarded<S, B>(
        self,
        parts: Parts,
        forward: Forward,
        room: Option<PoolPermit>,
        kept: M::Kept,
    ) -> EndpointOutcome<S::Future>
    where
        S: Service<Request<B>>,
        M: ForwardBuffered<S, B>,
    {
        let (parts, body, permitted, counted) = match self.layer.forwarded(self.index, parts, forward, room).await {
            Ok(forwarded) => forwarded,
            Err(refused) => {
                let (reply, reason, route) = *refused;
                let verdict = self.verdict(reason).map(|verdict| Verdict { route, ..verdict });
                return EndpointOutcome::reply(reply, verdict);
            }
        };
        match M::forward(kept, parts, body).await {
            Ok(future) => {
                let gate = Arc::clone(self.gate());
                let passed =
                    PassedRequest { gate, permitted, counted, is_guarded: false, undecided: None, reader: None };
                let passed = Some(passed);
                EndpointOutcome::In { future, passed, annotate: self.layer.options.annotate }
            }
            Err(why) => self.not_forwarded(why),
        }
    }

    #[cfg(feature = "kuzzle")]
    fn taken_over<S, B>(self, taken: TakenOver, kept: M::Kept) -> EndpointOutcome<S::Future>
    where
        S: Service<Request<B>>,
        M: ForwardBuffered<S, B>,
    {
        let gate = self.gate();
        let place = match SocketPermit::new(&gate.running.overload, gate.holder(&taken.head)) {
            Ok(place) => place,
            Err(refusal) => {
                let reply = overloaded(refusal, self.dialect(), &taken.head.headers);
                return EndpointOutcome::reply(reply, self.verdict(Reason::shed(refusal)));
            }
        };
        match socket::take_over(self.layer.clone(), taken, place, M::dialer(kept)) {
            Ok(reply) => EndpointOutcome::reply(reply, self.verdict(Reason::ANSWERED)),
            Err(why) => self.not_forwarded(why),
        }
    }
}
