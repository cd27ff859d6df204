//! The lists of header names, and the comparison of names.

use super::products;

/// Headers that ask an upstream to treat the request as a request with another method or URL than the gate judged.
const OVERRIDES: [&str; 16] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-original-method",
    "x-forwarded-method",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-host",
    "x-override-url",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-path",
];

/// Headers that state the origin of a request, besides the three headers that the gate writes. Always removed: proxies
/// do not agree on them.
pub(super) const OTHER_FORWARDING: [&str; 17] = [
    "forwarded",
    "x-forwarded",
    "x-forwarded-by",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-url-scheme",
    "front-end-https",
];

/// Headers of the protocol. A disguised spelling must not pass for one of them.
const PROTOCOL: [&str; 11] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "authorization",
    "proxy-authorization",
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "proxy",
];

pub(super) const fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// A bit for the first byte of a name, folded, which other bytes may share.
pub(super) fn bit_of_first(name: &str) -> u64 {
    name.bytes().next().map_or(u64::MAX, |first| 1 << (fold_byte(first) % 64))
}

/// The folded spelling.
pub(super) fn fold(name: &str) -> String {
    name.bytes().map(|b| char::from(fold_byte(b))).collect()
}

/// Is `folded` the folded spelling of `name`?
pub(super) fn folds_to(name: &str, folded: &str) -> bool {
    name.len() == folded.len() && fold_begins(name, folded)
}

/// Does the folded spelling of `name` begin with `folded`?
pub(super) fn fold_begins(name: &str, folded: &str) -> bool {
    name.len() >= folded.len() && name.bytes().zip(folded.bytes()).all(|(n, f)| fold_byte(n) == f)
}

fn is_one_of(name: &str, list: &[&str]) -> bool {
    list.iter().any(|listed| folds_to(name, listed))
}

/// Is a name with this beginning on none of the lists of identity headers and overrides? This test settles most headers
/// of most requests.
fn is_of_no_list(name: &str) -> bool {
    let bytes = name.as_bytes();
    let second = || bytes.get(1).copied().map(fold_byte);
    match bytes.first().copied().map(fold_byte) {
        Some(b'x' | b'r') => false,
        Some(b'c') => !matches!(second(), Some(b'l' | b'f')),
        Some(b's') => !matches!(second(), Some(b's' | b'h' | b'm')),
        Some(b't') => !matches!(second(), Some(b'a' | b'e' | b'x')),
        Some(b'i') => !matches!(second(), Some(b'v' | b'm')),
        Some(b'o') => !matches!(second(), Some(b'i' | b'a')),
        Some(b'l') => second() != Some(b'5'),
        Some(_) | None => true,
    }
}

/// The patterns of the names that identify the caller to an upstream, and the names that override method or URL.
pub(super) fn of_lists() -> impl Iterator<Item = &'static str> {
    products::patterns().chain(OVERRIDES)
}

/// Does the header, in any spelling, identify the caller to an upstream?
pub(super) fn is_identity(name: &str) -> bool {
    !is_of_no_list(name) && products::is_identity(name)
}

/// Does the header, in any spelling, override method or URL?
pub(super) fn is_override(name: &str) -> bool {
    !is_of_no_list(name) && is_one_of(name, &OVERRIDES)
}

/// Does [`super::forwarded`] remove this header, in any spelling?
pub(super) fn is_other_forwarding(name: &str) -> bool {
    // Most headers of most requests begin with other characters.
    let mut begin = name.bytes().map(fold_byte);
    let may_be = match begin.next() {
        Some(b'x') => begin.next() == Some(b'-') && matches!(begin.next(), Some(b'c' | b'f' | b'r' | b'u')),
        Some(b'f') => matches!(begin.next(), Some(b'a' | b'o' | b'r')),
        Some(b't') => begin.next() == Some(b'r'),
        Some(b'c') => begin.next() == Some(b'f'),
        Some(_) | None => false,
    };
    may_be && is_one_of(name, &OTHER_FORWARDING)
}

/// Is the name clearly on no list here, and not disguised? Most headers of most requests are plain.
pub(super) fn is_plain(name: &str) -> bool {
    is_of_no_list(name) && name != "proxy" && !name.bytes().any(is_unusual)
}

/// For each byte: does it fold to `-` without being `-`?
const UNUSUAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < u8::MAX {
        table[byte as usize] = byte != b'-' && fold_byte(byte) == b'-';
        byte += 1;
    }
    table[byte as usize] = true;
    table
};

fn is_unusual(byte: u8) -> bool {
    UNUSUAL.get(usize::from(byte)).copied().unwrap_or(true)
}

/// Does the name contain a character, other than `-`, that folds to `-`?
pub(super) fn is_unusually_spelt(name: &str) -> bool {
    name.bytes().any(is_unusual)
}

/// Is the name an unusual spelling of a header that has a meaning to the protocol, or that we write ourselves?
pub(super) fn is_disguised(name: &str) -> bool {
    // `Proxy` becomes `HTTP_PROXY`, which a CGI program reads as its proxy (CVE-2016-5385).
    name == "proxy"
        || name.bytes().any(is_unusual) && (is_one_of(name, &PROTOCOL) || is_one_of(name, &OTHER_FORWARDING))
}

/// Does the header, in any spelling, have a meaning to the protocol, or do we write or remove it?
pub(super) fn is_ours_or_protocol(name: &str) -> bool {
    const CONNECTION: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
    is_one_of(name, &PROTOCOL) || is_one_of(name, &OTHER_FORWARDING) || is_one_of(name, &CONNECTION)
}

/// The headers of the protocol itself, and the headers that the gate writes.
pub(super) fn protocol() -> impl Iterator<Item = &'static str> {
    PROTOCOL.iter().copied()
}

/// Is this a header that no `Connection` header may remove?
pub(super) fn is_end_to_end(name: &str) -> bool {
    const REQUEST: [&str; 16] = [
        "accept",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "host",
        "origin",
        "range",
        "set-cookie",
        "trailer",
        "vary",
        "www-authenticate",
    ];
    is_one_of(name, &REQUEST)
        || is_identity(name)
        || is_override(name)
        || is_other_forwarding(name)
        || fold_begins(name, "x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_every_name_of_another_origin_is_known_in_any_spelling() {
        for name in OTHER_FORWARDING {
            for spelling in [name.to_owned(), name.replace('-', "_"), name.to_uppercase(), name.replace('-', ".")] {
                assert!(is_other_forwarding(&spelling), "{spelling}");
            }
        }
        for other in ["", "x", "x-", "x-request-id", "x-forwarded-for", "content-type", "te", "cf", "from"] {
            assert!(!is_other_forwarding(other), "{other}");
        }
    }
}
