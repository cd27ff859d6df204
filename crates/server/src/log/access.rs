//! The access log: a line for each request, written when the body of its reply has ended. docs/logs.md lists the fields.
//!
//! The line is made as the request goes: what its head says at once, so that nothing of it need be kept, the rest when it
//! is known. Whatever becomes of a request, its entry is dropped in the end, and that writes the line.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Version};

use super::exchange::Answered;
use super::line::{Line, key};
use super::settings::LogFormat;
use super::writer::Sink;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::gate::{Reason, Verdict, Who};
use rotogate::headers::Peer;

/// A reply of unknown length that lasts longer is a stream.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// See the module. There is one, for as long as the process runs: entries refer to it without counting.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(super) sink: Arc<Sink>,
    pub(super) format: LogFormat,
    pub(super) user_agent: bool,
    /// Whose tokens need no mention of their issuer.
    pub(super) own_issuer: String,
    pub(super) time: SystemTime,
}

/// The connection that a request came over.
pub(crate) struct Over<'a> {
    pub(crate) peer: &'a Peer,
    /// Where it is not the peer.
    pub(crate) client: Option<IpAddr>,
    pub(crate) scheme: &'static str,
    pub(crate) tls: Option<&'static str>,
}

/// What the proxy did with a request.
pub(crate) struct Sent<'a> {
    pub(crate) upstream: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
    pub(crate) attempts: u8,
    pub(crate) took: Duration,
}

/// One request. Dropped, it is written.
#[derive(Debug)]
pub(crate) struct Entry {
    log: &'static AccessLog,
    line: Option<Line>,
    began: Duration,
    is_answered: bool,
    is_stream: bool,
    /// The line of its beginning is written.
    is_told: bool,
    /// Where the bytes of the request's body are counted.
    received: Option<Answered>,
    sent: u64,
    grpc: Option<HeaderValue>,
    end: &'static str,
}

impl AccessLog {
    /// Begins a line with what the head of a request says.
    pub(crate) fn begin<B>(
        &'static self,
        request: &Request<B>,
        id: &HeaderValue,
        micros: u64,
        over: &Over<'_>,
        received: Option<Answered>,
    ) -> Entry {
        let mut line = Line::new(self.format, micros);
        line.word(key!("event.dataset"), "rotogate.access");
        line.word(key!("http.request.id"), id);
        line.text(key!("http.request.method"), request.method().as_str());
        line.text(key!("url.path"), request.uri().path());
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        if let Some(host) = authority.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes)) {
            line.bytes(key!("server.address"), host);
        }
        line.word(key!("url.scheme"), over.scheme);
        line.word(
            key!("network.protocol.version"),
            match request.version() {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
        );
        if let Some(tls) = over.tls {
            line.word(key!("tls.protocol.version"), tls);
        }
        match over.client {
            Some(client) => line.address(key!("client.address"), client),
            None => line.word(key!("client.address"), over.peer.text()),
        }
        line.word(key!("network.peer.address"), over.peer.text());
        if let Some(agent) = request.headers().get(USER_AGENT).filter(|_| self.user_agent) {
            line.bytes(key!("user_agent.original"), agent.as_bytes());
        }
        Entry {
            log: self,
            line: Some(line),
            began: self.time.monotonic(),
            is_answered: false,
            is_stream: false,
            is_told: false,
            received,
            sent: 0,
            grpc: None,
            end: "client_gone",
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Entry {
    /// There is a reply.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        reason: Reason,
        verdict: Option<&Verdict>,
        sent: Option<&Sent<'_>>,
    ) {
        let took = self.log.time.monotonic().saturating_sub(self.began);
        let Some(line) = &mut self.line else { return };
        self.is_answered = true;
        line.number(key!("http.response.status_code"), u64::from(status.as_u16()));
        line.word(key!("rotogate.outcome"), reason.word());
        if let Some(detail) = reason.detail() {
            line.own(key!("rotogate.detail"), detail);
        }
        if let Some(verdict) = verdict {
            if let Some(route) = &verdict.route {
                line.own(key!("rotogate.route"), &route.id);
                line.own(key!("http.route"), &route.path);
            }
            if let Some(operation) = verdict.operation {
                line.word(key!("rotogate.dialect"), operation.dialect);
                line.own(key!("rotogate.operation"), operation.name);
            }
            match &verdict.who {
                Some(Who::Caller(caller)) => {
                    line.text(key!("user.id"), caller.subject());
                    if caller.issuer() != self.log.own_issuer {
                        line.text(key!("rotogate.issuer"), caller.issuer());
                    }
                    if let Some(client) = caller.client() {
                        line.text(key!("rotogate.client.id"), client);
                    }
                    if let Some(account) = caller.account() {
                        line.text(key!("rotogate.account"), account);
                    }
                    if let (Some(session), Some(generation)) = (caller.session(), caller.generation()) {
                        line.session(key!("session.id"), session);
                        line.number(key!("rotogate.generation"), generation);
                    }
                }
                Some(Who::Issued(recipient)) => {
                    line.text(key!("user.id"), &recipient.subject);
                    if let Some(session) = recipient.session {
                        line.session(key!("session.id"), session);
                    }
                }
                Some(Who::Refused(refused)) => {
                    let says = &refused.says;
                    for (key, text) in [
                        (key!("user.id"), &says.subject),
                        (key!("rotogate.client.id"), &says.client),
                        (key!("session.id"), &says.session),
                        (key!("rotogate.token.id"), &says.token_id),
                        (key!("rotogate.token.kid"), &says.kid),
                    ] {
                        if let Some(text) = text.as_deref() {
                            line.text(key, text);
                        }
                    }
                    if let Some(issuer) = says.issuer.as_deref().filter(|issuer| *issuer != self.log.own_issuer) {
                        line.text(key!("rotogate.issuer"), issuer);
                    }
                    if !refused.is_proved {
                        line.flag(key!("rotogate.token.unverified"), true);
                    }
                }
                None => {}
            }
        }
        line.number(key!("rotogate.duration.head"), nanos(took));
        if let Some(sent) = sent {
            if let Some(upstream) = sent.upstream {
                line.own(key!("rotogate.upstream"), upstream);
            }
            if let Some(address) = sent.address {
                line.word(key!("upstream.address"), address);
            }
            if sent.attempts > 0 {
                line.number(key!("rotogate.upstream.attempts"), u64::from(sent.attempts));
                line.number(key!("rotogate.duration.upstream"), nanos(sent.took));
                line.number(key!("rotogate.duration.gate"), nanos(took.saturating_sub(sent.took)));
            }
        }
    }

    /// The reply is a stream, or a tunnel, which is told of when it begins.
    pub(crate) fn begins(&mut self) {
        self.is_stream = true;
        if self.is_told {
            return;
        }
        self.is_told = true;
        if let Some(line) = &self.line {
            let mut begin = line.copy();
            begin.word(key!("rotogate.phase"), "begin");
            begin.end(|bytes| self.log.sink.access(bytes));
        }
    }

    /// A reply of unknown length goes on.
    pub(crate) fn goes_on(&mut self) {
        if !self.is_told && self.log.time.monotonic().saturating_sub(self.began) > STREAM_AFTER {
            self.begins();
        }
    }

    /// So much of the reply was handed on.
    pub(crate) fn sends(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// The status of a gRPC reply.
    pub(crate) fn grpc(&mut self, status: Option<&HeaderValue>) {
        if let Some(status) = status {
            self.grpc = Some(status.clone());
        }
    }

    /// Why it ends, as far as is known.
    pub(crate) fn ends(&mut self, end: &'static str) {
        self.end = end;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        if !self.is_answered {
            line.word(key!("rotogate.outcome"), Reason::CLIENT_GONE.word());
        }
        if let Some(status) = self.grpc.as_ref().and_then(|status| status.to_str().ok()?.parse().ok()) {
            line.number(key!("rpc.grpc.status_code"), status);
        }
        line.number(key!("event.duration"), nanos(self.log.time.monotonic().saturating_sub(self.began)));
        let received = self.received.as_ref().map_or(0, Answered::received);
        line.number(key!("http.request.body.size"), received);
        line.number(key!("http.response.body.size"), self.sent);
        line.word(key!("rotogate.end"), self.end);
        if self.is_stream {
            line.word(key!("rotogate.phase"), "end");
        }
        line.end(|bytes| self.log.sink.access(bytes));
    }
}

/// In the extensions of a request that asks for an upgrade: whoever carries the tunnel holds it, and says why it ended.
/// When the last one lets go of it, the tunnel is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnel(Arc<Mutex<Option<Entry>>>);

impl Tunnel {
    /// There is a tunnel from now on.
    pub(crate) fn begins(&self, mut entry: Entry) {
        entry.begins();
        entry.ends("complete");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    }

    /// Why it ends.
    pub(crate) fn ends(&self, end: &'static str) {
        if let Some(entry) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            entry.ends(end);
        }
    }
}
