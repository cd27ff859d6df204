//! The spelling of a resource's URI.

/// Returns whether all servers interpret this URI as the same resource.
///
/// Scheme and authority must be in lower case, without port and user. No segment may be empty, `.` or `..`.
pub(super) fn has_one_spelling(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_lower = |part: &str, marks: &[u8]| {
        part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || marks.contains(&byte))
    };
    let is_whole = match scheme {
        "file" => authority.is_empty() && path.starts_with('/') && !path.contains('?'),
        "http" | "https" | "ws" | "wss" | "ftp" => !authority.is_empty() && path.starts_with('/'),
        _ => scheme.starts_with(|first: char| first.is_ascii_lowercase()),
    };
    let is_dots = |part: &str| !part.is_empty() && part.replace("%20", "").bytes().all(|byte| byte == b'.');
    is_whole
        && is_lower(scheme, b"+-.")
        && is_lower(authority, b"-._")
        && !authority.ends_with('.')
        && !path.contains("//")
        && !path.split(['/', '?', ';']).any(is_dots)
        && is_escaped_once(path)
}

/// Only spaces and non-ASCII bytes may be escaped. A server may treat any other escape as the plain character.
pub(super) fn is_escaped_once(text: &str) -> bool {
    let is_needed = |escape: &str| match escape.as_bytes() {
        [b'2', b'0', ..] => true,
        [high, low, ..] => matches!(high, b'8' | b'9' | b'A'..=b'F') && matches!(low, b'0'..=b'9' | b'A'..=b'F'),
        _ => false,
    };
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte))
        && text.split('%').skip(1).all(is_needed)
}
