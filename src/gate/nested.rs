//! Restores the whole path inside an axum `Router::nest`, which removes the prefix before its layers run.

use axum::extract::OriginalUri;
use http::Uri;
use http::request::Parts;

pub(super) fn whole(parts: &Parts) -> Option<Uri> {
    let OriginalUri(whole) = parts.extensions.get::<OriginalUri>()?;
    (whole.path() != parts.uri.path()).then(|| whole.clone())
}
