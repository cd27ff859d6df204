//! The lists of header names, and how names are compared.

use super::products;

/// Headers that make an upstream use another method or URL than the gate checked.
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

/// Other headers that state the origin of a request. Proxies do not agree on the meaning, so the gate always removes
/// these headers.
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

/// Headers that proxies and servers interpret. Other spellings of these names are removed.
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

static FOLDED: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = fold_byte(byte as u8);
        byte += 1;
    }
    table
};

pub(super) fn fold(name: &str) -> String {
    name.bytes().map(|b| char::from(fold_byte(b))).collect()
}

pub(super) fn folds_to(name: &str, folded: &str) -> bool {
    name.len() == folded.len() && fold_begins(name, folded)
}

pub(super) fn fold_begins(name: &str, folded: &str) -> bool {
    name.len() >= folded.len() && name.bytes().zip(folded.bytes()).all(|(n, f)| fold_byte(n) == f)
}

fn is_one_of(name: &str, list: &[&str]) -> bool {
    list.iter().any(|listed| folds_to(name, listed))
}

/// Quickly rules out most header names by their beginnings.
#[derive(Clone, Debug)]
pub(super) struct Beginnings {
    hashes: [u64; 16],
    /// A pattern is too short for [`Self::hash`], so no name can be ruled out.
    is_open: bool,
}

static LISTED: Beginnings = Beginnings::none().with(&[&OVERRIDES, &OTHER_FORWARDING, &PROTOCOL]).with(&products::ALL);
static FORWARDING: Beginnings = Beginnings::none().with(&[&OTHER_FORWARDING]);

impl Default for Beginnings {
    fn default() -> Self {
        LISTED.clone()
    }
}

impl Beginnings {
    const fn none() -> Self {
        Self { hashes: [0; 16], is_open: false }
    }

    /// Hashes all bytes except the second one, which is `-` in most names.
    const fn hash([first, _, third, fourth, fifth]: [u8; 5]) -> usize {
        let folded = u32::from_le_bytes([
            FOLDED[first as usize],
            FOLDED[third as usize],
            FOLDED[fourth as usize],
            FOLDED[fifth as usize],
        ]);
        (folded.wrapping_mul(0x9E37_79B1) >> 22) as usize
    }

    const fn with(mut self, lists: &[&[&str]]) -> Self {
        let mut list = 0;
        while list < lists.len() {
            let mut name = 0;
            while name < lists[list].len() {
                // Omit `host`. It is too short for the hash, and has no other spelling.
                if !matches!(lists[list][name].as_bytes(), b"host") {
                    self.add(lists[list][name]);
                }
                name += 1;
            }
            list += 1;
        }
        self
    }

    /// A trailing `*` stands for all names with this prefix.
    pub(super) const fn add(&mut self, name: &str) {
        match name.as_bytes() {
            [first, second, third, fourth, fifth, ..] if *fifth != b'*' => {
                let hash = Self::hash([*first, *second, *third, *fourth, *fifth]);
                self.hashes[hash / 64] |= 1 << (hash % 64);
            }
            _ => self.is_open = true,
        }
    }

    pub(super) fn may_have(&self, name: &str) -> bool {
        self.is_open
            || name.as_bytes().first_chunk().is_some_and(|begin| {
                let hash = Self::hash(*begin);
                self.hashes.get(hash / 64).is_some_and(|hashes| hashes >> (hash % 64) & 1 == 1)
            })
    }
}

pub(super) fn of_lists() -> impl Iterator<Item = &'static str> {
    products::patterns().chain(OVERRIDES)
}

pub(super) fn is_identity(name: &str) -> bool {
    LISTED.may_have(name) && products::is_identity(name)
}

pub(super) fn is_override(name: &str) -> bool {
    LISTED.may_have(name) && is_one_of(name, &OVERRIDES)
}

pub(super) fn is_other_forwarding(name: &str) -> bool {
    FORWARDING.may_have(name) && is_one_of(name, &OTHER_FORWARDING)
}

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

pub(super) fn is_unusually_spelt(name: &str) -> bool {
    name.bytes().any(is_unusual)
}

pub(super) fn is_disguised(name: &str) -> bool {
    // `Proxy` becomes `HTTP_PROXY`, which a CGI program reads as its proxy (CVE-2016-5385).
    name == "proxy"
        || name.bytes().any(is_unusual) && (is_one_of(name, &PROTOCOL) || is_one_of(name, &OTHER_FORWARDING))
}

pub(super) fn is_ours_or_protocol(name: &str) -> bool {
    const CONNECTION: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
    is_one_of(name, &PROTOCOL) || is_one_of(name, &OTHER_FORWARDING) || is_one_of(name, &CONNECTION)
}

pub(super) fn protocol() -> impl Iterator<Item = &'static str> {
    PROTOCOL.iter().copied()
}

/// Returns whether this header stays even if `Connection` names it.
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
    fn t3_the_quick_test_settles_usual_headers_and_no_listed_one() {
        assert!(!LISTED.is_open && !FORWARDING.is_open);
        for name in of_lists().chain(PROTOCOL).chain(OTHER_FORWARDING).filter(|name| *name != "host") {
            for spelling in [name.to_owned(), name.replace('-', "_"), name.to_uppercase()] {
                assert!(LISTED.may_have(&spelling), "{spelling}");
            }
        }
        for usual in ["accept", "accept-encoding", "user-agent", "host", "te", "cookie", "x-request-id", "traceparent"]
        {
            assert!(!LISTED.may_have(usual), "{usual}");
        }
        let mut short = Beginnings::none();
        short.add("id");
        assert!(["id", "accept"].into_iter().all(|name| short.may_have(name)));
    }

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
