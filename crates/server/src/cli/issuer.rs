//! `rotogate issuer`: issuers whose keys the running gate fetches.

use clap::Subcommand;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::output::Output;
use super::{CommandResult, admin_client, runtime};
use crate::server::build::issuers::{IssuerReport, IssuerReports};
use rotogate_config::AdminAccess;

#[derive(Debug, Subcommand)]
pub(super) enum IssuerCommand {
    /// Lists the issuers, with the location of their keys, their state and their last failure.
    List,
    /// Fetches the keys of an issuer now.
    Refresh {
        /// The name of the issuer in [[issuers]].
        name: String,
    },
    /// Drops the keys of an issuer. Its tokens get 503 until the next refresh or start.
    Drop {
        /// The name of the issuer in [[issuers]].
        name: String,
    },
}

pub(super) fn run(gate: &AdminAccess, command: IssuerCommand, output: Output) -> CommandResult {
    let path = match command {
        IssuerCommand::List => {
            let all: IssuerReports = runtime()?.block_on(admin_client::request(gate, Method::GET, "/v1/issuers"))?;
            return output.list(&all.issuers, line);
        }
        IssuerCommand::Refresh { name } => path(&name, "refresh"),
        IssuerCommand::Drop { name } => path(&name, "drop"),
    };
    let issuer: IssuerReport = runtime()?.block_on(admin_client::request(gate, Method::POST, &path))?;
    output.write(&issuer, || line(&issuer))
}

fn path(name: &str, operation: &str) -> String {
    format!("/v1/issuers/{}/{operation}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

fn line(issuer: &IssuerReport) -> String {
    let IssuerReport { name, url, state, keys, file, dropped, required: _, last_success, failure, refused_keys } =
        issuer;
    let Some(keys) = keys else {
        let file = file.as_ref().map(|file| format!("  {file}")).unwrap_or_default();
        return format!("{name}  {state}{file}  {url}");
    };
    let last = last_success.as_deref().unwrap_or("never");
    let mut line = format!("{name}  {state}  keys {keys}  refused {}  last response {last}  {url}", refused_keys.len());
    if *dropped {
        line.push_str("  dropped");
    }
    if let Some(failure) = failure {
        line.push_str(&format!("\n    {}: {}", failure.cause, failure.message));
    }
    line
}
