//! `rotogate keys`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde::Serialize;

use super::gate::{self, Reach};
use super::output::Output;
use super::{CommandResult, Failure, admin_client, audit_trail, load, no_gate_can, print_error, runtime};
use crate::audit::{self, KeyEvent};
use crate::server::build::stores::refuse_lost_keys;
use crate::server::operate::admin::keys::{self, ChangedKey, KeyRequest, Keys, OwnKeyState};
use crate::server::operate::key_roll::{self, RollError};
use rotogate::gate::JWKS_MAX_AGE;
use rotogate_config::{AdminAccess, Config};
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{KeyState, Keyring};

/// How long the command waits until a running gate has loaded a key.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Creates the signing key and the refresh secret of a new gate. With a shared store, a gate creates them by itself
    /// only if it also creates the store.
    Init {
        /// The algorithm of the key; by default that of the configuration.
        #[arg(long)]
        algorithm: Option<Algorithm>,
    },
    /// Lists the signing keys.
    List {
        /// Lists the secrets for refresh tokens instead.
        #[arg(long)]
        refresh: bool,
        #[command(flatten)]
        gate: gate::GateOptions,
    },
    /// Adds a new key that only verifies tokens. This is the first step of a change of the signing key.
    Add {
        /// The algorithm of the key; by default that of the configuration.
        #[arg(long)]
        algorithm: Option<Algorithm>,
        /// Adds a secret for refresh tokens instead.
        #[arg(long, conflicts_with = "algorithm")]
        refresh: bool,
    },
    /// Changes the signing key: publishes a new key, waits until other verifiers have it, and then signs with it. This
    /// takes 5 minutes or more. If the command is interrupted, `keys promote --wait` completes the change.
    Rotate {
        /// The algorithm of the key; by default that of the configuration.
        #[arg(long)]
        algorithm: Option<Algorithm>,
        /// Changes the secret for refresh tokens instead.
        #[arg(long, conflicts_with_all = ["algorithm", "after"])]
        refresh: bool,
        /// How long the key is published before the gate signs with it; at least 5m, because verifiers cache the
        /// published keys for that time.
        #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
        after: Duration,
    },
    /// Makes a key of the keyring the signing key. The command is refused while a gate of the store cannot verify with
    /// the key, or while other verifiers may not have the key yet.
    Promote {
        /// The key's id; refresh-2 is the second secret for refresh tokens.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Waits until the key may become the signing key, instead of failing.
        #[arg(long)]
        wait: bool,
        /// Makes it the signing key at once, even if verifiers may refuse the tokens. Use it if the old key was stolen.
        #[arg(long, conflicts_with = "wait")]
        force: bool,
        #[command(flatten)]
        gate: gate::GateOptions,
    },
    /// Removes an unused key and its file. The command is refused while a gate signs with the key, or while tokens of
    /// the key may be in use.
    Retire {
        /// The key's id; refresh-1 is the first secret for refresh tokens.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Removes the key at once, even if tokens need it. Use it for a stolen key.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        gate: gate::GateOptions,
    },
    /// Imports a key into the keyring: PKCS#8 in PEM, or a base64url secret for HS256, HS384 or HS512.
    Import {
        /// The file with the key. Other users must not be able to read it.
        file: PathBuf,
        /// The only algorithm of the key.
        #[arg(long)]
        algorithm: Algorithm,
        /// Makes it the signing key. By default, the key only verifies tokens until it is promoted.
        #[arg(long)]
        sign: bool,
    },
}

#[derive(Serialize)]
struct KeyChangeReport<'a> {
    kid: &'a str,
    state: &'static str,
}

pub(super) fn longest_access(config: &Config) -> Duration {
    key_roll::Longest::new(config).access
}

pub(super) fn run(path: &Path, command: KeysCommand, output: Output) -> CommandResult {
    let (KeysCommand::List { gate, .. } | KeysCommand::Promote { gate, .. } | KeysCommand::Retire { gate, .. }) =
        &command
    else {
        return run_configured(&load(path)?, command, output);
    };
    match gate.reach(path)? {
        Reach::Configured(config) => run_configured(&config, command, output),
        Reach::Gate(gate) => run_at_gate(&gate, command, output),
    }
}

fn run_configured(config: &Config, command: KeysCommand, output: Output) -> CommandResult {
    let folder = &config.issuer.keys;
    let _trail = if matches!(command, KeysCommand::List { .. }) { None } else { audit_trail(config)? };
    match command {
        KeysCommand::Init { algorithm } => {
            refuse_lost_keys(config).map_err(Failure::failed)?;
            let keyring =
                Keyring::create(folder, algorithm.unwrap_or(config.issuer.algorithm)).map_err(Failure::failed)?;
            let kid = keyring.signer().kid();
            audit::write_key(KeyEvent::Added, kid);
            output.write(&KeyChangeReport { kid, state: "signing" }, || {
                format!("{kid} is the signing key of the new keyring {}", folder.display())
            })
        }
        KeysCommand::List { refresh, gate: _ } => {
            let keyring = key_roll::load(folder).map_err(Failure::failed)?;
            list(&keys::describe(&keyring, folder), refresh, output)
        }
        KeysCommand::Add { algorithm, refresh } => {
            let kid = key_roll::add(config, algorithm, refresh).map_err(Failure::failed)?;
            confirmed(config, &kid, Some(OwnKeyState::Verifying))?;
            output.write(&KeyChangeReport { kid: &kid, state: "verifying" }, || {
                format!("{kid} was added. It does not sign yet; to sign with it, run `rotogate keys promote {kid}`")
            })
        }
        KeysCommand::Rotate { after, .. } if after < JWKS_MAX_AGE => {
            let least = humantime::format_duration(JWKS_MAX_AGE);
            Err(Failure::Usage(format!(
                "--after must be at least {least}, because other verifiers cache published keys for that long"
            )))
        }
        KeysCommand::Rotate { algorithm, refresh, after } => {
            let kid = key_roll::add(config, algorithm, refresh).map_err(Failure::failed)?;
            confirmed(config, &kid, Some(OwnKeyState::Verifying))?;
            if !output.json {
                let waits = if refresh { "all gates have it" } else { "other verifiers have it" };
                let copy = if config.store.is_shared() { ". Copy the key folder to all gates now" } else { "" };
                output.write(&(), || format!("{kid} was added. It will sign new tokens as soon as {waits}{copy}"))?;
            }
            promote(config, &kid, Some((true, after)))?;
            output.write(&KeyChangeReport { kid: &kid, state: "signing" }, || signs(&kid))
        }
        KeysCommand::Promote { kid, wait, force, gate: _ } => {
            promote(config, &kid, (!force).then_some((wait, Duration::ZERO)))?;
            output.write(&KeyChangeReport { kid: &kid, state: "signing" }, || signs(&kid))
        }
        KeysCommand::Retire { kid, force, gate: _ } => {
            if let Some(retired) = retired_by_gate(config, &kid, force)? {
                return output.write(&retired, || removed(&kid, retired.warning.as_deref()));
            }
            let warning = runtime()?.block_on(key_roll::retire(config, &kid, force, None)).map_err(Failure::failed)?;
            if let Err(failure) = confirmed(config, &kid, None) {
                // The key is already removed, so the warning about the removal must still be shown.
                warning.iter().for_each(|warning| print_error(warning));
                return Err(failure);
            }
            let retired = ChangedKey::retired(&kid, warning);
            output.write(&retired, || removed(&kid, retired.warning.as_deref()))
        }
        KeysCommand::Import { sign: true, .. } if config.store.is_shared() => Err(Failure::Failed(
            "the other gates of the store could not verify tokens that this key signs. Import the key without \
             `--sign`, copy the key folder to all gates, then run `rotogate keys promote`"
                .into(),
        )),
        KeysCommand::Import { file, algorithm, sign } => {
            let (state, word) = if sign { (KeyState::Signing, "signing") } else { (KeyState::Verifying, "verifying") };
            let kid = Keyring::import(folder, &file, algorithm, state).map_err(Failure::failed)?;
            audit::write_key(KeyEvent::Added, &kid);
            if sign {
                audit::write_key(KeyEvent::Promoted, &kid);
            }
            confirmed(config, &kid, Some(if sign { OwnKeyState::Signing } else { OwnKeyState::Verifying }))?;
            output.write(&KeyChangeReport { kid: &kid, state: word }, || {
                format!("{kid} was imported as a {word} key; a running gate uses it within a second")
            })
        }
    }
}

/// Lets the running gate remove a refresh secret, because only the gate can count API keys in its embedded store.
/// Returns `None` if this command must remove the secret itself.
fn retired_by_gate(config: &Config, kid: &str, force: bool) -> Result<Option<ChangedKey>, Failure> {
    if config.store.is_shared() || config.api_keys.is_none() || Keyring::refresh_id(kid).is_none() {
        return Ok(None);
    }
    let gate = config.admin.access();
    if runtime()?.block_on(admin_client::send(&gate, Method::GET, "/v1/keys")).is_ok_and(|answer| answer.is_none()) {
        return Ok(None);
    }
    match ask(&gate, kid, "retire", force) {
        Ok(retired) => {
            confirmed(config, kid, None)?;
            Ok(Some(retired))
        }
        Err(_) if force => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn ask(gate: &AdminAccess, kid: &str, operation: &str, force: bool) -> Result<ChangedKey, Failure> {
    let path = format!("/v1/keys/{}/{operation}", admin_client::escaped(kid));
    runtime()?.block_on(admin_client::post(gate, &path, &KeyRequest { force }))
}

/// For `when`, see [`key_roll::promote`].
fn promote(config: &Config, kid: &str, when: Option<(bool, Duration)>) -> CommandResult {
    let with_advice = |error| match error {
        error @ RollError::TooEarly(_) => {
            Failure::Failed(format!("{error}. Use `--wait` to wait until the key can sign"))
        }
        error => Failure::failed(error),
    };
    runtime()?.block_on(key_roll::promote(config, kid, when)).map_err(with_advice)?;
    confirmed(config, kid, Some(OwnKeyState::Signing))
}

/// Waits until the running gate reports the expected state of a key. `None` means that the gate must not have the key.
// Requirement O29.
fn confirmed(config: &Config, kid: &str, expected: Option<OwnKeyState>) -> CommandResult {
    let gate = config.admin.access();
    let found = |keys: Keys| {
        let signing = keys.keys.into_iter().map(|key| (key.kid, key.state));
        let all = signing.chain(keys.refresh.into_iter().map(|key| (key.kid, key.state)));
        all.into_iter().find(|(known, _)| known == kid).map(|(_, state)| state)
    };
    let asking = async {
        loop {
            let response = admin_client::send(&gate, Method::GET, "/v1/keys").await?;
            if response.is_none() || found(admin_client::read(&gate, response).await?) == expected {
                return Ok::<(), Failure>(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let asked = runtime()?.block_on(async { tokio::time::timeout(CONFIRM_WITHIN, asking).await });
    let why = match asked {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => {
            format!("the gate has not applied the change after {} s; see the gate's log", CONFIRM_WITHIN.as_secs())
        }
    };
    Err(Failure::Failed(format!(
        "the key folder was changed ({kid}), but the running gate did not confirm the change: {why}. The gate reads \
         the folder by itself within a second"
    )))
}

fn run_at_gate(gate: &AdminAccess, command: KeysCommand, output: Output) -> CommandResult {
    match command {
        KeysCommand::List { refresh, gate: _ } => {
            let keys = runtime()?.block_on(admin_client::request(gate, Method::GET, "/v1/keys"))?;
            list(&keys, refresh, output)
        }
        KeysCommand::Promote { kid, wait: false, force, gate: _ } => {
            let done = ask(gate, &kid, "promote", force)?;
            output.write(&done, || signs(&done.kid))
        }
        KeysCommand::Retire { kid, force, gate: _ } => {
            let done = ask(gate, &kid, "retire", force)?;
            output.write(&done, || removed(&done.kid, done.warning.as_deref()))
        }
        KeysCommand::Promote { wait: true, .. }
        | KeysCommand::Init { .. }
        | KeysCommand::Add { .. }
        | KeysCommand::Rotate { .. }
        | KeysCommand::Import { .. } => Err(no_gate_can()),
    }
}

fn list(keys: &Keys, refresh: bool, output: Output) -> CommandResult {
    match refresh {
        true => output.list(&keys.refresh, |key| format!("{}  {}  {}", key.kid, key.state.word(), key.age.in_words())),
        false => output.list(&keys.keys, |key| {
            format!("{}  {:6}  {}  {}", key.kid, key.algorithm, key.state.word(), key.age.in_words())
        }),
    }
}

fn removed(kid: &str, warning: Option<&str>) -> String {
    let warning = warning.map(|warning| format!("\n{warning}")).unwrap_or_default();
    format!("{kid} was removed. Copy `keyring.toml` to the other gates, then remove the key's file there{warning}")
}

fn signs(kid: &str) -> String {
    format!("{kid} is now used for new tokens; a running gate uses the key within a second")
}
