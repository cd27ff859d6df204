//! The context of the current request: its id, client and trace. The server's log layer reads this context.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use trace::Trace;

pub mod trace;

/// Marks a header value that HTTP/2 must not index. Otherwise a client could infer values of other clients from message
/// lengths (RFC 7541 §7.1.3).
pub fn unindexed(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The context of a request. A context must be cheap to clone and move, because each poll of the request sets it.
#[derive(Clone, Debug)]
pub struct Context(Arc<ContextInner>);

#[derive(Clone, Debug)]
struct ContextInner {
    id: HeaderValue,
    client: Option<IpAddr>,
    actor: Option<Actor>,
    trace: Trace,
}

/// The operator or user who performs an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The value of `rotogate.actor`.
    pub name: Arc<str>,
    /// The value of `rotogate.actor.role`.
    pub role: &'static str,
    /// The value of `rotogate.actor.via`: the actor's interface.
    pub via: &'static str,
}

const APPLICATION: &str = "application";
const LONGEST_NAME: usize = 256;

impl Actor {
    /// Creates an actor that the application names. The name may come from an untrusted source.
    pub fn named_by_application(name: &str) -> Self {
        let mut shown = String::new();
        for c in name.chars().take(LONGEST_NAME) {
            if is_deceptive(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
        }
        Self { name: shown.into(), role: APPLICATION, via: APPLICATION }
    }
}

/// Returns whether a character can split a log line, affect a terminal or hide text.
#[inline]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

tokio::task_local! {
    static CONTEXT: Context;
}

impl Context {
    /// Creates the context of a request.
    pub fn new(id: HeaderValue, client: IpAddr, trace: Trace) -> Self {
        Self(Arc::new(ContextInner { id, client: Some(client), actor: None, trace }))
    }

    /// Creates the context for work without a request.
    pub fn without_request() -> Self {
        let id = HeaderValue::from_static("-");
        Self(Arc::new(ContextInner { id, client: None, actor: None, trace: Trace::default() }))
    }

    /// Sets the actor.
    #[must_use]
    pub fn acted_by(self, actor: Actor) -> Self {
        self.with(|facts| facts.actor = Some(actor))
    }

    /// Sets the trace.
    #[must_use]
    pub fn traced_by(self, trace: Trace) -> Self {
        self.with(|facts| facts.trace = trace)
    }

    fn with(mut self, change: impl FnOnce(&mut ContextInner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The value of `http.request.id`.
    pub fn id(&self) -> &HeaderValue {
        &self.0.id
    }

    /// The value of `client.address`.
    pub fn client(&self) -> Option<IpAddr> {
        self.0.client
    }

    /// The operator or user who performs the action.
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actor.as_ref()
    }

    /// The trace of the request.
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// The context of the current task.
    pub fn current() -> Option<Self> {
        CONTEXT.try_with(Self::clone).ok()
    }

    /// Calls `work` with the trace of the current task.
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

/// Runs a future in an optional context.
pub async fn inherited<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context {
        Some(context) => CONTEXT.scope(context, work).await,
        None => work.await,
    }
}
