//! The context of the request for which the running task works: its id and its client for the task's log lines, and its
//! trace. The server's log layer reads it. Applications that embed the library use spans instead.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use trace::Trace;

pub mod trace;

/// Marks a header value that belongs to one caller or one request, so that HTTP/2 does not index it. If clients share a
/// connection to the upstream, a client could otherwise infer the values of other clients from the lengths of messages
/// (RFC 7541 §7.1.3). An unindexed value also does not evict frequently used values from the table.
pub fn unindexed(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The context of a request. Cloning and moving a context must be cheap, because the context is set each time the
/// request's future is polled.
#[derive(Clone, Debug)]
pub struct Context(Arc<ContextInner>);

#[derive(Clone, Debug)]
struct ContextInner {
    id: HeaderValue,
    client: Option<IpAddr>,
    actor: Option<Actor>,
    trace: Trace,
}

/// The operator or user who performs an action. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `rotogate.actor`: the name of the operator's token, the user's subject, or the name that an application passed.
    pub name: Arc<str>,
    /// `rotogate.actor.role`.
    pub role: &'static str,
    /// `rotogate.actor.via`: the interface that the actor uses.
    pub via: &'static str,
}

/// The `rotogate.actor.role` and `rotogate.actor.via` of an actor whom an application names.
const APPLICATION: &str = "application";
/// The maximum length of the name of an actor whom an application names, in characters.
const LONGEST_NAME: usize = 256;

impl Actor {
    /// An actor whom the application names. The name may come from an untrusted source.
    pub fn named_by_application(name: &str) -> Self {
        let mut shown = String::new();
        for c in name.chars().take(LONGEST_NAME) {
            if is_deceptive(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
        }
        Self { name: shown.into(), role: APPLICATION, via: APPLICATION }
    }
}

/// Returns whether a character can split a log line, affect a terminal or hide text. These are control characters, line
/// separators, marks of writing direction, and invisible characters.
#[inline]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

tokio::task_local! {
    static CONTEXT: Context;
}

impl Context {
    /// Creates the context of a request with this id, from this address.
    pub fn new(id: HeaderValue, client: IpAddr, trace: Trace) -> Self {
        Self(Arc::new(ContextInner { id, client: Some(client), actor: None, trace }))
    }

    /// The context for work in an application that has not set a context.
    pub fn without_request() -> Self {
        let id = HeaderValue::from_static("-");
        Self(Arc::new(ContextInner { id, client: None, actor: None, trace: Trace::default() }))
    }

    /// The same context with this actor.
    #[must_use]
    pub fn acted_by(self, actor: Actor) -> Self {
        self.with(|facts| facts.actor = Some(actor))
    }

    /// The same context in this step of the request's trace.
    #[must_use]
    pub fn traced_by(self, trace: Trace) -> Self {
        self.with(|facts| facts.trace = trace)
    }

    fn with(mut self, change: impl FnOnce(&mut ContextInner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// `http.request.id`, which the gate either generated, or took from the request and checked.
    pub fn id(&self) -> &HeaderValue {
        &self.0.id
    }

    /// `client.address`.
    pub fn client(&self) -> Option<IpAddr> {
        self.0.client
    }

    /// The operator or user who acts, unless a client acts.
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actor.as_ref()
    }

    /// The trace to which the request belongs.
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// The context of the running task.
    pub fn current() -> Option<Self> {
        CONTEXT.try_with(Self::clone).ok()
    }

    /// Calls `work` with the trace of the running task, without copying the rest of the context.
    pub fn with_trace<T>(work: impl FnOnce(&Trace) -> T) -> Option<T> {
        CONTEXT.try_with(|context| work(context.trace())).ok()
    }

    /// Runs `work` in this context.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CONTEXT.sync_scope(self, work)
    }

    /// Runs a future in this context.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CONTEXT.scope(self, work)
    }
}

/// Runs a future in the context of the task that spawned it, if that task had a context.
pub async fn inherited<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context {
        Some(context) => CONTEXT.scope(context, work).await,
        None => work.await,
    }
}
