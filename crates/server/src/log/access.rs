//! The access log: one line for each request, written when its response body has ended. docs/logs.md lists the fields.
//!
//! The line is built as the request proceeds. The fields of the request head are written at once, so that the head need
//! not be kept; the others follow as they become known. Every request drops its line in the end, and dropping it writes
//! it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Version};

use super::exchange::ExchangeEnd;
use super::line::{LogLine, key};
use super::settings::LogFormat;
use super::writer::Sink;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::gate::{Reason, Verdict, Who};
use rotogate::headers::Peer;

/// The access log of the process. It is never dropped: lines refer to it without a reference count.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(super) sink: Arc<Sink>,
    pub(super) format: LogFormat,
    pub(super) user_agent: bool,
    /// Lines about tokens of this issuer do not name the issuer.
    pub(super) own_issuer: String,
    pub(super) time: SystemTime,
}

/// The fields that all requests of a connection have in common, ready to be copied into their lines.
#[derive(Debug)]
pub(crate) struct ConnectionFields {
    fields: Box<[u8]>,
    /// The length of the fields without the address of the client, which follows them.
    without_client: usize,
}

/// What the proxy did with a request.
pub(crate) struct UpstreamInfo<'a> {
    pub(crate) upstream: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
    pub(crate) attempts: u8,
    pub(crate) took: Duration,
}

/// The line of one request. Dropping it writes it.
#[derive(Debug)]
pub(crate) struct AccessLogLine {
    log: &'static AccessLog,
    line: Option<LogLine>,
    began: Duration,
    is_answered: bool,
    /// How the exchange ended, or nothing of it if the client was gone before.
    end: ExchangeEnd,
}

impl AccessLog {
    /// The fields of a connection. `proxied_by` is the proxy that named the peer by a PROXY header, and `tls` the version
    /// of TLS.
    pub(crate) fn connection(
        &self,
        peer: &Peer,
        proxied_by: Option<IpAddr>,
        tls: Option<&'static str>,
    ) -> ConnectionFields {
        let mut line = LogLine::fields(self.format);
        line.word(key!("url.scheme"), peer.scheme());
        if let Some(tls) = tls {
            line.word(key!("tls.protocol.version"), tls);
        }
        match proxied_by {
            Some(proxy) => line.address(key!("network.peer.address"), proxy),
            None => line.word(key!("network.peer.address"), peer.text()),
        }
        let without_client = line.written().len();
        line.word(key!("client.address"), peer.text());
        ConnectionFields { fields: line.written().into(), without_client }
    }

    /// Begins a line with the fields of the request head. `micros` is the time since 1970, `began` that of
    /// [`TimeSource::monotonic`]. `client` is `None` if it is the peer.
    pub(crate) fn begin<B>(
        &'static self,
        request: &Request<B>,
        id: &HeaderValue,
        (micros, began): (u64, Duration),
        (connection, client): (&ConnectionFields, Option<IpAddr>),
    ) -> AccessLogLine {
        let mut line = LogLine::new(self.format, micros);
        line.word(key!("event.dataset"), "rotogate.access");
        line.word(key!("http.request.id"), id);
        line.text(key!("http.request.method"), request.method().as_str());
        line.text(key!("url.path"), request.uri().path());
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        if let Some(host) = authority.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes)) {
            line.bytes(key!("server.address"), host);
        }
        match request.version() {
            Version::HTTP_2 => line.word(key!("network.protocol.version"), "2"),
            Version::HTTP_10 => line.word(key!("network.protocol.version"), "1.0"),
            _ => line.word(key!("network.protocol.version"), "1.1"),
        }
        match client {
            None => line.add(&connection.fields),
            Some(client) => {
                line.add(connection.fields.get(..connection.without_client).unwrap_or_default());
                line.address(key!("client.address"), client);
            }
        }
        if self.user_agent
            && let Some(agent) = request.headers().get(USER_AGENT)
        {
            line.bytes(key!("user_agent.original"), agent.as_bytes());
        }
        AccessLogLine { log: self, line: Some(line), began, is_answered: false, end: ExchangeEnd::default() }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl AccessLogLine {
    /// Adds the fields of the response head, which came at `now` of [`TimeSource::monotonic`].
    pub(crate) fn set_response(
        &mut self,
        now: Duration,
        status: StatusCode,
        reason: Reason,
        verdict: Option<&Verdict>,
        sent: Option<&UpstreamInfo<'_>>,
    ) {
        let took = now.saturating_sub(self.began);
        let Some(line) = &mut self.line else { return };
        self.is_answered = true;
        line.number(key!("http.response.status_code"), u64::from(status.as_u16()));
        line.word(key!("rotogate.outcome"), reason.word());
        if let Some(detail) = reason.detail() {
            line.own(key!("rotogate.detail"), detail);
        }
        if let Some(verdict) = verdict {
            if let Some(route) = &verdict.route {
                line.own(key!("rotogate.route"), route.id.as_str());
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
                        line.number(key!("rotogate.generation"), generation.get());
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
                        ("user.id", &says.subject),
                        ("rotogate.client.id", &says.client),
                        ("session.id", &says.session),
                        ("rotogate.token.id", &says.token_id),
                        ("rotogate.token.kid", &says.kid),
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
                Some(_) | None => {}
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

    /// Writes the line at the beginning of a stream or a tunnel.
    pub(crate) fn begin_stream(&self) {
        if let Some(line) = &self.line {
            let mut begin = line.copy();
            begin.word(key!("rotogate.phase"), "begin");
            begin.end(|bytes| self.log.sink.access(bytes));
        }
    }

    /// Completes the line with the end of the exchange.
    pub(crate) fn finish(mut self, end: ExchangeEnd) {
        self.end = end;
    }
}

impl Drop for AccessLogLine {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        if !self.is_answered {
            line.word(key!("rotogate.outcome"), Reason::CLIENT_GONE.word());
        }
        if let Some(status) = self.end.grpc {
            line.number(key!("rpc.grpc.status_code"), status);
        }
        line.number(key!("event.duration"), nanos(self.log.time.monotonic().saturating_sub(self.began)));
        line.number(key!("http.request.body.size"), self.end.received);
        line.number(key!("http.response.body.size"), self.end.sent);
        line.word(key!("rotogate.end"), self.end.end);
        if self.end.is_stream {
            line.word(key!("rotogate.phase"), "end");
        }
        line.end(|bytes| self.log.sink.access(bytes));
    }
}
