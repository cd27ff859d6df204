//! `rotogate status`.

use http::Method;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use crate::config::Config;

#[derive(Serialize)]
struct StatusReport<'a> {
    ready: bool,
    detail: &'a str,
}

/// Asks `/readyz` of the admin listener.
///
/// # Errors
/// The gate is not ready, or no gate answers.
pub(super) fn run(config: &Config, output: Output) -> CommandResult {
    let (status, body) = runtime()?.block_on(admin_client::probe(config, Method::GET, "/readyz"))?;
    let detail = String::from_utf8_lossy(&body);
    let detail = detail.trim_end();
    if !status.is_success() {
        return Err(Failure::Failed(format!("the gate on {} is not serving: {detail}", config.admin.listen)));
    }
    output.write(&StatusReport { ready: true, detail }, || detail.to_owned())
}
