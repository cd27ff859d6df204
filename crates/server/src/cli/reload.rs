//! `rotogate reload` and `rotogate upgrade`.

use std::time::Duration;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use crate::server::operate::admin::{ReloadResult, Status};
use rotogate_config::{AdminAccess, Config};

pub(super) fn run(gate: &AdminAccess, output: Output) -> CommandResult {
    let result: ReloadResult = runtime()?.block_on(admin_client::request(gate, Method::POST, "/v1/config/reload"))?;
    output.write(&result, || result.to_string())
}

/// The time limit for an upgrade, in addition to `drain_timeout`.
const START_TIME: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Upgraded<'a> {
    upgraded: bool,
    pid: u32,
    from: &'a str,
    to: &'a str,
}

pub(super) fn upgrade(config: &Config, output: Output) -> CommandResult {
    let gate = &config.admin.access();
    let (before, now) = runtime()?.block_on(async {
        let before = status(gate).await?;
        let (boot, _) = seen(gate, None).await?;
        let (_, refused) = seen(gate, Some(REFUSED)).await?;
        let pid = i32::try_from(before.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::Failed(format!("{} is not a process id", before.pid)))?;
        let failed = |error| {
            let pid = before.pid;
            Failure::Failed(format!(
                "process {pid} cannot be signalled: {error}; run this command as the gate's user, or as root"
            ))
        };
        kill_process(pid, Signal::USR2).map_err(failed)?;
        let waiting = tokio::time::timeout(config.server.drain_timeout + START_TIME, async {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                // No gate responds while the new program replaces the old one.
                let Ok((now, _)) = seen(gate, None).await else { continue };
                let Ok((_, last)) = seen(gate, Some(REFUSED)).await else { continue };
                if last.is_some() && last.as_ref().map(|(id, _)| id) != refused.as_ref().map(|(id, _)| id) {
                    let reason = last.map(|(_, reason)| reason).unwrap_or_default();
                    return Err(Failure::Failed(format!(
                        "upgrade refused; the previous program keeps running: {reason}"
                    )));
                }
                if now != boot
                    && let Ok(now) = status(gate).await
                {
                    return Ok(now);
                }
            }
        });
        let too_long =
            || Failure::Failed("the upgrade has not finished yet; the gate's log shows its progress".to_owned());
        Ok((before, waiting.await.map_err(|_| too_long())??))
    })?;
    let (from, to, pid) = (&before.version, &now.version, now.pid);
    output.write(&Upgraded { upgraded: true, pid, from, to }, || format!("upgraded from {from} to {to}, process {pid}"))
}

const REFUSED: &str = "process.upgrade_refused";

async fn status(gate: &AdminAccess) -> Result<Status, Failure> {
    admin_client::request(gate, Method::GET, "/v1/status").await
}

#[derive(Deserialize)]
struct EventLines {
    events: Vec<EventLine>,
}

#[derive(Deserialize)]
struct EventLine {
    #[serde(rename = "event.id")]
    id: String,
    #[serde(rename = "rotogate.audit.boot")]
    boot: String,
    #[serde(default)]
    reason: String,
}

/// Reads the last audit line of an action. Returns the gate's `boot` value, and the line's id and reason.
async fn seen(gate: &AdminAccess, action: Option<&str>) -> Result<(Option<String>, Option<(String, String)>), Failure> {
    let action = action.map_or_else(String::new, |action| format!("&action={action}"));
    let path = format!("/v1/events?limit=1{action}");
    let EventLines { events } = admin_client::request(gate, Method::GET, &path).await?;
    let last = events.into_iter().next_back();
    Ok(last.map_or((None, None), |EventLine { id, boot, reason }| (Some(boot), Some((id, reason)))))
}
