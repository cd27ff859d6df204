//! The operator's request for a copy of the store.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rotogate::store::redb::RedbStore;
use rotogate_core::private_file;
use tokio_util::io::ReaderStream;

use super::problem::{Code, Refusal};
use super::{AdminResult, AdminState};

/// A consistent copy of the embedded store.
#[utoipa::path(
    post, path = "/v1/store/backup", operation_id = "back_up_store", tag = "store",
    responses((status = 200, description = "the copy", body = Vec<u8>, content_type = "application/octet-stream"))
)]
pub(super) async fn backup(state: &AdminState) -> AdminResult {
    let Some(store) = &state.store else {
        return Err(Refusal::new(Code::NotConfigured, "this store is not in a file; back it up as its server says"));
    };
    let file = copy(store).await.map_err(|error| {
        tracing::error!(%error, "store backup failed");
        let folder = folder_of(store).display();
        let detail = format!(
            "{error}. The running gate first copies the store to {folder}: free space there, or stop the gate, and the command \
             writes the copy straight to its file"
        );
        Refusal::new(Code::StoreFailed, detail).retry_after(Duration::from_secs(1))
    })?;
    let frames = ReaderStream::with_capacity(file, 64 * 1024).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    tracing::info!(target: "rotogate::audit", event = "store_backup", "store copied");
    Ok(response)
}

fn folder_of(store: &RedbStore) -> &Path {
    private_file::parent(store.path())
}

/// Copies the store into a file beside it, and unlinks the file before its content is sent.
async fn copy(store: &RedbStore) -> Result<tokio::fs::File, Box<dyn std::error::Error + Send + Sync>> {
    let name = format!(".backup-{}", uuid::Uuid::new_v4());
    let path = folder_of(store).join(name);
    store.backup_to(&path).await?;
    let file = tokio::fs::File::open(&path).await;
    tokio::fs::remove_file(&path).await?;
    Ok(file?)
}
