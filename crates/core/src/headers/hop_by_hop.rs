//! Headers that belong to one connection (RFC 9110 §7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, Entry, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::names;

/// Headers that are removed even if `Connection` does not name them.
static HOP_BY_HOP: [HeaderName; 10] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
    EXPECT,
    HeaderName::from_static("proxy"),
    TRANSFER_ENCODING,
    UPGRADE,
];

fn begins_like_one(name: &HeaderName) -> bool {
    // A single match is faster than a `starts_with` for each prefix.
    matches!(
        name.as_str().as_bytes(),
        [b'k', b'e', b'e', b'p', ..]
            | [b'p', b'r', b'o', b'x', b'y', ..]
            | [b'h', b't', b't', b'p', ..]
            | [b'e', b'x', b'p', b'e', ..]
            | [b't', b'r', b'a', b'n', ..]
            | [b'u', b'p', b'g', b'r', b'a', b'd', b'e']
    )
}

/// What [`remove_hop_by_hop`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedHeaders {
    /// Whether a `Transfer-Encoding` was removed.
    pub had_coding: bool,
    /// Whether the body is still encoded, by a coding other than `chunked`.
    pub had_other_coding: bool,
    /// Whether the message has a `Content-Length`.
    pub has_length: bool,
    /// Whether the message has a `Content-Type`.
    pub has_media_type: bool,
    /// Whether the message has an `Authorization`.
    pub has_credential: bool,
}

/// The allowed `Connection` options, none of which is a header that the gate sets.
const OPTIONS: [&str; 5] = ["close", "keep-alive", "upgrade", "te", "http2-settings"];

/// Removes hop-by-hop headers and the headers that `Connection` names. Call this function before the gate adds headers.
/// `te: trailers` stays (RFC 9110 §10.1.4), because it states a capability of the client.
///
/// An end-to-end header (`authorization`, `host`, `content-length`, `x-auth-…`) stays even if `Connection` names it
/// (T5).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> RemovedHeaders {
    // One scan of all names costs less than looking up each name.
    let (mut has_connection, mut has_te, mut has_others) = (false, false, false);
    let mut seen = RemovedHeaders::default();
    for name in headers.keys() {
        has_connection |= *name == CONNECTION;
        has_te |= *name == TE;
        seen.had_coding |= *name == TRANSFER_ENCODING;
        seen.has_length |= *name == CONTENT_LENGTH;
        seen.has_media_type |= *name == CONTENT_TYPE;
        seen.has_credential |= *name == AUTHORIZATION;
        has_others |= begins_like_one(name);
    }
    if has_connection {
        // Most servers send one of these two values.
        let is_usual = |line: &HeaderValue| line == "keep-alive" || line == "close";
        match headers.entry(CONNECTION) {
            Entry::Occupied(lines) if is_usual(lines.get()) && lines.iter().nth(1).is_none() => drop(lines.remove()),
            _ => {
                drop_named(headers);
                headers.remove(CONNECTION);
            }
        }
    }
    if seen.had_coding {
        let is_framing = |coding: &str| ["chunked", "identity"].iter().any(|known| coding.eq_ignore_ascii_case(known));
        seen.had_other_coding = !options(headers, TRANSFER_ENCODING).all(is_framing);
    }
    if has_others {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if has_te {
        let trailers = options(headers, TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    seen
}

/// Removes all `Connection` options that are not allowed. No allowed option names a header that the gate sets.
pub(super) fn settle_connection(headers: &mut HeaderMap) {
    if options(headers, CONNECTION).all(is_harmless) {
        return;
    }
    drop_named(headers);
    let left: Vec<&str> = OPTIONS
        .into_iter()
        .filter(|known| options(headers, CONNECTION).any(|option| option.eq_ignore_ascii_case(known)))
        .collect();
    let left = left.join(", ");
    headers.remove(CONNECTION);
    if let (false, Ok(value)) = (left.is_empty(), HeaderValue::from_str(&left)) {
        headers.insert(CONNECTION, value);
    }
}

fn drop_named(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for option in options(headers, CONNECTION) {
        if is_harmless(option) || names::is_end_to_end(option) {
            continue;
        }
        named.extend(HeaderName::from_bytes(option.as_bytes()).ok().filter(|name| headers.contains_key(name)));
    }
    for name in named {
        // The framing depends on `Transfer-Encoding`, which is removed later.
        if name != TRANSFER_ENCODING {
            headers.remove(name);
        }
    }
}

fn is_harmless(option: &str) -> bool {
    OPTIONS.iter().any(|known| option.eq_ignore_ascii_case(known))
}

fn options(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"));
    lines.flat_map(|line| line.split(',')).map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_every_name_of_the_list_is_seen_at_a_glance() {
        assert!(HOP_BY_HOP.iter().all(begins_like_one));
        assert!(!begins_like_one(&http::header::ACCEPT));
    }
}
