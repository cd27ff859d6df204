//! The access log, with one line per request. docs/logs.md lists the fields.
//!
//! Fields are added as they become known, so that the request head need not be kept. Dropping a line writes it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Version};

use super::line::{Bare, LogLine, key};
use super::writer::Sink;
use rotogate::gate::{Reason, Verdict, Who};
use rotogate_config::{LogFormat, RouteLog, Sample};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::headers::Peer;
use rotogate_core::trace::Trace;
use rotogate_kit::exchange::ExchangeEnd;

/// The log is never dropped, so that lines can borrow it.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(super) sink: Arc<Sink>,
    pub(super) format: LogFormat,
    /// Whether lines are written in the short form for a terminal.
    pub(super) is_short: bool,
    pub(super) sample: Sample,
    pub(super) routes: BTreeMap<Box<str>, RouteLog>,
    pub(super) own_issuer: String,
    pub(super) time: SystemTime,
}

/// The log fields that all requests of a connection share.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFields {
    fields: Arc<[u8]>,
    /// The length without the client's address, which comes last.
    without_client: usize,
}

struct Head<'a> {
    method: &'a [u8],
    path: &'a [u8],
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    id: &'a [u8],
    version: Version,
    micros: u64,
    connection: &'a [u8],
    /// `None` if `connection` already contains the client's address.
    client: Option<IpAddr>,
}

/// A copy of a request's head as bytes, which is cheaper than a clone of the request's parts.
#[derive(Debug)]
struct RawHead {
    /// The end positions of method, path, host, user agent and id. The connection's fields follow.
    ends: [usize; 5],
    has_host: bool,
    has_user_agent: bool,
    version: Version,
    micros: u64,
}

impl RawHead {
    fn copy(head: &Head<'_>, raw: &mut LogLine) -> Self {
        let parts =
            [head.method, head.path, head.host.unwrap_or_default(), head.user_agent.unwrap_or_default(), head.id];
        let ends = parts.map(|part| {
            raw.add(part);
            raw.written().len()
        });
        raw.add(head.connection);
        if let Some(client) = head.client {
            raw.address(key!("client.address"), client);
        }
        Self {
            ends,
            has_host: head.host.is_some(),
            has_user_agent: head.user_agent.is_some(),
            version: head.version,
            micros: head.micros,
        }
    }

    fn read<'a>(&self, raw: &'a [u8]) -> Head<'a> {
        let [method, path, host, user_agent, id] = self.ends;
        let part = |from: usize, to: usize| raw.get(from..to).unwrap_or_default();
        Head {
            method: part(0, method),
            path: part(method, path),
            host: self.has_host.then(|| part(path, host)),
            user_agent: self.has_user_agent.then(|| part(host, user_agent)),
            id: part(user_agent, id),
            version: self.version,
            micros: self.micros,
            connection: part(id, raw.len()),
            client: None,
        }
    }
}

pub(crate) struct UpstreamFields<'a> {
    pub(crate) upstream: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
    pub(crate) attempts: u8,
    pub(crate) took: Duration,
}

#[derive(Debug)]
pub(crate) struct AccessLogLine {
    log: &'static AccessLog,
    line: Option<LogLine>,
    /// The head of an unsampled request, which is logged only if it fails.
    unsampled: Option<RawHead>,
    began: Duration,
    is_answered: bool,
    /// How the exchange ended. The default applies if the client disconnected early.
    end: ExchangeEnd,
}

impl AccessLog {
    /// `proxied_by` is the proxy that sent a PROXY header.
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

    /// Begins a line. `micros` is the time since 1970. `client` is `None` if the peer is the client.
    pub(crate) fn begin<B>(
        &'static self,
        request: &Request<B>,
        id: &HeaderValue,
        (micros, began): (u64, Duration),
        (connection, client): (&ConnectionFields, Option<IpAddr>),
    ) -> AccessLogLine {
        let uri = request.uri();
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
        let user_agent = request.headers().get(USER_AGENT);
        let of_connection = match client {
            None => &connection.fields[..],
            Some(_) => connection.fields.get(..connection.without_client).unwrap_or_default(),
        };
        let head = Head {
            method: request.method().as_str().as_bytes(),
            path: uri.path().as_bytes(),
            host: uri.authority().map(|authority| authority.as_str().as_bytes()).or(host),
            user_agent: user_agent.map(HeaderValue::as_bytes),
            id: id.as_bytes(),
            version: request.version(),
            micros,
            connection: of_connection,
            client,
        };
        let (line, unsampled) = if self.sample.takes() {
            (self.head(&head), None)
        } else {
            let mut raw = LogLine::fields(self.format);
            let unsampled = RawHead::copy(&head, &mut raw);
            (raw, Some(unsampled))
        };
        AccessLogLine { log: self, line: Some(line), unsampled, began, is_answered: false, end: ExchangeEnd::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// `chosen` is true if the request is in the sample.
    fn wants(&self, chosen: bool, status: StatusCode, reason: Reason, verdict: Option<&Verdict>) -> bool {
        let is_good = reason == Reason::PASSED && (status.is_success() || status.is_redirection());
        let route = verdict.and_then(|verdict| verdict.route.as_ref()).filter(|_| !self.routes.is_empty());
        match route.and_then(|route| self.routes.get(&*route.id)) {
            Some(RouteLog::Nothing) => false,
            Some(RouteLog::Errors) => !is_good,
            None => chosen || !is_good,
        }
    }

    fn head(&self, head: &Head<'_>) -> LogLine {
        if self.is_short {
            let mut line = LogLine::fields(LogFormat::Text);
            line.bytes(Bare, head.method);
            line.bytes(Bare, &super::without_key(head.path));
            return line;
        }
        let mut line = LogLine::new(self.format, head.micros);
        line.word(key!("event.dataset"), "rotogate.access");
        line.word(key!("http.request.id"), head.id);
        line.bytes(key!("http.request.method"), head.method);
        line.bytes(key!("url.path"), &super::without_key(head.path));
        if let Some(host) = head.host {
            line.bytes(key!("server.address"), host);
        }
        match head.version {
            Version::HTTP_2 => line.word(key!("network.protocol.version"), "2"),
            Version::HTTP_10 => line.word(key!("network.protocol.version"), "1.0"),
            _ => line.word(key!("network.protocol.version"), "1.1"),
        }
        line.add(head.connection);
        if let Some(client) = head.client {
            line.address(key!("client.address"), client);
        }
        if let Some(agent) = head.user_agent {
            line.bytes(key!("user_agent.original"), agent);
        }
        line
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add_who(line: &mut LogLine, who: &Who, own_issuer: &str) {
    match who {
        Who::Caller(caller) => {
            line.text(key!("user.id"), caller.subject());
            if caller.issuer() != own_issuer {
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
        Who::Issued(recipient) => {
            line.text(key!("user.id"), &recipient.subject);
            if let Some(client) = &recipient.client {
                line.text(key!("rotogate.client.id"), client);
            }
            if let Some(session) = recipient.session {
                line.session(key!("session.id"), session);
            }
        }
        Who::HeldUp(held_up) => {
            if let Some(subject) = &held_up.subject {
                line.text(key!("user.id"), subject);
            }
            if let Some(session) = held_up.session {
                line.session(key!("session.id"), session);
            }
            if let Some(client) = &held_up.client {
                line.text(key!("rotogate.client.id"), client);
            }
            if let Some(account) = &held_up.account {
                line.text(key!("rotogate.account"), account);
            }
        }
        Who::Refused(refused) => {
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
            if let Some(issuer) = says.issuer.as_deref().filter(|issuer| *issuer != own_issuer) {
                line.text(key!("rotogate.issuer"), issuer);
            }
            if !refused.is_proved {
                line.flag(key!("rotogate.token.unverified"), true);
            }
        }
    }
}

/// Returns the client, or the subject if there is no client.
fn short_name(who: &Who) -> Option<&str> {
    let (client, subject) = proved_names(who);
    client.or(subject)
}

/// Returns the client and the subject. An unverified token identifies nobody.
pub(super) fn proved_names(who: &Who) -> (Option<&str>, Option<&str>) {
    match who {
        Who::Caller(caller) => (caller.client(), Some(caller.subject())),
        Who::Issued(recipient) => (recipient.client.as_deref(), Some(&*recipient.subject)),
        Who::HeldUp(held_up) => (held_up.client.as_deref(), held_up.subject.as_deref()),
        Who::Refused(refused) if refused.is_proved => (refused.says.client.as_deref(), refused.says.subject.as_deref()),
        Who::Refused(_) => (None, None),
    }
}

/// `took` is the time to the response head.
fn add_upstream(line: &mut LogLine, sent: &UpstreamFields<'_>, took: Duration) {
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

impl AccessLogLine {
    fn write_head(&mut self) {
        if let (Some(head), Some(raw)) = (self.unsampled.take(), &mut self.line) {
            *raw = self.log.head(&head.read(raw.written()));
        }
    }

    pub(crate) fn set_trace(&mut self, trace: &Trace) {
        if let Some(line) = self.line.as_mut().filter(|_| !self.log.is_short) {
            trace.log(|key, value| line.word(key, value));
        }
    }

    /// `now` is the time of [`TimeSource::monotonic`].
    pub(crate) fn set_response(
        &mut self,
        now: Duration,
        status: StatusCode,
        reason: Reason,
        verdict: Option<&Verdict>,
        sent: Option<&UpstreamFields<'_>>,
    ) {
        let took = now.saturating_sub(self.began);
        if !self.log.wants(self.unsampled.is_none(), status, reason, verdict) {
            (self.line, self.unsampled) = (None, None);
            return;
        }
        self.write_head();
        let Some(line) = &mut self.line else { return };
        self.is_answered = true;
        if self.log.is_short {
            line.number(Bare, u64::from(status.as_u16()));
            line.word(Bare, reason.word());
            if let Some(name) = verdict.and_then(Verdict::who).and_then(short_name) {
                line.text(Bare, name);
            }
            return;
        }
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
            if let Some((dialect, operation)) = verdict.operation() {
                line.word(key!("rotogate.dialect"), dialect);
                line.own(key!("rotogate.operation"), operation);
            }
            if let Some(who) = verdict.who() {
                add_who(line, who, &self.log.own_issuer);
            }
        }
        line.number(key!("rotogate.duration.head"), nanos(took));
        if let Some(sent) = sent {
            add_upstream(line, sent, took);
        }
    }

    pub(crate) fn begin_stream(&self) {
        if let Some(line) = &self.line {
            let mut begin = line.copy();
            begin.word(key!("rotogate.phase"), "begin");
            begin.end(|bytes| self.log.sink.access(bytes));
        }
    }

    pub(crate) fn finish(mut self, end: ExchangeEnd) {
        self.end = end;
    }
}

impl Drop for AccessLogLine {
    fn drop(&mut self) {
        // A request whose client disconnected before the response counts as failed.
        self.write_head();
        let Some(mut line) = self.line.take() else { return };
        let took = self.log.time.monotonic().saturating_sub(self.began);
        if self.log.is_short {
            if !self.is_answered {
                line.word(Bare, Reason::CLIENT_GONE.word());
            }
            line.number(Bare, nanos(took) / 1_000_000);
            line.raw(" ms");
            return line.end(|bytes| self.log.sink.access(bytes));
        }
        if !self.is_answered {
            line.word(key!("rotogate.outcome"), Reason::CLIENT_GONE.word());
        }
        if let Some(status) = self.end.grpc {
            line.number(key!("rpc.grpc.status_code"), status);
        }
        line.number(key!("event.duration"), nanos(took));
        line.number(key!("http.request.body.size"), self.end.received);
        line.number(key!("http.response.body.size"), self.end.sent);
        line.word(key!("rotogate.end"), self.end.end);
        if self.end.is_stream {
            line.word(key!("rotogate.phase"), "end");
        }
        line.end(|bytes| self.log.sink.access(bytes));
    }
}
