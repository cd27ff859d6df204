//! The bench of peers: rotogate's release binary and other gateways, each in front of the same
//! upstream and under the same load, measured in turn. `./run` builds and starts it; `benches/peers/RESULTS.md` is what it writes.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cell;
mod check;
mod client;
mod config;
mod contender;
mod cores;
mod crew;
mod flood;
mod goals;
mod keys;
mod limits;
mod load;
mod plot;
mod prepare;
mod process;
mod report;
mod run;
mod serve;
mod sets;
mod statistics;
mod template;
mod tls;
mod tokens;

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures all contenders in turn and writes the report.
    Compare(run::Options),
    /// One of the servers that are measured. Started by `compare`.
    #[command(hide = true)]
    Serve {
        /// Which one.
        kind: serve::Kind,
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
        /// What it forwards to.
        #[arg(long)]
        upstream: SocketAddr,
        /// Of the tokens.
        #[arg(long)]
        algorithm: rotogate::token::Algorithm,
        /// The folder with the public keys.
        #[arg(long)]
        keys: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare(options) => run::run(&options),
        Command::Serve { kind, listen, upstream, algorithm, keys } => {
            serve::run(kind, listen, upstream, (algorithm, &keys))
        }
    }
}
