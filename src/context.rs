//! What is known of the request that the running task works for: its id and its client, for every line that it logs. The
//! log layer of the server asks for it; a library user's subscriber has the spans of its own instead.

use std::future::Future;
use std::net::IpAddr;

use http::HeaderValue;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// `http.request.id`: made by us, or checked.
    pub id: HeaderValue,
    /// `client.address`.
    pub client: Option<IpAddr>,
    /// `rotogate.actor`, where it is not a client.
    pub actor: Option<&'static str>,
}

tokio::task_local! {
    static CONTEXT: Context;
}

impl Context {
    /// That of the request that is worked for.
    pub fn current() -> Option<Self> {
        CONTEXT.try_with(Self::clone).ok()
    }

    /// Does something for the request.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CONTEXT.sync_scope(self, work)
    }

    /// A future that works for the request.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CONTEXT.scope(self, work)
    }
}

/// A task of its own that goes on working for the request of the one that makes it.
pub async fn inherited<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context {
        Some(context) => CONTEXT.scope(context, work).await,
        None => work.await,
    }
}
