//! `rotogate session`: sessions of the gate that runs.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::output::Output;
use super::{Done, Failure, running, runtime};
use crate::admin::Listed;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists sessions, the oldest first.
    List {
        /// Of this subject alone: the `sub` of the tokens (`rotogate user list` shows it).
        #[arg(long)]
        subject: Option<String>,
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
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The session of this id.
    id: Option<String>,
    /// Every session that this subject has begun so far.
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
struct Revoked {
    revoked: String,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> Done {
    runtime()?.block_on(async {
        match command {
            Command::List { subject } => list(config, subject.as_deref(), output).await,
            Command::Show { id } => {
                let body = ask(config, Method::GET, &format!("/sessions/{}", escaped(&id)), &id).await?;
                let session: Listed = serde_json::from_slice(&body).map_err(Failure::of)?;
                output.write(&session, || shown(&session))
            }
            Command::Revoke { which } => revoke(config, which, output).await,
        }
    })
}

/// Page after page, each written as it comes: there may be millions.
async fn list(config: &Config, subject: Option<&str>, output: Output) -> Done {
    let mut after = None;
    let mut found = false;
    loop {
        let mut query = form_urlencoded::Serializer::new(String::from("/sessions?"));
        query.extend_pairs(subject.map(|subject| ("subject", subject)));
        query.extend_pairs(after.as_deref().map(|after| ("after", after)));
        query.append_pair("limit", "1000");
        let body = ask(config, Method::GET, &query.finish(), "").await?;
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
    let (path, what) = match which {
        Which { id: Some(id), .. } => (format!("/sessions/{}/revoke", escaped(&id)), id),
        Which { subject: Some(subject), .. } => {
            (format!("/revocations?subject={}", escaped(&subject)), format!("every session of {subject}"))
        }
        Which { client: Some(client), .. } => {
            (format!("/revocations?client={}", escaped(&client)), format!("every session of the client {client}"))
        }
        Which { .. } => ("/revocations?all".to_owned(), "every session".to_owned()),
    };
    ask(config, Method::POST, &path, &what).await?;
    output.write(&Revoked { revoked: what.clone() }, || format!("{what} is revoked"))
}

/// The answer's body, or why there is none.
async fn ask(config: &Config, method: Method, path: &str, id: &str) -> Result<Bytes, Failure> {
    let Some(response) = running::ask(config, method, path).await? else {
        return Err(Failure::Failed(format!(
            "no gate answers on {} (admin.listen): start it, sessions are seen and ended through it",
            config.admin.listen
        )));
    };
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Failure::Failed(format!("there is no session {id}")));
    }
    running::read(response).await
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
