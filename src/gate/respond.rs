//! The reply to a refused request on a data route: in the format of a dialect, in the application's format, or in plain
//! form. Endpoints use the format of their own dialect instead.

use std::sync::Arc;

use bytes::Bytes;
#[cfg(feature = "axum")]
use http::Extensions;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, Response};

use crate::dialect::Dialect;
use rotogate_core::denial::Denial;
pub(crate) use rotogate_core::refusal::{ChallengeParams, denied, denied_grpc};
use rotogate_core::reply::{self, Reply};

type Hook = dyn Fn(&Denial, &Parts) -> Option<Response<Bytes>> + Send + Sync;

/// The application's hook for refused requests. See [`GateBuilder::refusals`](super::GateBuilder::refusals).
#[derive(Clone)]
pub(crate) struct RefusalHook(Arc<Hook>);

rotogate_core::debug_with!(RefusalHook);

impl RefusalHook {
    pub(super) fn new<B: Into<Bytes>>(
        reply: impl Fn(&Denial, &Parts) -> Option<Response<B>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |denial, parts| Some(reply(denial, parts)?.map(Into::into))))
    }

    /// Returns the hook of the gate that admitted the request with these extensions.
    #[cfg(feature = "axum")]
    pub(super) fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Returns the application's reply, with the headers that clients rely on, or the plain reply if the hook does not
    /// return one.
    fn instead_of(&self, plain: Reply, denial: Denial, parts: &Parts) -> Reply {
        let Some(own) = (self.0)(&denial, parts) else { return plain };
        let mut reply = own.map(Into::into);
        for name in [WWW_AUTHENTICATE, ALLOW, RETRY_AFTER, CACHE_CONTROL, CONNECTION] {
            if !reply.headers().contains_key(&name) {
                for value in plain.headers().get_all(&name) {
                    reply.headers_mut().append(name.clone(), value.clone());
                }
            }
        }
        reply
    }
}

/// Makes the reply to a refused request: a gRPC status, the hook's reply, or the plain reply.
#[cfg(any(feature = "axum", test))]
pub(super) fn refused(hook: Option<&RefusalHook>, parts: &Parts, denial: Denial, asked: &ChallengeParams<'_>) -> Reply {
    hooked(hook, parts, denial, plain(parts, denial, asked))
}

/// Makes the plain reply to a refused request, or a gRPC status.
pub(super) fn plain(parts: &Parts, denial: Denial, asked: &ChallengeParams<'_>) -> Reply {
    if reply::is_grpc(&parts.headers) { denied_grpc(denial) } else { denied(denial, asked) }
}

/// Returns the hook's reply, or the plain reply if there is no hook.
pub(super) fn hooked(hook: Option<&RefusalHook>, parts: &Parts, denial: Denial, plain: Reply) -> Reply {
    match hook {
        Some(hook) if !reply::is_grpc(&parts.headers) => hook.instead_of(plain, denial, parts),
        _ => plain,
    }
}

/// Returns the refusal in the dialect's own format for refusals, or `plain` if the dialect has no such format.
pub(crate) fn worded(
    dialect: Option<&dyn Dialect>,
    headers: &HeaderMap,
    denial: Denial,
    plain: &Reply,
) -> Option<Reply> {
    let mut reply = dialect?.refuse(headers, denial)?;
    if let Some(allow) = plain.headers().get(ALLOW) {
        reply.headers_mut().insert(ALLOW, allow.clone());
    }
    Some(reply)
}
