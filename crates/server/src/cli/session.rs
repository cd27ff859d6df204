//! `rotogate session`: sessions in the running gate.

use clap::{Args, Subcommand};
use http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{CommandResult, Failure, admin_client, prompt, runtime};
use crate::server::operate::admin::{RevocationReport, RevocationRequest, SessionInfo};
use rotogate_config::AdminAccess;
use rotogate_core::session::{Generation, SessionId, use_in_words};
use rotogate_kit::config::printable;

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Lists sessions, the oldest first.
    List(Whose),
    /// Shows one session.
    Show {
        /// The id of the session: the `sid` of its tokens.
        id: String,
    },
    /// Ends one session or many. Their tokens are refused from the next request on.
    Revoke(Which),
}

// The fields are sent as query parameters.
#[derive(Debug, Args, Serialize)]
pub(super) struct Whose {
    /// Only sessions of the user with this name (`rotogate user list`).
    #[arg(long, conflicts_with = "subject")]
    user: Option<String>,
    /// The user's account, if several have this name; "" for none.
    #[arg(long, requires = "user")]
    account: Option<String>,
    /// Only sessions of this subject: the `sub` of the tokens.
    #[arg(long)]
    subject: Option<String>,
    /// Only sessions of this client.
    #[arg(long)]
    client: Option<String>,
    /// Only sessions with this status: live, ended, or the reason of the end (docs/admin.md).
    #[arg(long)]
    status: Option<String>,
    /// Only sessions that began at or after this time, such as 2026-11-20T18:00:00Z.
    #[arg(long)]
    since: Option<String>,
    /// Only sessions that began before this time.
    #[arg(long)]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    target: Target,
    /// The user's account, if several have this name; "" for none.
    #[arg(long, requires = "user")]
    account: Option<String>,
    /// Revokes even if the subject or client is unknown to the users, the clients and the store.
    #[arg(long)]
    force: bool,
    /// Only counts the sessions.
    #[arg(long, conflicts_with = "id")]
    dry_run: bool,
    /// Does not ask for a confirmation of --all.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The id of the session.
    id: Option<String>,
    /// All existing sessions of the user with this name.
    #[arg(long)]
    user: Option<String>,
    /// All existing sessions of this subject, which is the `sub` of the tokens.
    #[arg(long)]
    subject: Option<String>,
    /// All existing sessions of this client.
    #[arg(long)]
    client: Option<String>,
    /// All existing sessions. Asks for a confirmation at a terminal.
    #[arg(long)]
    all: bool,
}

#[derive(Deserialize)]
struct SessionsReply {
    sessions: Vec<SessionInfo>,
    next: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Detail {
    #[serde(flatten)]
    session: SessionInfo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
}

#[derive(Serialize)]
struct RevokeReport<'a> {
    revoked: &'a str,
    #[serde(flatten)]
    ended: RevocationReport,
}

pub(super) fn run(gate: &AdminAccess, command: SessionCommand, output: Output) -> CommandResult {
    runtime()?.block_on(async {
        match command {
            SessionCommand::List(whose) => list(gate, &whose, output).await,
            SessionCommand::Show { id } => {
                let session: Detail = ask_for(gate, Method::GET, &id, "").await?;
                output.write(&session, || shown(&session))
            }
            SessionCommand::Revoke(which) => revoke(gate, which, output).await,
        }
    })
}

/// Each page is written when it arrives, because there may be millions of sessions.
async fn list(gate: &AdminAccess, whose: &Whose, output: Output) -> CommandResult {
    let query = serde_urlencoded::to_string(whose).map_err(Failure::failed)?;
    let mut cursor = String::new();
    let mut found = false;
    loop {
        let path = format!("/v1/sessions?limit=1000{cursor}&{query}");
        let page: SessionsReply = admin_client::request(gate, Method::GET, &path).await?;
        found |= !page.sessions.is_empty();
        for session in &page.sessions {
            output.write(session, || line(session))?;
        }
        match page.next {
            Some(next) => cursor = format!("&cursor={}", admin_client::escaped(&next)),
            None if found || output.json => return Ok(()),
            None => return output.write(&"", || "no sessions".to_owned()),
        }
    }
}

async fn revoke(gate: &AdminAccess, which: Which, output: Output) -> CommandResult {
    let Which { target, account, force, dry_run, yes } = which;
    let Target { id, user, subject, client, all } = target;
    if all && !dry_run {
        prompt::confirm_at_terminal(
            "This command ends every session of every user, so all users must log in again",
            yes,
        )?;
    }
    if let Some(id) = id {
        let ended: RevocationReport = ask_for(gate, Method::POST, &id, "/revoke").await?;
        let text = match ended.ended {
            0 => format!("session {id} had already ended"),
            _ => format!("session {id} ended"),
        };
        return output.write(&RevokeReport { revoked: &id, ended }, || text);
    }
    let (of, of_whom) = match user.as_deref().or(subject.as_deref()) {
        Some(name) => (format!(" of {name}"), true),
        None => (client.as_deref().map_or_else(String::new, |client| format!(" of the client {client}")), false),
    };
    let all = (user.is_none() && subject.is_none() && client.is_none()).then_some(true);
    let request =
        RevocationRequest { user, account, subject, client, all, force, dry_run, ..RevocationRequest::default() };
    let ended: RevocationReport = admin_client::post(gate, "/v1/revocations", &request).await?;
    // Without a session, a user has no tokens, so nothing was revoked.
    if of_whom && ended.matched == 0 && !force {
        return Err(Failure::Failed(format!("there is no session{of}: nothing was ended")));
    }
    let sessions = if ended.ended == 1 { "session" } else { "sessions" };
    let done = if dry_run { "would end" } else { "ended" };
    let text = format!("{} {sessions}{of} {done}", ended.ended);
    let revoked = format!("every session{of}");
    output.write(&RevokeReport { revoked: &revoked, ended }, || text)
}

/// The id becomes part of a path, so it must be valid.
async fn ask_for<T: DeserializeOwned>(
    gate: &AdminAccess,
    method: Method,
    id: &str,
    operation: &str,
) -> Result<T, Failure> {
    match SessionId::parse(id) {
        Some(_) => admin_client::request(gate, method, &format!("/v1/sessions/{id}{operation}")).await,
        None => Err(Failure::Failed(format!("there is no session {id}"))),
    }
}

fn line(session: &SessionInfo) -> String {
    let SessionInfo { id, status, subject, user, client, dialect, created, .. } = session;
    let user = user.as_ref().map(|user| format!("{}  ", printable(user))).unwrap_or_default();
    format!("{id}  {status}  {user}sub={subject}  client={client}  {dialect}  since {created}")
}

fn shown(Detail { session, ended_by }: &Detail) -> String {
    let none = || "-".to_owned();
    let seen = use_in_words(Generation::new(session.generation), session.confirmed);
    let ended = ended_by.as_ref().map_or_else(String::new, |who| format!(", ended by {who}"));
    [
        ("session", session.id.clone()),
        ("status", format!("{}{ended}", session.status)),
        ("user", session.user.as_deref().map_or_else(none, printable)),
        ("subject", session.subject.clone()),
        ("account", session.account.clone().unwrap_or_else(none)),
        ("client", session.client.clone()),
        ("dialect", session.dialect.clone()),
        ("scope", session.scope.clone()),
        ("created", session.created.clone()),
        ("refreshed", session.refreshed.clone()),
        ("expires", session.expires.clone()),
        ("generation", format!("{}, {seen}", session.generation)),
        ("device", session.device_bound.map_or_else(none, |is| if is { "bound" } else { "not bound" }.to_owned())),
        ("address", session.address.clone().unwrap_or_else(none)),
        ("user agent", session.user_agent.clone().unwrap_or_else(none)),
    ]
    .map(|(name, value)| format!("{name:<11} {value}"))
    .join("\n")
}
