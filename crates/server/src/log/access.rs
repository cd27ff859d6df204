//! The access log: one line for each request, written when its response body has ended. docs/logs.md lists the fields.
//!
//! The line is built as the request proceeds. The fields of the request head are written at once, so that the head need
//! not be kept; the others follow as they become known. Every request drops its line in the end, and dropping it writes
//! it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::exchange::ExchangeEnd;
use super::line::{LogLine, key};
use super::settings::{LogFormat, RouteLog, Sample};
use super::writer::Sink;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::gate::{Reason, Verdict, Who};
use rotogate::headers::Peer;
use rotogate::trace::Trace;

/// The access log of the process. It is never dropped: lines refer to it without a reference count.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(super) sink: Arc<Sink>,
    pub(super) format: LogFormat,
    pub(super) user_agent: bool,
    pub(super) sample: Sample,
    pub(super) routes: BTreeMap<Box<str>, RouteLog>,
    /// Lines about tokens of this issuer do not name the issuer.
    pub(super) own_issuer: String,
    pub(super) time: SystemTime,
}

/// The fields that all requests of a connection have in common, ready to be copied into their lines.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFields {
    fields: Arc<[u8]>,
    /// The length of the fields without the address of the client, which follows them.
    without_client: usize,
}

/// The head of a request as a line begins with it.
struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    host: Option<&'a HeaderValue>,
    user_agent: Option<&'a HeaderValue>,
    id: &'a HeaderValue,
    /// Since 1970.
    micros: u64,
    connection: &'a ConnectionFields,
    /// `None` if it is the peer.
    client: Option<IpAddr>,
}

/// The same, kept until it is known whether the request has a line. Clones share the memory of the request.
#[derive(Debug)]
struct UnsampledHead {
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    id: HeaderValue,
    micros: u64,
    connection: ConnectionFields,
    client: Option<IpAddr>,
}

impl UnsampledHead {
    fn of(head: &Head<'_>) -> Box<Self> {
        Box::new(Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            host: head.host.cloned(),
            user_agent: head.user_agent.cloned(),
            id: head.id.clone(),
            micros: head.micros,
            connection: head.connection.clone(),
            client: head.client,
        })
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            uri: &self.uri,
            version: self.version,
            host: self.host.as_ref(),
            user_agent: self.user_agent.as_ref(),
            id: &self.id,
            micros: self.micros,
            connection: &self.connection,
            client: self.client,
        }
    }
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
    /// Of a request that has a line only if it does not pass.
    unsampled: Option<Box<UnsampledHead>>,
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
        let head = Head {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            host: request.headers().get(HOST),
            user_agent: request.headers().get(USER_AGENT).filter(|_| self.user_agent),
            id,
            micros,
            connection,
            client,
        };
        let (line, unsampled) = match self.sample.takes() {
            true => (Some(self.head(&head)), None),
            false => (None, Some(UnsampledHead::of(&head))),
        };
        AccessLogLine { log: self, line, unsampled, began, is_answered: false, end: ExchangeEnd::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// Has a request with this result a line? It is `chosen` if the sample has it.
    fn wants(&self, chosen: bool, status: StatusCode, reason: Reason, verdict: Option<&Verdict>) -> bool {
        let is_good = reason == Reason::PASSED && (status.is_success() || status.is_redirection());
        let route = verdict.and_then(|verdict| verdict.route.as_ref()).filter(|_| !self.routes.is_empty());
        match route.and_then(|route| self.routes.get(route.id.as_str())) {
            Some(RouteLog::Nothing) => false,
            Some(RouteLog::Errors) => !is_good,
            None => chosen || !is_good,
        }
    }

    /// A line with the fields of a request head.
    fn head(&self, head: &Head<'_>) -> LogLine {
        let mut line = LogLine::new(self.format, head.micros);
        line.word(key!("event.dataset"), "rotogate.access");
        line.word(key!("http.request.id"), head.id);
        line.text(key!("http.request.method"), head.method.as_str());
        line.text(key!("url.path"), head.uri.path());
        let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        if let Some(host) = authority.or_else(|| head.host.map(HeaderValue::as_bytes)) {
            line.bytes(key!("server.address"), host);
        }
        match head.version {
            Version::HTTP_2 => line.word(key!("network.protocol.version"), "2"),
            Version::HTTP_10 => line.word(key!("network.protocol.version"), "1.0"),
            _ => line.word(key!("network.protocol.version"), "1.1"),
        }
        match head.client {
            None => line.add(&head.connection.fields),
            Some(client) => {
                line.add(head.connection.fields.get(..head.connection.without_client).unwrap_or_default());
                line.address(key!("client.address"), client);
            }
        }
        if let Some(agent) = head.user_agent {
            line.bytes(key!("user_agent.original"), agent.as_bytes());
        }
        line
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl AccessLogLine {
    /// Adds the trace.
    pub(crate) fn set_trace(&mut self, trace: &Trace) {
        if let Some(line) = &mut self.line {
            trace.log(|key, value| line.word(key, value));
        }
    }

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
        let unsampled = self.unsampled.take();
        if !self.log.wants(unsampled.is_none(), status, reason, verdict) {
            self.line = None;
            return;
        }
        if let Some(head) = unsampled {
            self.line = Some(self.log.head(&head.head()));
        }
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
        // A client that was gone before the response is an error.
        let late = self.unsampled.take().map(|head| self.log.head(&head.head()));
        let Some(mut line) = self.line.take().or(late) else { return };
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
