//! Authorization requests that Envoy sends over gRPC.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::authorizer::{ReplyResult, verdict};
use super::request::RequestState;
use super::request_record::LoggedBody;
use crate::server::listen::origin::Origin;
use rotogate::gate::{Authorizer, GateBody};
use rotogate::program::grpc::Checks;
use rotogate_config::AuthorizerKind;
use rotogate_core::reply;
use rotogate_core::reply::{Reply, ReplyBody};

/// Envoy's own timeout is shorter.
const TIMEOUT: Duration = Duration::from_secs(10);

static CHECKS: LazyLock<Checks> = LazyLock::new(Checks::default);

/// Responds to a call. Each verdict gets a line in the access log.
pub(crate) async fn answer(
    state: &RequestState,
    origin: &Arc<Origin>,
    authorizer: &Authorizer,
    question: Parts,
    body: Incoming,
) -> ReplyResult {
    let question = &question;
    let decide = |head| async move {
        let asked = (authorizer, AuthorizerKind::ExtAuthz);
        let response = pin!(verdict(state, origin, asked, head, question)).await;
        whole(response).await
    };
    // The future is pinned, so that the timeout does not move it.
    let answer = pin!(CHECKS.answer(authorizer, question, body, decide));
    let reply = tokio::time::timeout(TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| reply::problem(StatusCode::REQUEST_TIMEOUT, None));
    Ok(reply.map(|body| LoggedBody::unrecorded(GateBody::own(body))))
}

async fn whole(response: Response<LoggedBody>) -> Reply {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::from_parts(parts, ReplyBody::from(bytes))
}
