//! `rotogate status`.

use http::{Method, StatusCode};
use serde::Serialize;

use super::admin_client::Unanswered;
use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use rotogate_config::AdminAccess;

#[derive(Serialize)]
struct StatusReport<'a> {
    ready: bool,
    /// `ready`, `ready, with problems`, `serving with errors`, `refusing`, `failing`, or why the gate is degraded.
    state: &'a str,
    problems: Vec<&'a str>,
    detail: &'a str,
}

/// # Errors
/// The gate is not ready, or no gate responds.
pub(super) fn run(gate: &AdminAccess, output: Output) -> CommandResult {
    let asked = runtime()?.block_on(admin_client::probe(gate, Method::GET, "/readyz"));
    let (status, body) = asked.map_err(|unanswered| match unanswered {
        Unanswered::NoGate => Failure::Failed(format!("no gate responds on {} (`admin.listen`)", gate.address)),
        Unanswered::Failed(failure) => failure,
    })?;
    let detail = String::from_utf8_lossy(&body);
    let detail = detail.trim_end();
    match status {
        StatusCode::OK => {
            let state = detail.lines().next().unwrap_or_default();
            let problems = detail.lines().filter_map(|line| line.strip_prefix("problem: ")).collect();
            output.write(&StatusReport { ready: true, state, problems, detail }, || detail.to_owned())
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::MISDIRECTED_REQUEST => {
            Err(Failure::Failed(format!("the gate on {} is not serving: {detail}", gate.address)))
        }
        other => Err(admin_client::elsewhere(gate, other)),
    }
}
