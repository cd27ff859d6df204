//! The operator's requests about issuers whose keys are fetched.

use percent_encoding::percent_decode_str;

use super::AdminState;
use super::problem::{Code, Refusal};
use crate::server::build::issuers::{IssuerReport, IssuerReports};

/// Lists the issuers. If the gate fetches an issuer's keys, the entry has their state, their number, the last failure
/// and the refused keys. Otherwise, it has the source of the keys.
#[utoipa::path(
    get, path = "/v1/issuers", operation_id = "list_issuers", tag = "issuers",
    responses((status = 200, description = "done", body = IssuerReports))
)]
pub(super) fn list(state: &AdminState) -> IssuerReports {
    state.remote_issuers.report(&state.config.load())
}

/// Fetches the keys of an issuer now. The status is 502, with the cause, if the gate gets no keys.
#[utoipa::path(
    post, path = "/v1/issuers/{name}/refresh", operation_id = "refresh_issuer", tag = "issuers",
    params(("name" = String, Path, description = "the issuer's name in `[[issuers]]`")),
    responses((status = 200, description = "done", body = IssuerReport))
)]
pub(super) async fn refresh(state: &AdminState, name: &str) -> Result<IssuerReport, Refusal> {
    let name = decoded(name);
    match state.remote_issuers.refresh(&name).await {
        Some((report, Ok(()))) => Ok(report),
        Some((_, Err(failure))) => Err(Refusal::new(Code::IssuerFailed, format!("{}: {failure}", failure.cause))),
        None => Err(unknown(state, &name)),
    }
}

/// Drops the keys of an issuer, including stored keys. The issuer's tokens get 503 until the next refresh or start.
#[utoipa::path(
    post, path = "/v1/issuers/{name}/drop", operation_id = "drop_issuer_keys", tag = "issuers",
    params(("name" = String, Path, description = "the issuer's name in `[[issuers]]`")),
    responses((status = 200, description = "done", body = IssuerReport))
)]
pub(super) async fn drop_keys(state: &AdminState, name: &str) -> Result<IssuerReport, Refusal> {
    let name = decoded(name);
    let report = state.remote_issuers.drop_keys(&name).await.ok_or_else(|| unknown(state, &name))?;
    tracing::info!(target: "rotogate::audit", event = "issuer_keys_dropped", issuer = name);
    Ok(report)
}

fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

fn unknown(state: &AdminState, name: &str) -> Refusal {
    let config = state.config.load();
    let issuer = config.issuers.iter().find(|issuer| issuer.name == name);
    let what = match issuer.and_then(|issuer| issuer.keys.file()) {
        Some((key, file)) => {
            format!(
                "the issuer's keys are in a file, so the gate cannot fetch them. Replace {} ({key}); the gate reads \
                 the file within a second",
                file.display()
            )
        }
        None => "there is no issuer with this name whose keys the gate fetches".to_owned(),
    };
    Refusal::new(Code::UnknownIssuer, what)
}
