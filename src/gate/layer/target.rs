use http::request::Parts;
use http::uri::{PathAndQuery, Uri};

/// Sets the path and keeps the query.
pub(super) fn set_path(parts: &mut Parts, path: &str) -> bool {
    let whole = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    set_target(parts, whole)
}

pub(in crate::gate) fn set_target(parts: &mut Parts, target: String) -> bool {
    let Ok(target) = PathAndQuery::try_from(target) else { return false };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target);
    match Uri::from_parts(uri) {
        Ok(uri) => {
            parts.uri = uri;
            true
        }
        Err(_) => false,
    }
}
