//! `rotogate store`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;

use super::gate::{self, Reach};
use super::output::Output;
use super::{CommandResult, Failure, admin_client, load, runtime};
use rotogate::store::redb::RedbStore;
use rotogate_config::{AdminAccess, Config, RedbSettings, StoreConfig};
use rotogate_core::private_file::{self, Unpublished};

mod accept;
mod copy;
mod reset_clock;
mod restore;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Makes a consistent copy of the store in a new file. The gate may be running.
    Backup {
        /// The new file; it must not exist.
        to: PathBuf,
        #[command(flatten)]
        gate: gate::GateOptions,
    },
    /// Replaces the store with a backup. No gate may run. The previous store is kept next to it under another name.
    Restore {
        /// The backup, which stays unchanged.
        from: PathBuf,
        /// Ends all existing sessions, tokens and API keys. Otherwise revocations that were made after the backup are
        /// lost.
        #[arg(long)]
        end_all: bool,
    },
    /// Accepts a store that is older than its mark file, or is another store, so that the gate starts on it. No gate
    /// may run.
    ///
    /// Refresh tokens that were exchanged after the store was saved become valid again, and revocations after that time
    /// are lost. With a shared store, run the command for each gate that refuses to start, because each gate has its
    /// own mark file.
    AcceptRestored,
    /// Copies all sessions and revocations into another store, and compares the two stores. If the copy is interrupted,
    /// run the command again.
    Copy {
        /// A configuration with the other store, but the same issuer and keys. No gate may run on either store.
        #[arg(long)]
        to_config: PathBuf,
    },
    /// Repairs a store that was written while the clock was ahead. No gate may run. Every session ends.
    ///
    /// Correct the clock first. Without this repair, the gate does not issue tokens until the correct clock reaches the
    /// time that the wrong clock showed.
    ResetClock {
        /// Does not ask for a confirmation.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct BackupReport<'a> {
    file: &'a Path,
    bytes: u64,
}

pub(super) fn run(path: &Path, command: StoreCommand, output: Output) -> CommandResult {
    match command {
        StoreCommand::Backup { to, gate } => match gate.reach(path)? {
            Reach::Configured(config) => backup(&config, &to, output),
            Reach::Gate(gate) => backup_at_gate(&gate, &to, output),
        },
        StoreCommand::Restore { from, end_all } => {
            let config = load(path)?;
            restore::run(&config, embedded(&config)?, &from, end_all, output)
        }
        StoreCommand::AcceptRestored => accept::run(&load(path)?, output),
        StoreCommand::Copy { to_config } => copy::run(&load(path)?, &to_config, output),
        StoreCommand::ResetClock { yes } => reset_clock::run(&load(path)?, yes, output),
    }
}

fn backup_at_gate(gate: &AdminAccess, to: &Path, output: Output) -> CommandResult {
    is_free(to)?;
    if !runtime()?.block_on(from_running_gate(gate, to))? {
        return Err(admin_client::nobody(gate));
    }
    written(to, true, output)
}

/// Returns the path of the embedded store. Other stores have their own backup tools.
fn embedded(config: &Config) -> Result<&Path, Failure> {
    let why = match &config.store {
        StoreConfig::Redb(RedbSettings { path, .. }) => return Ok(path),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(_) => {
            "`store.kind` is \"postgres\": back up and restore the database with its own tools, such as `pg_dump`"
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(_) => {
            "`store.kind` is \"redis\": back up and restore the server with its own tools, such as `BGSAVE`"
        }
        StoreConfig::Memory => "`store.kind` is \"memory\": there is nothing to back up or to restore",
    };
    Err(Failure::Failed(why.into()))
}

fn backup(config: &Config, to: &Path, output: Output) -> CommandResult {
    let path = embedded(config)?;
    is_free(to)?;
    let from_gate = runtime()?.block_on(from_running_gate(&config.admin.access(), to))?;
    if !from_gate {
        RedbStore::backup_file(path, to).map_err(Failure::failed)?;
    }
    written(to, from_gate, output)
}

/// Appends a suffix to the file name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

fn is_free(to: &Path) -> CommandResult {
    let folder = private_file::parent(to);
    // The folder is not created, because that could hide a spelling mistake or an unmounted disk.
    if !folder.is_dir() {
        let folder = folder.display();
        return Err(Failure::Failed(format!("there is no folder {folder}; create it, or correct FILE")));
    }
    match to.exists() {
        true => Err(Failure::Failed(format!("{} exists already; choose another name", to.display()))),
        false => Ok(()),
    }
}

fn written(to: &Path, from_gate: bool, output: Output) -> CommandResult {
    let bytes = std::fs::metadata(to).map_err(Failure::failed)?.len();
    output.write(&BackupReport { file: to, bytes }, || {
        let how = if from_gate { "by the running gate" } else { "from the file, because no gate was running" };
        format!("{} written, {bytes} bytes, {how}", to.display())
    })
}

async fn from_running_gate(gate: &AdminAccess, to: &Path) -> Result<bool, Failure> {
    // The gate writes into this folder, because the disk of its store may be full.
    let folder = std::path::absolute(private_file::parent(to)).map_err(Failure::failed)?;
    let query = serde_urlencoded::to_string([("folder", folder.to_string_lossy())]).map_err(Failure::failed)?;
    let path = format!("/v1/store/backup?{query}");
    let Some(response) = admin_client::send(gate, Method::POST, &path).await? else { return Ok(false) };
    if response.status() != StatusCode::OK {
        return Err(admin_client::refused(gate, response).await?);
    }
    // The copy has a temporary name until it is complete.
    let cannot = |error| Failure::Failed(format!("{} cannot be written: {error}", to.display()));
    let (part, file) = Unpublished::beside(to).map_err(cannot)?;
    write(file, response.into_body(), cannot).await?;
    part.publish_new(to).map_err(cannot)?;
    Ok(true)
}

async fn write(
    mut file: File,
    mut body: hyper::body::Incoming,
    cannot: impl Fn(io::Error) -> Failure,
) -> CommandResult {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Failure::failed)?.into_data() {
            file.write_all(&data).map_err(&cannot)?;
        }
    }
    file.sync_all().map_err(cannot)
}
