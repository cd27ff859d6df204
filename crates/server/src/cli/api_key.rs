//! `rotogate api-key`: API keys of the running gate.

use std::io::Read;

use clap::Subcommand;
use http::Method;

use super::output::Output;
use super::{CommandResult, Failure, admin_client, runtime};
use crate::server::operate::admin::{
    ApiKeyInfo, ApiKeyRequest, KeysPage, LeakAnswer, LeakReport, NewKeyAnswer, RotateKeyRequest,
};
use rotogate_config::AdminAccess;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeyCommand {
    /// Lists API keys.
    List {
        /// Only live API keys of this subject. The subject of a client is `client:` followed by the client's id.
        #[arg(long)]
        subject: Option<String>,
    },
    /// Creates an API key and prints it. It cannot be printed again later.
    Create {
        /// The name of the API key.
        name: String,
        /// The owner: the user with this name in the users file.
        #[arg(long, conflicts_with_all = ["subject", "client"], required_unless_present_any = ["subject", "client"])]
        user: Option<String>,
        /// The account of the user or subject.
        #[arg(long)]
        account: Option<String>,
        /// The owner: the user with this `sub`.
        #[arg(long, conflicts_with = "client")]
        subject: Option<String>,
        /// The owner: the confidential client with this id.
        #[arg(long)]
        client: Option<String>,
        /// The scopes of the API key, separated by spaces; by default all scopes of the owner.
        #[arg(long)]
        scopes: Option<String>,
        /// The only audience of the API key.
        #[arg(long)]
        audience: Option<String>,
        /// A network from which the API key is accepted, such as 10.0.0.0/8; may be repeated.
        #[arg(long = "network")]
        networks: Vec<String>,
        /// How long the API key is valid, such as 90d.
        #[arg(long)]
        lifetime: Option<String>,
    },
    /// Replaces an API key, and prints the new one. The old API key stays valid for the overlap.
    Rotate {
        /// The id of the old API key.
        id: String,
        /// How long the old API key stays valid, such as 1d; 0s revokes it at once.
        #[arg(long)]
        overlap: Option<String>,
    },
    /// Revokes an API key. The gate refuses it from the next request on.
    Revoke {
        /// The id of the API key.
        id: String,
    },
    /// Reads leaked API keys from standard input, one per line, revokes those that are valid at this gate, and prints
    /// their number.
    Leaked,
}

pub(super) fn run(gate: &AdminAccess, command: ApiKeyCommand, output: Output) -> CommandResult {
    runtime()?.block_on(async {
        match command {
            ApiKeyCommand::List { subject } => list(gate, subject.as_deref(), output).await,
            ApiKeyCommand::Create { name, user, account, subject, client, scopes, audience, networks, lifetime } => {
                let request =
                    ApiKeyRequest { name, user, account, subject, client, scopes, audience, networks, lifetime };
                show(&admin_client::post(gate, "/v1/api-keys", &request).await?, output)
            }
            ApiKeyCommand::Rotate { id, overlap } => {
                let path = format!("/v1/api-keys/{}/rotate", admin_client::escaped(&id));
                show(&admin_client::post(gate, &path, &RotateKeyRequest { overlap }).await?, output)
            }
            ApiKeyCommand::Revoke { id } => {
                let path = format!("/v1/api-keys/{}/revoke", admin_client::escaped(&id));
                let key: ApiKeyInfo = admin_client::request(gate, Method::POST, &path).await?;
                output.write(&key, || format!("API key {} of {} is revoked", key.id, key.subject))
            }
            ApiKeyCommand::Leaked => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(Failure::failed)?;
                let keys = text.split_whitespace().map(str::to_owned).collect();
                let answer: LeakAnswer = admin_client::post(gate, "/v1/api-keys/leaked", &LeakReport { keys }).await?;
                output.write(&answer, || format!("{} of the keys were live, and are now revoked", answer.revoked))
            }
        }
    })
}

async fn list(gate: &AdminAccess, subject: Option<&str>, output: Output) -> CommandResult {
    let mut after: Option<String> = None;
    loop {
        let mut query = form_urlencoded::Serializer::new(String::from("/v1/api-keys?"));
        query.extend_pairs(subject.map(|subject| ("subject", subject)));
        query.extend_pairs(after.as_deref().map(|after| ("cursor", after)));
        let page: KeysPage = admin_client::request(gate, Method::GET, &query.finish()).await?;
        output.list(&page.keys, line)?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn show(made: &NewKeyAnswer, output: Output) -> CommandResult {
    output.write(made, || format!("{}\n{}", made.key, line(&made.info)))
}

fn line(key: &ApiKeyInfo) -> String {
    let ApiKeyInfo { id, name, subject, scopes, status, expires, last_used, .. } = key;
    let used = last_used.as_deref().map_or_else(|| "never used".to_owned(), |at| format!("used {at}"));
    format!("{id}  {status}  sub={subject}  \"{name}\"  scopes=\"{scopes}\"  until {expires}  {used}")
}
