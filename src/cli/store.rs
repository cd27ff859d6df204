//! `rotogate store`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Subcommand;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::output::Output;
use super::{Done, Failure, runtime};
use crate::admin::AdminToken;
use crate::config::{Config, StoreConfig};
use crate::private_file::{self, Unpublished};
use crate::store::redb::RedbStore;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies the store into a new file, consistent, also while the gate runs.
    Backup {
        /// The new file; it must not exist.
        to: PathBuf,
    },
}

#[derive(Serialize)]
struct BackedUp<'a> {
    file: &'a Path,
    bytes: u64,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> Done {
    let Command::Backup { to } = command;
    let StoreConfig::Redb { path, .. } = &config.store else {
        return Err(Failure::Failed("store.kind is \"memory\": there is nothing to back up".into()));
    };
    if to.exists() {
        return Err(Failure::Failed(format!("{} exists already; choose another name", to.display())));
    }
    let from_gate = runtime()?.block_on(from_running_gate(config, &to))?;
    if !from_gate {
        RedbStore::backup_file(path, &to).map_err(Failure::of)?;
    }
    let bytes = std::fs::metadata(&to).map_err(Failure::of)?.len();
    output.write(&BackedUp { file: &to, bytes }, || {
        let how = if from_gate { "by the running gate" } else { "from the file; no gate was running" };
        format!("{} written, {bytes} bytes, {how}", to.display())
    })
}

/// Asks the gate that runs. `false` if none answers.
async fn from_running_gate(config: &Config, to: &Path) -> Result<bool, Failure> {
    if !config.admin.token_file.exists() {
        return Ok(false);
    }
    let token = AdminToken::load(&config.admin.token_file).map_err(Failure::Failed)?;
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{}/store/backup", config.admin.listen))
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Empty::new())
        .map_err(Failure::of)?;
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(false),
        Err(error) => return Err(Failure::of(error)),
    };
    if response.status() != StatusCode::OK {
        return Err(Failure::Failed(format!(
            "the gate on {} answered {}; see its log",
            config.admin.listen,
            response.status()
        )));
    }
    private_file::create_private_dir(private_file::parent(to)).map_err(Failure::of)?;
    // Under another name until it is whole.
    let cannot = |error| Failure::Failed(format!("{} cannot be written: {error}", to.display()));
    let (part, file) = Unpublished::beside(to).map_err(cannot)?;
    write(file, response.into_body()).await?;
    part.publish_new(to).map_err(cannot)?;
    Ok(true)
}

async fn write(mut file: File, mut body: hyper::body::Incoming) -> Done {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Failure::of)?.into_data() {
            file.write_all(&data).map_err(Failure::of)?;
        }
    }
    file.sync_all().map_err(Failure::of)
}
