//! Makes the reply to a refused request on a data route. A dialect, the application or the gate defines the format.

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

/// See [`GateBuilder::refusals`](super::GateBuilder::refusals).
#[derive(Clone)]
pub(crate) struct RefusalHook(Arc<Hook>);

rotogate_core::debug_with!(RefusalHook);

impl RefusalHook {
    pub(super) fn new<B: Into<Bytes>>(
        reply: impl Fn(&Denial, &Parts) -> Option<Response<B>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |denial, parts| Some(reply(denial, parts)?.map(Into::into))))
    }

    #[cfg(feature = "axum")]
    pub(super) fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Adds missing standard headers to the hook's reply. Returns the plain reply if the hook returns `None`.
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

#[cfg(any(feature = "axum", test))]
pub(super) fn refused(hook: Option<&RefusalHook>, parts: &Parts, denial: Denial, asked: &ChallengeParams<'_>) -> Reply {
    hooked(hook, parts, denial, plain(parts, denial, asked))
}

/// Makes the plain reply, or a gRPC status.
pub(super) fn plain(parts: &Parts, denial: Denial, asked: &ChallengeParams<'_>) -> Reply {
    if reply::is_grpc(&parts.headers) { denied_grpc(denial) } else { denied(denial, asked) }
}

pub(super) fn hooked(hook: Option<&RefusalHook>, parts: &Parts, denial: Denial, plain: Reply) -> Reply {
    match hook {
        Some(hook) if !reply::is_grpc(&parts.headers) => hook.instead_of(plain, denial, parts),
        _ => plain,
    }
}

/// Returns `plain` if the dialect does not have a format for refusals.
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
