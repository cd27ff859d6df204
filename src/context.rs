//! The request that the running task works for: its id and its client, for every line that it logs, and its trace. The
//! log layer of the server reads it. A library user's own subscriber has the spans instead.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use trace::Trace;

pub mod trace;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// `http.request.id`: generated here, or checked.
    pub id: HeaderValue,
    /// `client.address`.
    pub client: Option<IpAddr>,
    /// Who acts, if that is not a client.
    pub actor: Option<Actor>,
    /// The trace that it belongs to.
    pub trace: Trace,
}

/// An operator, or a user. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `rotogate.actor`: the name of the operator's token, or the user's subject.
    pub name: Arc<str>,
    /// `rotogate.actor.role`.
    pub role: &'static str,
    /// `rotogate.actor.via`: by which way the actor acts.
    pub via: &'static str,
}

tokio::task_local! {
    static CONTEXT: Context;
}

impl Context {
    /// The context of the running task.
    pub fn current() -> Option<Self> {
        CONTEXT.try_with(Self::clone).ok()
    }

    /// Calls `work` with the trace of the running task, without a copy of the rest.
    pub fn with_trace<T>(work: impl FnOnce(&Trace) -> T) -> Option<T> {
        CONTEXT.try_with(|context| work(&context.trace)).ok()
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

/// Runs a future in the context of the task that spawned it, if that had one.
pub async fn inherited<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context {
        Some(context) => CONTEXT.scope(context, work).await,
        None => work.await,
    }
}
