//! `rotogate keys`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure};
use crate::config::Config;
use rotogate::token::Algorithm;
use rotogate::token::keyring::{KeyState, Keyring};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the keys.
    List,
    /// Imports a key into the keyring: PKCS#8 PEM, or a base64url secret for HS256, HS384 and HS512.
    Import {
        /// The file. Other users must not be able to read it.
        file: PathBuf,
        /// The one algorithm of the key.
        #[arg(long)]
        algorithm: Algorithm,
        /// Signs with it from now on. Without this it only verifies, until it is imported again with --sign.
        #[arg(long)]
        sign: bool,
    },
}

#[derive(Serialize)]
struct Key<'a> {
    kid: &'a str,
    algorithm: String,
    state: &'static str,
}

#[derive(Serialize)]
struct ImportReport<'a> {
    kid: &'a str,
    state: &'static str,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> CommandResult {
    let folder = &config.issuer.keys;
    match command {
        Command::List => {
            let keyring = Keyring::load(folder).map_err(Failure::of)?;
            let signing = keyring.signer().kid();
            let keys: Vec<_> = keyring
                .signing_keys()
                .map(|key| Key {
                    kid: key.kid(),
                    algorithm: key.algorithm().to_string(),
                    state: if key.kid() == signing { "signing" } else { "verifying" },
                })
                .collect();
            output.write(&keys, || {
                keys.iter()
                    .map(|key| format!("{}  {:6}  {}", key.kid, key.algorithm, key.state))
                    .collect::<Vec<_>>()
                    .join("\n")
            })
        }
        Command::Import { file, algorithm, sign } => {
            let (state, word) = if sign { (KeyState::Signing, "signing") } else { (KeyState::Verifying, "verifying") };
            let kid = Keyring::import(folder, &file, algorithm, state).map_err(Failure::of)?;
            output.write(&ImportReport { kid: &kid, state: word }, || {
                format!("{kid} is in the keyring, {word}; a running gate takes it up within a second")
            })
        }
    }
}
