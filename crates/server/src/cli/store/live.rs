//! `rotogate store copy --live` and `rotogate store switch`: the running gate does the work, and says how far it is.

use std::io::Write;

use http::Method;

use super::super::output::Output;
use super::super::{CommandResult, Failure, admin_client, runtime};
use crate::config::Config;
use crate::server::admin::{Done, Line};
use crate::server::moving::name;

pub(super) fn copy(config: &Config, output: Output) -> CommandResult {
    let next = next(config)?;
    let report = runtime()?.block_on(run(config, "/v1/store/copy", output))?;
    output.write(&report, || {
        format!("{next} is a copy and is kept level: {}. Next: rotogate store switch", described(&report))
    })
}

pub(super) fn switch(config: &Config, output: Output) -> CommandResult {
    let next = next(config)?;
    let report = runtime()?.block_on(run(config, "/v1/store/switch", output))?;
    output.write(&report, || {
        let closed = report.closed_ms.unwrap_or_default();
        format!(
            "{next} is in charge: {}. No store was in charge for {closed} ms; the gates start on it now. When all have, write \
             [store.next] into [store]",
            described(&report)
        )
    })
}

fn described(report: &Done) -> String {
    match report.ahead {
        0 => report.content.clone(),
        ahead => format!("{}, and {ahead} that the old store has lost", report.content),
    }
}

fn next(config: &Config) -> Result<String, Failure> {
    config
        .next_store
        .as_ref()
        .map(name)
        .ok_or_else(|| Failure::Failed(format!("{}: there is no [store.next]", config.source.file().display())))
}

/// Reads the answer line by line.
async fn run(config: &Config, path: &str, output: Output) -> Result<Done, Failure> {
    let mut lines = admin_client::lines(&config.admin.access(), Method::POST, path, None).await?;
    while let Some(line) = lines.next().await? {
        match serde_json::from_slice(&line).map_err(Failure::of)? {
            Line::Compared { pass, sessions } if !output.json => {
                // If this fails, the work goes on all the same.
                let _ = writeln!(std::io::stderr(), "comparison {pass}: {sessions} sessions");
            }
            Line::Compared { .. } => {}
            Line::Failed(why) => return Err(Failure::Failed(why)),
            Line::Done(done) => return Ok(done),
        }
    }
    Err(admin_client::cut_short())
}
