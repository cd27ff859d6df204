//! `rotogate client`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, prompt};
use rotogate_core::password;
use rotogate_core::random::random;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Creates a secret for a confidential client, and the `secret_hash` for its [[clients]] entry.
    Secret {
        /// Reads the secret from standard input instead of creating one.
        #[arg(long)]
        stdin: bool,
    },
}

#[derive(Serialize)]
struct SecretReport<'a> {
    /// The new secret, which is shown only once. Absent if the operator provided the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    secret_hash: &'a str,
}

pub(super) fn run(command: &ClientCommand, output: Output) -> CommandResult {
    let ClientCommand::Secret { stdin } = *command;
    let secret = if stdin { prompt::piped("the secret")? } else { new_secret()? };
    let hash = password::hash(&secret).map_err(Failure::failed)?;
    let shown = (!stdin).then(|| secret.expose_secret());
    output.write(&SecretReport { client_secret: shown, secret_hash: &hash }, || {
        let line = format!("in gateway.toml:       secret_hash = \"{hash}\"");
        match shown {
            Some(secret) => format!("client_secret (shown only once): {secret}\n{line}"),
            None => line,
        }
    })
}

fn new_secret() -> Result<SecretString, Failure> {
    let bytes = random::<32>().map_err(Failure::failed)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}
