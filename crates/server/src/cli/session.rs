//! `rotogate session`: sessions of the gate that runs.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{Done, Failure, running, runtime};
use crate::config::Config;
use crate::server::admin::{Ended, Listed};
use rotogate::session::SessionId;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists sessions, the oldest first.
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Shows one session.
    Show {
        /// Its id: the `sid` of its tokens.
        id: String,
    },
    /// Ends a session, or many: their tokens are refused from the next request on.
    Revoke {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    /// Of the user of this name alone (`rotogate user list`).
    #[arg(long, conflicts_with = "subject")]
    user: Option<String>,
    /// The account of the user, where several have one of that name.
    #[arg(long, requires = "user")]
    account: Option<String>,
    /// Of this subject alone: the `sub` of the tokens.
    #[arg(long)]
    subject: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    target: Target,
    /// The account of the user, where several have one of that name.
    #[arg(long, requires = "user")]
    account: Option<String>,
    /// Refuses what such a subject or client has, even where users, clients and store know none.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The session of this id.
    id: Option<String>,
    /// Every session that the user of this name has begun so far.
    #[arg(long)]
    user: Option<String>,
    /// Every session that this subject has begun so far: the `sub` of the tokens.
    #[arg(long)]
    subject: Option<String>,
    /// Every session begun so far with this client.
    #[arg(long)]
    client: Option<String>,
    /// Every session begun so far.
    #[arg(long)]
    all: bool,
}

#[derive(Deserialize)]
struct Page {
    sessions: Vec<Listed>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Revoked<'a> {
    revoked: &'a str,
    #[serde(flatten)]
    ended: Ended,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> Done {
    runtime()?.block_on(async {
        match command {
            Command::List { whose } => list(config, &whose, output).await,
            Command::Show { id } => {
                let body = ask_for(config, Method::GET, &format!("/sessions/{}", escaped(&id)), &id).await?;
                let session: Listed = serde_json::from_slice(&body).map_err(Failure::of)?;
                output.write(&session, || shown(&session))
            }
            Command::Revoke { which } => revoke(config, which, output).await,
        }
    })
}

/// Page after page, each written as it comes: there may be millions.
async fn list(config: &Config, whose: &Whose, output: Output) -> Done {
    let mut after = None;
    let mut found = false;
    loop {
        let mut query = form_urlencoded::Serializer::new(String::from("/sessions?"));
        let Whose { user, account, subject } = whose;
        for (name, value) in [("user", user), ("account", account), ("subject", subject)] {
            query.extend_pairs(value.as_deref().map(|value| (name, value)));
        }
        query.extend_pairs(after.as_deref().map(|after| ("after", after)));
        query.append_pair("limit", "1000");
        let body = running::answer(config, Method::GET, &query.finish()).await?;
        let page: Page = serde_json::from_slice(&body).map_err(Failure::of)?;
        found |= !page.sessions.is_empty();
        for session in &page.sessions {
            output.write(session, || line(session))?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None if found || output.json => return Ok(()),
            None => return output.write(&"", || "no sessions".to_owned()),
        }
    }
}

async fn revoke(config: &Config, which: Which, output: Output) -> Done {
    let Which { target, account, force } = which;
    let Target { id, user, subject, client, all: _ } = target;
    if let Some(id) = id {
        let body = ask_for(config, Method::POST, &format!("/sessions/{}/revoke", escaped(&id)), &id).await?;
        let ended: Ended = serde_json::from_slice(&body).map_err(Failure::of)?;
        let text = match ended.ended {
            0 => format!("session {id} had ended before"),
            _ => format!("session {id} ended"),
        };
        return output.write(&Revoked { revoked: &id, ended }, || text);
    }
    let mut query = form_urlencoded::Serializer::new(String::from("/revocations?"));
    for (name, value) in [("user", &user), ("account", &account), ("subject", &subject), ("client", &client)] {
        query.extend_pairs(value.as_deref().map(|value| (name, value)));
    }
    let (of, of_whom) = match user.as_deref().or(subject.as_deref()) {
        Some(name) => (format!(" of {name}"), true),
        None => (client.as_deref().map_or_else(String::new, |client| format!(" of the client {client}")), false),
    };
    if user.is_none() && subject.is_none() && client.is_none() {
        query.append_key_only("all");
    }
    if force {
        query.append_key_only("force");
    }
    let body = running::answer(config, Method::POST, &query.finish()).await?;
    let ended: Ended = serde_json::from_slice(&body).map_err(Failure::of)?;
    // A user's tokens have sessions; a client, and all together, may have tokens without one.
    if of_whom && ended.matched == 0 && !force {
        return Err(Failure::Failed(format!("there is no session{of}: nothing was ended")));
    }
    let sessions = if ended.ended == 1 { "session" } else { "sessions" };
    let text = format!("{} {sessions}{of} ended", ended.ended);
    let revoked = format!("every session{of}");
    output.write(&Revoked { revoked: &revoked, ended }, || text)
}

/// What is said of one session. Its id is part of a path, so nothing else may stand in its place.
async fn ask_for(config: &Config, method: Method, path: &str, id: &str) -> Result<Bytes, Failure> {
    match SessionId::parse(id) {
        Some(_) => running::answer(config, method, path).await,
        None => Err(Failure::Failed(format!("there is no session {id}"))),
    }
}

fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn line(session: &Listed) -> String {
    let Listed { id, status, subject, client, dialect, created, .. } = session;
    format!("{id}  {status}  sub={subject}  client={client}  {dialect}  since {created}")
}

fn shown(session: &Listed) -> String {
    let none = || "-".to_owned();
    let seen = if session.confirmed { "seen in use" } else { "not seen in use" };
    [
        ("session", session.id.clone()),
        ("status", session.status.clone()),
        ("subject", session.subject.clone()),
        ("account", session.account.clone().unwrap_or_else(none)),
        ("client", session.client.clone()),
        ("dialect", session.dialect.clone()),
        ("scope", session.scope.clone()),
        ("created", session.created.clone()),
        ("refreshed", session.refreshed.clone()),
        ("expires", session.expires.clone()),
        ("generation", format!("{}, {seen}", session.generation)),
        ("address", session.address.clone().unwrap_or_else(none)),
        ("user agent", session.user_agent.clone().unwrap_or_else(none)),
    ]
    .map(|(name, value)| format!("{name:<11} {value}"))
    .join("\n")
}
