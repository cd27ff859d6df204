//! `rotogate keys`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, runtime};
use crate::config::Config;
use crate::server::assemble::shared_store;
use rotogate::clock::{SystemTime, TimeSource, Timestamp};
use rotogate::gate::JWKS_MAX_AGE;
use rotogate::store::NodeSeen;
use rotogate::token::Algorithm;
use rotogate::token::keyring::{KeyState, Keyring};

/// How often `promote --wait` looks again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes the keys of a new gate. A gate that shares its store makes none by itself unless it makes the store.
    Init {
        /// The algorithm of the key; the default is that of the configuration.
        #[arg(long)]
        algorithm: Option<Algorithm>,
    },
    /// Lists the keys.
    List,
    /// Adds a new key, which only verifies: the first step of changing the key that signs.
    Add {
        /// The algorithm of the key; the default is that of the configuration.
        #[arg(long)]
        algorithm: Option<Algorithm>,
    },
    /// Signs with a key of the keyring from now on. Refused while a gate of the store cannot verify by it, or while other
    /// verifiers may still have the keys that were published before it.
    Promote {
        /// The key.
        kid: String,
        /// Waits until it may sign, instead of refusing.
        #[arg(long)]
        wait: bool,
        /// Signs at once, whatever refuses the tokens: for a key that was stolen.
        #[arg(long, conflicts_with = "wait")]
        force: bool,
    },
    /// Imports a key into the keyring: PKCS#8 PEM, or a base64url secret for HS256, HS384 and HS512.
    Import {
        /// The file. Other users must not be able to read it.
        file: PathBuf,
        /// The one algorithm of the key.
        #[arg(long)]
        algorithm: Algorithm,
        /// Signs with it from now on. Without this it only verifies, until it is imported again with --sign, or promoted.
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
struct ChangeReport<'a> {
    kid: &'a str,
    state: &'static str,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> CommandResult {
    let folder = &config.issuer.keys;
    match command {
        Command::Init { algorithm } => {
            let keyring = Keyring::create(folder, algorithm.unwrap_or(config.issuer.algorithm)).map_err(Failure::of)?;
            let kid = keyring.signer().kid();
            output.write(&ChangeReport { kid, state: "signing" }, || {
                format!("{kid} is in the new keyring {}, signing", folder.display())
            })
        }
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
        Command::Add { algorithm } => {
            let algorithm = algorithm.unwrap_or(config.issuer.algorithm);
            let kid = Keyring::add(folder, algorithm, KeyState::Verifying).map_err(Failure::of)?;
            output.write(&ChangeReport { kid: &kid, state: "verifying" }, || {
                format!("{kid} is in the keyring, verifying; make it sign with: rotogate keys promote {kid}")
            })
        }
        Command::Promote { kid, wait, force } => {
            if !force {
                runtime()?.block_on(until_it_may_sign(config, &kid, wait))?;
            }
            Keyring::make_signing(folder, &kid).map_err(Failure::of)?;
            output.write(&ChangeReport { kid: &kid, state: "signing" }, || {
                format!("{kid} signs; a running gate takes it up within a second")
            })
        }
        Command::Import { sign: true, .. } if config.store.is_shared() => Err(Failure::Failed(
            "other gates of the store could not verify its tokens yet: import it without --sign, copy the key folder to all \
             gates, then rotogate keys promote"
                .into(),
        )),
        Command::Import { file, algorithm, sign } => {
            let (state, word) = if sign { (KeyState::Signing, "signing") } else { (KeyState::Verifying, "verifying") };
            let kid = Keyring::import(folder, &file, algorithm, state).map_err(Failure::of)?;
            output.write(&ChangeReport { kid: &kid, state: word }, || {
                format!("{kid} is in the keyring, {word}; a running gate takes it up within a second")
            })
        }
    }
}

/// Returns once tokens that this key signs are good everywhere.
async fn until_it_may_sign(config: &Config, kid: &str, wait: bool) -> CommandResult {
    let folder = &config.issuer.keys;
    let keyring = Keyring::load(folder).map_err(Failure::of)?;
    if keyring.signer().kid() == kid {
        return Ok(());
    }
    let Some(written) = Keyring::written_at(folder, kid).map_err(Failure::of)? else {
        return Err(Failure::Failed(format!("{}: there is no key {kid}; see rotogate keys list", folder.display())));
    };
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let written = Timestamp::ZERO.plus(written);
    let store = shared_store(config, &keyring).await.map_err(Failure::of)?;
    loop {
        let (nodes, now) = match store.as_deref().and_then(rotogate::store::Store::shared) {
            Some(shared) => {
                let nodes = shared.nodes().await.map_err(Failure::of)?;
                (nodes, shared.last_known_time().await.map_err(Failure::of)?)
            }
            None => (Vec::new(), SystemTime::new().wall()),
        };
        let Some(why) = why_not(kid, written, &nodes, now) else { return Ok(()) };
        if !wait {
            return Err(Failure::Failed(format!("{kid} does not sign yet: {why}; --wait waits for that")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a token that this key signs might be refused somewhere; `None` if none would be.
fn why_not(kid: &str, written: Timestamp, nodes: &[NodeSeen], now: Timestamp) -> Option<String> {
    let lacks = |seen: &&NodeSeen| !seen.row.kids.iter().any(|known| **known == *kid);
    let lacking = nodes.iter().filter(lacks).map(|seen| {
        let ago = humantime::format_duration(Duration::from_secs(now.since(seen.beat).as_secs()));
        format!("{} (heard of {ago} ago)", seen.row.node)
    });
    let lacking: Vec<_> = lacking.collect();
    if !lacking.is_empty() {
        return Some(format!("these gates of the store cannot verify by it: {}", lacking.join(", ")));
    }
    let since = nodes.iter().map(|seen| Timestamp::from_millis(seen.row.keys_since)).fold(written, Timestamp::max);
    let left = since.plus(JWKS_MAX_AGE).since(now);
    (left > Duration::ZERO).then(|| {
        let left = humantime::format_duration(Duration::from_secs(left.as_secs() + 1));
        format!("for {left}, other verifiers may have the keys that were published before it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotogate::store::NodeRow;

    fn node(name: &str, kids: &[&str], keys_since: Timestamp) -> NodeSeen {
        let kids = kids.iter().map(|kid| (*kid).into()).collect();
        let keys_since = keys_since.as_millis();
        let row = NodeRow { node: name.into(), kids, keys_since, ..NodeRow::default() };
        NodeSeen { row, beat: Timestamp::from_secs(1_000_000) }
    }

    #[test]
    fn c28_a_key_signs_once_every_gate_has_it_and_no_verifier_has_older_keys() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let nodes = [node("a", &["k1", "k2"], at(0)), node("b", &["k1"], at(0))];
        let why = why_not("k2", at(0), &nodes, at(3)).unwrap();
        assert!(why.contains("b (heard of 3s ago)") && !why.contains("a ("), "{why}");
        let nodes = [node("a", &["k1", "k2"], at(0)), node("b", &["k1", "k2"], at(100))];
        assert!(why_not("k2", at(0), &nodes, at(399)).unwrap().contains("published before"));
        assert_eq!(why_not("k2", at(0), &nodes, at(400)), None);
        assert!(why_not("k2", at(50), &[], at(349)).is_some(), "a gate with a store of its own");
        assert_eq!(why_not("k2", at(50), &[], at(350)), None);
    }
}
