//! The whole path of a request inside an axum `Router::nest`, which cuts the prefix off before its layers run.

use axum::extract::OriginalUri;
use http::Uri;
use http::request::Parts;

/// The URI that routing began with, if what is left of it has another path.
pub(super) fn whole(parts: &Parts) -> Option<Uri> {
    let OriginalUri(whole) = parts.extensions.get::<OriginalUri>()?;
    (whole.path() != parts.uri.path()).then(|| whole.clone())
}
