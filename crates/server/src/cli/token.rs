//! `rotogate token`.

use std::time::Duration;

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, audit_trail, prompt, runtime};
use rotogate_config::Config;
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::session::Scope;
use rotogate_core::token::claims::MintedClaims;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::{MAX_SESSIONLESS_LIFETIME, mint};

mod inspect;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Shows what kind of token is on standard input, whether the gate would accept it, and why. Fetches the issuer's
    /// keys if the gate would. Asks the running gate about revocations. The exit code is 1 if the token is refused.
    Inspect {
        /// The name of the issuer in [[issuers]], or "self", whose rules apply to the token. By default, the token's
        /// iss or an opaque token's prefix selects the issuer.
        #[arg(long)]
        issuer: Option<String>,
        /// Calls the issuer's introspection endpoint if the gate would.
        #[arg(long)]
        online: bool,
    },
    /// Mints an access token without a session, for a job or a test. It is valid until it expires or its jti is
    /// revoked.
    Mint {
        /// The `sub`.
        #[arg(long)]
        subject: String,
        /// The client of the token, which must be in [[clients]] and can revoke the token.
        #[arg(long)]
        client: String,
        /// The scopes of the token, separated by spaces.
        #[arg(long, default_value = "")]
        scope: String,
        /// The lifetime of the token; at most one day.
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
}

#[derive(Serialize)]
struct MintReport<'a> {
    access_token: &'a str,
    jti: &'a str,
    expires: u64,
}

pub(super) fn run(config: &Config, command: TokenCommand, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    match command {
        TokenCommand::Inspect { issuer, online } => {
            let token = prompt::piped("the token")?;
            let token = super::explain::without_scheme(token.expose_secret());
            let found = runtime()?.block_on(inspect::inspect(config, &keyring, token, issuer.as_deref(), online))?;
            let text = serde_json::to_string_pretty(&found).map_err(Failure::failed)?;
            output.write(&found, || text)?;
            // Requirement O40.
            if found.is_good() { Ok(()) } else { Err(Failure::Told) }
        }
        TokenCommand::Mint { subject, client, scope, ttl } => {
            make(config, &keyring, [&subject, &client, &scope], ttl, output)
        }
    }
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
            "`[[clients]]` does not contain the client {client:?}, so no client could revoke the token"
        )));
    }
    let scope = Scope::parse(scope).map_err(Failure::failed)?;
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
        bound_to: None,
        certificate: None,
        vouched_by: None,
        delegation: None,
        own: None,
        style: rotogate_core::token::claims::TokenStyle::default(),
    };
    let _trail = audit_trail(config)?;
    let token = mint::mint(keyring.signer(), &claims).map_err(Failure::failed)?;
    let (ttl, scope) = (ttl.as_secs(), scope.as_str());
    tracing::info!(
        target: "rotogate::audit",
        event = "token_minted",
        user.id = subject,
        rotogate.client.id = client,
        rotogate.token.id = jti,
        scope,
        ttl,
        "token minted by hand"
    );
    let minted = MintReport { access_token: token.expose(), jti: &jti, expires: expires.as_secs() };
    output.write(&minted, || token.expose().to_owned())
}
