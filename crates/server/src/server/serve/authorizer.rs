//! Listeners that receive authorization requests, called questions, from other proxies. The gate converts each question
//! into the request that it describes. This request gets a permit, a log line, metrics and a decision.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;

use super::request::{RequestState, panic_response};
use super::request_record::{LoggedBody, RequestRecord};
use crate::server::listen::listener::AskingNetworks;
use crate::server::listen::origin::Origin;
use rotogate::gate::{Authorizer, GateBody, Neighbour, Verdict};
use rotogate_config::{AuthorizerConfig, AuthorizerKind, ClientAuth, Config, ServerConfig};
use rotogate_core::denial::Denial;
use rotogate_core::headers::{Peer, Present};

#[derive(Debug)]
pub(crate) struct Questions {
    kind: AuthorizerKind,
    /// Whether the peer must present a client certificate.
    proves: bool,
    asking: Arc<AskingNetworks>,
    assertion_audience: Option<Arc<str>>,
}

pub(super) type VerdictFuture = Pin<Box<dyn Future<Output = ReplyResult> + Send>>;

pub(crate) type ReplyResult = Result<Response<LoggedBody>, Infallible>;

impl Questions {
    pub(crate) fn new(config: &Config, authorizer: &AuthorizerConfig) -> Self {
        let tls = authorizer.listener.tls.as_ref();
        let proves = tls.is_some_and(|tls| matches!(tls.client_auth, ClientAuth::Required(_)));
        let assertion_audience = authorizer.assertion_audience.as_deref().map(Arc::from);
        let questions = Self { kind: authorizer.kind, proves, asking: Arc::default(), assertion_audience };
        questions.trust(&config.server, authorizer);
        questions
    }

    /// Replaces the networks that may send authorization requests.
    pub(crate) fn trust(&self, server: &ServerConfig, authorizer: &AuthorizerConfig) {
        let trusted: Arc<[IpNet]> = authorizer.trusted(server).into();
        // If networks are configured too, the peer must meet both conditions.
        let trusted = Some(trusted).filter(|networks| !(networks.is_empty() && self.proves));
        self.asking.set(trusted);
    }

    pub(crate) fn asking(&self) -> Arc<AskingNetworks> {
        Arc::clone(&self.asking)
    }

    fn authorizer(&self, state: &RequestState) -> Authorizer {
        let neighbour = match self.kind {
            AuthorizerKind::ForwardAuth(neighbour) => neighbour,
            AuthorizerKind::ExtAuthz => Neighbour::Envoy,
        };
        let authorizer = Authorizer::new(state.gate(), neighbour);
        let authorizer = match &*self.asking.now() {
            Some(networks) => authorizer.trusting(networks.clone()),
            None => authorizer.trusting_all(),
        };
        match &self.assertion_audience {
            Some(audience) => authorizer.asserting_to(Arc::clone(audience)),
            None => authorizer,
        }
    }
}

pub(crate) fn answer(
    state: Arc<RequestState>,
    origin: Arc<Origin>,
    questions: Arc<Questions>,
    request: Request<Incoming>,
) -> VerdictFuture {
    Box::pin(async move {
        let authorizer = questions.authorizer(&state);
        let (mut question, body) = request.into_parts();
        question.extensions.insert(origin.peer.clone());
        if questions.kind == AuthorizerKind::ExtAuthz {
            return super::checks::answer(&state, &origin, &authorizer, question, body).await;
        }
        drop(body);
        let closing = Authorizer::closing(&question);
        let head = authorizer.head(&mut question);
        let mut reply = pin!(verdict(&state, &origin, (&authorizer, questions.kind), head, &question)).await;
        reply.headers_mut().extend(closing);
        Ok(reply)
    })
}

/// Returns the verdict on a request, or a refusal.
pub(crate) async fn verdict(
    state: &RequestState,
    origin: &Arc<Origin>,
    (authorizer, kind): (&Authorizer, AuthorizerKind),
    head: Result<Parts, Denial>,
    question: &Parts,
) -> Response<LoggedBody> {
    let began = state.monotonic();
    let (parts, denial) = match head {
        Ok(parts) => (parts, None),
        Err(denial) => (question.clone(), Some(denial)),
    };
    let of_client = parts.extensions.get::<Peer>().filter(|_| denial.is_none()).map(|peer| origin.asked_for(peer));
    let origin = of_client.map_or_else(|| Arc::clone(origin), Arc::new);
    let mut request = Request::from_parts(parts, ());
    let present = Present::in_headers(request.headers());
    let record = RequestRecord::new(state, &origin, (&mut request, present), began, None);
    let permit = state.enter(&origin, request.headers());
    let (parts, ()) = request.into_parts();
    let decided = {
        // Pinning the future here avoids copies by the enclosing futures.
        let decided = pin!(async {
            match &permit {
                Ok(_) => authorizer.decide(denial.map_or(Ok(parts), Err)).await,
                Err(rejection) => authorizer.overloaded(rejection.refusal()),
            }
        });
        record.context().clone().scope(AssertUnwindSafe(decided).catch_unwind()).await
    };
    let mut response = decided.map_or_else(|_| panic_response(), |reply| reply.map(GateBody::own));
    let verdict = response.extensions_mut().remove::<Verdict>();
    state.tally.verdicts.count(kind, response.status());
    let now = state.monotonic();
    state.tally.count_answer(verdict.as_ref(), response.status(), now.saturating_sub(began), Duration::ZERO);
    record.complete(state, response, (verdict, permit.ok()), now)
}
