//! `rotogate events`: recent lines of the audit log.

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use rotogate_config::AdminAccess;

/// All fields except the last are the parameters of the query.
#[derive(Debug, Args, Serialize)]
pub(super) struct EventsOptions {
    /// Only lines of this action, such as session.end (docs/logs.md).
    #[arg(long)]
    action: Option<String>,
    /// Only lines about this subject.
    #[arg(long)]
    subject: Option<String>,
    /// Only lines about this session.
    #[arg(long)]
    session: Option<String>,
    /// Only lines with this actor: the name of an admin token, cli:USER, file or system.
    #[arg(long)]
    actor: Option<String>,
    /// The maximum number of lines to print, counted from the end of the log.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Continues to print new lines as they are written.
    #[arg(long)]
    #[serde(skip)]
    follow: bool,
}

#[derive(Deserialize)]
struct EventsReply {
    events: Vec<Value>,
}

pub(super) fn run(gate: &AdminAccess, options: &EventsOptions, output: Output) -> CommandResult {
    let path = format!("/v1/events?{}", serde_urlencoded::to_string(options).map_err(Failure::failed)?);
    runtime()?.block_on(async {
        if !options.follow {
            let events: EventsReply = admin_client::request(gate, Method::GET, &path).await?;
            return output.list(&events.events, line);
        }
        let mut lines = admin_client::lines(gate, Method::GET, &path, Some("text/event-stream")).await?;
        while let Some(text) = lines.next().await? {
            // Each server-sent event has one `data:` line.
            if let Some(data) = text.strip_prefix(b"data: ") {
                let event: Value = serde_json::from_slice(data).map_err(Failure::failed)?;
                output.write(&event, || line(&event))?;
            }
        }
        Err(admin_client::cut_short())
    })
}

/// The most important fields of the event come first.
fn line(event: &Value) -> String {
    const FIRST: [&str; 4] = ["timestamp", "event.action", "event.outcome", "rotogate.actor"];
    const LEFT_OUT: [&str; 8] = [
        "level",
        "target",
        "message",
        "event.dataset",
        "event.code",
        "event.id",
        "rotogate.audit.boot",
        "rotogate.audit.seq",
    ];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut line = FIRST.map(|name| event.get(name).map_or_else(|| "-".to_owned(), text)).join("  ");
    for (name, value) in event.as_object().into_iter().flatten() {
        if !FIRST.contains(&name.as_str()) && !LEFT_OUT.contains(&name.as_str()) {
            line.push_str(&format!("  {name}={}", text(value)));
        }
    }
    line
}
