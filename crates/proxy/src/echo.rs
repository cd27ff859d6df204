//! The built-in upstream `echo:`, whose response shows the forwarded request.

use http::request::Parts;
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;
use serde::Serialize;

use super::body::{BodyError, ProxyBody, RequestBody};

const MAX_SHOWN_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct Echo<'r> {
    method: &'r str,
    path: &'r str,
    query: Option<&'r str>,
    headers: Vec<(&'r str, String)>,
    /// Invalid UTF-8 is shown as U+FFFD.
    body: String,
    truncated: bool,
}

pub(super) async fn answer(parts: Parts, mut body: RequestBody) -> Result<Response<ProxyBody>, BodyError> {
    let mut shown = Vec::new();
    let mut truncated = false;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = MAX_SHOWN_BYTES.saturating_sub(shown.len()).min(data.len());
            truncated |= room < data.len();
            shown.extend(data.iter().take(room));
        }
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let echo = Echo {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: parts.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect(),
        body: String::from_utf8_lossy(&shown).into_owned(),
        truncated,
    };
    let json = serde_json::to_vec(&echo).map_err(|error| BodyError::Broken(error.into()))?;
    let mut response = Response::new(ProxyBody::full(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
