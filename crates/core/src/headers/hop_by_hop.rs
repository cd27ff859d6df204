//! Headers that belong to one connection (RFC 9110 §7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, Entry, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::names;

/// Removed whether or not `Connection` names them.
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

/// Does the name begin like a name in [`HOP_BY_HOP`]?
fn begins_like_one(name: &HeaderName) -> bool {
    // The bytes one by one: `starts_with` is a call for each beginning.
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

/// What [`remove_hop_by_hop`] saw on its pass over the names, so that its callers need no look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedHeaders {
    /// The message had a `Transfer-Encoding`, which was removed.
    pub had_coding: bool,
    /// It named another coding than `chunked`, so the body is still coded.
    pub had_other_coding: bool,
    /// The message has a `Content-Length`.
    pub has_length: bool,
    /// The message has a `Content-Type`.
    pub has_media_type: bool,
    /// The message has an `Authorization`.
    pub has_credential: bool,
}

/// Options that concern only the connection and cannot name one of our headers.
const OPTIONS: [&str; 5] = ["close", "keep-alive", "upgrade", "te", "http2-settings"];

/// Removes the headers of the message's own connection from a request or a response: hop-by-hop headers, and those that
/// `Connection` names. Call it before anything is added.
///
/// `te: trailers` stays (with `Connection: te`, RFC 9110 §10.1.4), because it states a capability of the client. A
/// `Connection` that names an end-to-end header (`authorization`, `host`, `content-length`, `x-auth-…`) removes nothing
/// (T5).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> RemovedHeaders {
    // Most messages have at most `Connection`, and a look-up of each name costs more than a scan of the present names.
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
        // Nearly every server sends this one, which names no header.
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

/// Executes `Connection` now, and leaves in it only options that name no header of this gate.
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
        // These headers decided the framing; they are removed with the other hop-by-hop headers.
        if name != TRANSFER_ENCODING {
            headers.remove(name);
        }
    }
}

fn is_harmless(option: &str) -> bool {
    OPTIONS.iter().any(|known| option.eq_ignore_ascii_case(known))
}

/// The members of a list header, over all its lines. A line that is not ASCII has one member, which names nothing.
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
