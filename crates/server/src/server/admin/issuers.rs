//! The operator's requests about issuers whose keys are fetched.

use percent_encoding::percent_decode_str;

use super::problem::{Code, Problem, Refusal};
use super::{Answer, Body, State, ok};
use crate::server::issuers::{IssuerReport, IssuerReports};

/// The issuers whose keys are fetched: state, keys, last failure, refused keys.
#[utoipa::path(
    get,
    path = "/v1/issuers",
    operation_id = "list_issuers",
    tag = "issuers",
    responses((status = 200, description = "done", body = IssuerReports), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"]))
)]
pub(super) fn list(state: &State) -> http::Response<Body> {
    ok(&state.issuers.report())
}

/// Fetches the keys of an issuer now; 502 with the cause if that brings none.
#[utoipa::path(
    post,
    path = "/v1/issuers/{name}/refresh",
    operation_id = "refresh_issuer",
    tag = "issuers",
    params(("name" = String, Path, description = "its name in `[[issuers]]`")),
    responses((status = 200, description = "done", body = IssuerReport), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"), (status = "5XX", description = "failed", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"]))
)]
pub(super) async fn refresh(state: &State, name: &str) -> Answer {
    match state.issuers.refresh(&decoded(name)).await {
        Some((report, Ok(()))) => Ok(ok(&report)),
        Some((_, Err(failure))) => Err(Refusal::new(Code::IssuerFailed, format!("{}: {failure}", failure.cause))),
        None => Err(unknown()),
    }
}

/// Drops the keys of an issuer, kept ones included: its tokens get 503 until the next refresh or start.
#[utoipa::path(
    post,
    path = "/v1/issuers/{name}/drop",
    operation_id = "drop_issuer_keys",
    tag = "issuers",
    params(("name" = String, Path, description = "its name in `[[issuers]]`")),
    responses((status = 200, description = "done", body = IssuerReport), (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"]))
)]
pub(super) async fn drop_keys(state: &State, name: &str) -> Answer {
    let name = decoded(name);
    let report = state.issuers.drop_keys(&name).await.ok_or_else(unknown)?;
    tracing::info!(target: "rotogate::audit", event = "issuer_keys_dropped", issuer = name);
    Ok(ok(&report))
}

/// The name as it is in the configuration.
fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

fn unknown() -> Refusal {
    Refusal::new(Code::UnknownIssuer, "no issuer of this name has keys that are fetched")
}
