//! Restores the whole path of a request inside an axum `Router::nest`, which removes the prefix before its layers run.

use axum::extract::OriginalUri;
use http::Uri;
use http::request::Parts;

/// Returns the original URI of the request, if the URI's path differs from the path that the layer sees.
pub(super) fn whole(parts: &Parts) -> Option<Uri> {
    let OriginalUri(whole) = parts.extensions.get::<OriginalUri>()?;
    (whole.path() != parts.uri.path()).then(|| whole.clone())
}
