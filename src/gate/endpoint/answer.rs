use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http::header::{AUTHORIZATION, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;

use super::handler::EndpointHandler;
use super::read::{Reading, Unread};
use super::table::Ready;
use super::{MatchedOperation, browser};
use crate::dialect::{Answer, Call, Consult, Forward, Protocol, Reply, answer::by_command};
use crate::gate::overloaded::overloaded;
use crate::gate::possession::certificate_of;
use crate::gate::stall_timeout::StallTimeout;
use crate::gate::verdict::Who;
use crate::gate::{Inner, respond};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Arrival, Origin, RequestNote};
use rotogate_core::overload::{PoolPermit, Refusal};
use rotogate_core::reason::Reason;
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::session_cookie;
use rotogate_core::{credential, dpop, reply};

const STREAMED_BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub(in crate::gate) enum EndpointResponse {
    Reply(Reply, Reason, Option<Who>),
    /// The service also gets the request. The dialect makes its reply from the service's reply.
    Consult(Box<Parts>, Consult),
    /// The gate forwards the request with a new body, if the route permits it. The `PoolPermit` accounts for the
    /// buffered body.
    Forward(Box<Parts>, Forward, Option<PoolPermit>),
    #[cfg(feature = "kuzzle")]
    Upgrade(Box<TakenOver>),
}

impl EndpointResponse {
    fn reply(reply: Reply, reason: impl Into<Reason>) -> Self {
        Self::Reply(reply, reason.into(), None)
    }
}

#[cfg(feature = "kuzzle")]
pub(in crate::gate) struct TakenOver {
    pub(in crate::gate) endpoint: usize,
    pub(in crate::gate) head: Parts,
    pub(in crate::gate) sources: crate::dialect::Sources,
    pub(in crate::gate) origin: Origin,
    pub(in crate::gate) upgrade: crate::dialect::Upgrade,
}

pub(in crate::gate) async fn answer<B>(
    gate: Arc<Inner>,
    operation: MatchedOperation,
    parts: Parts,
    body: B,
    address: Option<IpAddr>,
) -> EndpointResponse
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let arrived = gate.engine.arrival();
    let Some(endpoint) = gate.endpoints.get(operation.endpoint) else {
        return EndpointResponse::reply(reply::problem(StatusCode::NOT_FOUND, None), Denial::NoRoute);
    };
    let dialect = &*endpoint.dialect;
    let request = EndpointRequest { gate: &gate, endpoint, operation: &operation, parts: &parts, address, arrived };
    if let Some(reply) = request.refused_method() {
        return EndpointResponse::reply(reply, Denial::MethodNotAllowed);
    }
    let protocol = dialect.protocol();
    if let Some(protocol) = protocol
        && protocol.is_streamed(operation.name())
    {
        return request.stream(protocol, body).await;
    }
    if let Some(browser) = &endpoint.browser {
        // The origin is checked before the body is read. The gate must not check a password for a page of another site
        // (requirement B25).
        if let Err(denial) = browser::admit(&gate, browser, operation.name(), &parts) {
            let empty = Bytes::new();
            return request.refuse(&request.call(&empty, false), denial);
        }
    }
    let reading = Reading { gate: &gate, dialect, operation: operation.name(), parts: &parts };
    let (body, room) = match reading.read(body).await {
        Ok(read) => read,
        Err(unread) => return request.answer_unread(&unread),
    };
    let call = request.call(&body, gate.origins.asked(&parts.headers));
    if request.is_by_foreign_cookie() {
        return request.refuse(&call, Denial::CrossOrigin);
    }
    let handler = request.handler(call.account());
    if let Some(browser) = &endpoint.browser {
        let (reply, reason) = browser::answer(browser, &call, &handler).await;
        return request.finish(&call, handler, reply, reason);
    }
    let answer = match protocol {
        Some(protocol) => protocol.answer(&call, &handler).await,
        None => by_command(dialect, &call, &handler).await,
    };
    match answer {
        Answer::Reply(reply, reason) => request.finish(&call, handler, reply, reason),
        Answer::Consult(consult) => EndpointResponse::Consult(Box::new(parts), consult),
        Answer::Forward(forward) => EndpointResponse::Forward(Box::new(parts), forward, room),
        #[cfg(feature = "kuzzle")]
        Answer::Upgrade(upgrade) => {
            let (sources, origin) = (dialect.sources(), handler.origin);
            let endpoint = operation.endpoint;
            EndpointResponse::Upgrade(Box::new(TakenOver { endpoint, head: parts, sources, origin, upgrade }))
        }
    }
}

pub(super) struct EndpointRequest<'a> {
    pub(super) gate: &'a Arc<Inner>,
    pub(super) endpoint: &'a Ready,
    pub(super) operation: &'a MatchedOperation,
    pub(super) parts: &'a Parts,
    pub(super) address: Option<IpAddr>,
    pub(super) arrived: Arrival,
}

impl<'a> EndpointRequest<'a> {
    pub(super) fn refused_method(&self) -> Option<Reply> {
        let methods = self.operation.served.methods;
        if methods.contains(&self.parts.method) {
            return None;
        }
        let (plain, dialect) = (reply::method_not_allowed(methods), Some(&*self.endpoint.dialect));
        Some(respond::worded(dialect, &self.parts.headers, Denial::MethodNotAllowed, &plain).unwrap_or(plain))
    }

    pub(super) fn call(&self, body: &'a Bytes, from_own_origin: bool) -> Call<'a> {
        let Self { operation, parts, address, .. } = *self;
        Call {
            operation: operation.name(),
            params: &operation.params,
            method: &parts.method,
            headers: &parts.headers,
            path: parts.uri.path(),
            query: parts.uri.query(),
            body,
            address,
            from_own_origin,
        }
    }

    async fn stream<B>(&self, protocol: &dyn Protocol, body: B) -> EndpointResponse
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let Ok(place) = self.gate.running.overload.streams.enter(self.gate.holder(self.parts)) else {
            return self.shed(Refusal::Streams);
        };
        let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
        let body = StallTimeout::new(body.map_err(Into::into).boxed_unsync(), STREAMED_BODY_TIMEOUT);
        let empty = Bytes::new();
        let (reply, reason) = protocol.stream(&self.call(&empty, false), body.boxed_unsync()).await;
        EndpointResponse::reply(reply.map(|body| reply::with_permit(body, place)), reason)
    }

    fn answer_unread(&self, unread: &Unread) -> EndpointResponse {
        let denial = match unread {
            Unread::TooLong => Denial::BodyTooLarge,
            Unread::Undecided(denial) => *denial,
            Unread::Broken => Denial::MalformedRequest("the body ended early"),
            Unread::TooSlow => return EndpointResponse::reply(self.too_slow(), Reason::BODY_TOO_SLOW),
            Unread::Shed(refusal) => return self.shed(*refusal),
        };
        self.gate.tell_limited(&denial, || self.address);
        let empty = Bytes::new();
        self.refuse(&self.call(&empty, self.gate.origins.asked(&self.parts.headers)), denial)
    }

    fn too_slow(&self) -> Reply {
        if reply::is_grpc(&self.parts.headers) {
            return reply::grpc_status(reply::GrpcCode::DeadlineExceeded, "the request arrived too slowly");
        }
        let status = StatusCode::REQUEST_TIMEOUT;
        let worded = self.endpoint.dialect.protocol().and_then(|own| own.failed(status, "the body arrived too slowly"));
        worded.unwrap_or_else(|| reply::problem(status, None))
    }

    fn shed(&self, refusal: Refusal) -> EndpointResponse {
        let reply = overloaded(refusal, Some(&*self.endpoint.dialect), &self.parts.headers);
        EndpointResponse::reply(reply, Reason::shed(refusal))
    }

    fn refuse(&self, call: &Call<'_>, denial: Denial) -> EndpointResponse {
        EndpointResponse::reply(self.endpoint.dialect.write(call, Err(denial.into())), denial)
    }

    /// Returns whether a foreign page may have caused the request. This check covers session cookies, and token cookies
    /// in requests that may change something. A browser adds cookies to requests from any site (requirements T18 and
    /// B20).
    pub(super) fn is_by_foreign_cookie(&self) -> bool {
        let (sources, headers, policy) = (self.endpoint.dialect.sources(), &self.parts.headers, RoutePolicy::default());
        let has = |name| credential::cookies(headers, name).next().is_some();
        let by_session = sources.session && has(session_cookie::NAME) && !headers.contains_key(AUTHORIZATION);
        sources.cookie.is_some_and(has) && !self.gate.origins.admit(self.parts, &policy)
            || by_session && !self.gate.origins.admit_session(self.parts, &policy)
    }

    fn handler(&self, account: Option<&'a str>) -> EndpointHandler<'a> {
        let agent = self.parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        // Proofs and client certificates matter only at an OAuth token endpoint.
        let is_oauth = self.endpoint.dialect.protocol().is_some_and(|own| own.oauth("").is_some());
        EndpointHandler {
            gate: self.gate,
            endpoint: self.operation.endpoint,
            account,
            origin: Origin { address: self.address, user_agent: agent.map(shortened), note: RequestNote::open() },
            arrived: self.arrived,
            device: self.gate.presented_device(&self.parts.headers),
            proof: is_oauth.then(|| self.gate.presented_proof(self.parts)).flatten().map(Arc::new),
            certificate: is_oauth.then(|| certificate_of(self.parts)).flatten(),
            recipient: OnceLock::new(),
        }
    }

    fn finish(
        &self,
        call: &Call<'_>,
        handler: EndpointHandler<'_>,
        mut reply: Reply,
        reason: Reason,
    ) -> EndpointResponse {
        let recipient = handler.recipient.into_inner();
        // A reply to a safe method must not set cookies (requirement T25). Each dialect checks this too.
        let of_login = self.endpoint.browser.as_ref().is_some_and(|browser| browser.sets_cookies_at(call.operation));
        let may_set_cookie = (call.from_own_origin && !call.method.is_safe()) || of_login;
        if reply.headers().contains_key(SET_COOKIE) && !may_set_cookie {
            let dialect = &self.endpoint.dialect;
            tracing::error!(
                dialect = dialect.name(),
                "reply dropped: its dialect sets a cookie in response to a GET, or to a request without proof of its \
                 origin. Correct your own dialect; if the dialect is one of rotogate's, report this line"
            );
            let denial = Denial::CrossOrigin;
            return EndpointResponse::Reply(dialect.write(call, Err(denial.into())), denial.into(), recipient);
        }
        // A client with proofs of possession needs the latest nonce.
        if handler.proof.is_some()
            && let Some(nonce) = self.gate.dpop_nonce()
        {
            reply.headers_mut().insert(dpop::NONCE.clone(), nonce);
        }
        EndpointResponse::Reply(reply, reason, recipient)
    }
}

fn shortened(agent: &str) -> Box<str> {
    agent.chars().take(256).collect::<String>().into()
}
