//! The operator's request for a copy of the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rotogate::store::redb::RedbStore;
use rotogate_core::private_file;
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;

use super::problem::{Code, Refusal};
use super::{AdminResult, AdminState, reply};

/// The folder to which the gate copies the store before it sends the copy.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BackupQuery {
    /// An existing folder on the gate's machine that has room for a copy. The gate uses the folder of the store if this
    /// folder is missing or cannot be written.
    #[param(value_type = Option<String>)]
    folder: Option<PathBuf>,
}

/// Returns a consistent copy of the embedded store.
#[utoipa::path(
    post, path = "/v1/store/backup", operation_id = "back_up_store", tag = "store", params(BackupQuery),
    responses((status = 200, description = "the copy", body = Vec<u8>, content_type = "application/octet-stream"))
)]
pub(super) async fn backup(state: &AdminState, BackupQuery { folder }: BackupQuery) -> AdminResult {
    let Some(store) = &state.redb else {
        return Err(Refusal::new(
            Code::NotConfigured,
            "this store is not in a file; back it up with the tools of its database server",
        ));
    };
    let file = copy_somewhere(store, folder.as_deref()).await.map_err(|error| {
        tracing::error!(%error, "store backup failed");
        let detail = format!(
            "{error}. The running gate first copies the store to a folder in which it can write. Choose another FILE, \
             or free disk space. If you stop the gate, the command writes the copy directly to FILE"
        );
        Refusal::new(Code::StoreFailed, detail).retry_after(Duration::from_secs(1))
    })?;
    let frames = ReaderStream::with_capacity(file, 64 * 1024).map_ok(Frame::data);
    tracing::info!(target: "rotogate::audit", event = "store_backup", "store copied");
    Ok(reply("application/octet-stream", StreamBody::new(frames).boxed_unsync()))
}

async fn copy_somewhere(store: &RedbStore, wanted: Option<&Path>) -> Result<tokio::fs::File, String> {
    let beside = private_file::parent(store.path());
    let is_beside = |folder: &Path| std::path::absolute(beside).is_ok_and(|beside| beside == folder);
    let to = wanted.filter(|folder| folder.is_absolute() && folder.is_dir() && !is_beside(folder));
    let first = match to {
        Some(folder) => match copy(store, folder).await {
            Ok(file) => return Ok(file),
            Err(error) => format!("{error}, and "),
        },
        None => String::new(),
    };
    copy(store, beside).await.map_err(|error| format!("{first}{error}"))
}

/// Copies the store into a file that is unlinked before it is sent.
async fn copy(store: &RedbStore, folder: &Path) -> Result<tokio::fs::File, Box<dyn std::error::Error + Send + Sync>> {
    let path = folder.join(format!(".backup-{}", uuid::Uuid::new_v4()));
    store.backup_to(&path).await?;
    let file = tokio::fs::File::open(&path).await;
    tokio::fs::remove_file(&path).await?;
    Ok(file?)
}
