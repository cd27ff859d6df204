//! `rotogate token`.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, prompt};
use crate::config::Config;
use rotogate::clock::{SystemTime, TimeSource, Timestamp};
use rotogate::session::Scope;
use rotogate::token::claims::MintedClaims;
use rotogate::token::keyring::Keyring;
use rotogate::token::refresh;
use rotogate::token::verify::{IssuerRules, Verifier};
use rotogate::token::{MAX_SESSIONLESS_LIFETIME, mint};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what a token on standard input is, and whether our keys verify it. Does not check revocations.
    Inspect,
    /// Mints an access token without a session, for a job or a test. It ends when it expires, or by a revocation of its
    /// jti.
    Mint {
        /// The `sub`.
        #[arg(long)]
        subject: String,
        /// The client that it is for: one of [[clients]], which can revoke it.
        #[arg(long)]
        client: String,
        /// Its scopes, separated by spaces.
        #[arg(long, default_value = "")]
        scope: String,
        /// Its lifetime; a day at most.
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum TokenReport {
    AccessToken {
        authentic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        claims: Option<serde_json::Value>,
    },
    RefreshToken {
        authentic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
    },
}

#[derive(Serialize)]
struct MintReport<'a> {
    access_token: &'a str,
    jti: &'a str,
    expires: u64,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::of)?;
    match command {
        Command::Inspect => {
            let token = prompt::piped("the token")?;
            let found = inspect(config, &keyring, token.expose_secret().trim())?;
            let text = serde_json::to_string_pretty(&found).map_err(Failure::of)?;
            output.write(&found, || text)
        }
        Command::Mint { subject, client, scope, ttl } => {
            make(config, &keyring, [&subject, &client, &scope], ttl, output)
        }
    }
}

fn inspect(config: &Config, keyring: &Keyring, token: &str) -> Result<TokenReport, Failure> {
    if token.starts_with(refresh::PREFIX) {
        let authentic = refresh::authenticate(keyring.refresh_keys(), token);
        return Ok(TokenReport::RefreshToken {
            authentic: authentic.is_some(),
            session: authentic.as_ref().map(|known| known.session.to_string()),
            generation: authentic.as_ref().map(|known| known.generation.get()),
        });
    }
    let issuer: Arc<str> = config.issuer.url.as_str().into();
    let audience = config.issuer.audience.iter().map(|one| one.as_str().into()).collect();
    let mut rules = vec![IssuerRules::own(issuer, audience, keyring, config.issuer.leeway)];
    rules.extend(crate::server::assemble::load_issuers(config).map_err(Failure::of)?);
    let verifier = Verifier::new(rules).map_err(Failure::of)?;
    let now = SystemTime::new().wall();
    Ok(match verifier.verify(token, now, now) {
        Ok(access) => TokenReport::AccessToken {
            authentic: true,
            refused: None,
            claims: Some(serde_json::Value::Object(access.claims())),
        },
        // Claims that cannot be verified are not shown: nothing in them can be trusted.
        Err(denial) => TokenReport::AccessToken { authentic: false, refused: Some(denial.reason()), claims: None },
    })
}

fn make(
    config: &Config,
    keyring: &Keyring,
    [subject, client, scope]: [&str; 3],
    ttl: Duration,
    output: Output,
) -> CommandResult {
    if ttl > MAX_SESSIONLESS_LIFETIME {
        return Err(Failure::Failed("--ttl must be at most 1d: a token without a session is hard to revoke".into()));
    }
    if config.clients.iter().all(|known| *known.id != *client) {
        return Err(Failure::Failed(format!(
            "there is no client {client:?} in [[clients]]: no client could revoke the token"
        )));
    }
    let scope = Scope::parse(scope).map_err(Failure::of)?;
    let now = SystemTime::new().wall();
    let expires = Timestamp::from_secs(now.plus(ttl).as_secs_rounded_up());
    let jti = uuid::Uuid::new_v4().to_string();
    let audience: Vec<Box<str>> = config.issuer.audience.iter().map(|one| one.as_str().into()).collect();
    let claims = MintedClaims {
        issuer: &config.issuer.url,
        subject,
        audience: &audience,
        expires,
        issued_at: now,
        jti: &jti,
        client,
        scope: &scope,
        session: None,
        account: None,
        own: None,
        style: rotogate::token::claims::TokenStyle::default(),
    };
    let token = mint::mint(keyring.signer(), &claims).map_err(Failure::of)?;
    let minted = MintReport { access_token: token.expose(), jti: &jti, expires: expires.as_secs() };
    output.write(&minted, || token.expose().to_owned())
}
