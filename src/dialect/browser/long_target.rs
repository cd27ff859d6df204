//! Login targets that are too long for the login URL or cookie. The browser stores such a target in cookies for the
//! endpoint. Elsewhere, a digest and a path represent the target. If the browser has no such cookies, the login leads
//! to the path.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

pub(crate) use rotogate_core::bounds::MAX_LOGIN_TARGET as LONGEST;
use rotogate_core::credential;

/// The longest `to` that fits into a login cookie.
pub(crate) const SHORT: usize = 2048;
/// The longest login URL with the whole target.
pub(super) const LONGEST_URL: usize = 6 << 10;
/// The prefix of the cookie names, followed by the numbers of the target and the part.
const NAME: &str = "__Http-rg-to-";
/// The number of targets that a browser stores. Each further target replaces a stored one.
// Requirement B64.
const KEPT: u8 = 2;
/// The maximum number of characters in one cookie, and of cookies for one target.
const PART: usize = 3700;
const PARTS: usize = (LONGEST * 4).div_ceil(3 * PART);
/// The cookies' `Max-Age` in seconds, which limits how long a login may take.
const LIFETIME: u64 = 600;

/// A target that is represented by its path and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedTarget {
    /// The target without query and fragment, or the root path if the result is still too long.
    pub(crate) page: String,
    pub(crate) digest: String,
}

impl NamedTarget {
    pub(crate) fn new(to: &str) -> Self {
        let page = to.split(['?', '#']).next().filter(|page| page.len() <= SHORT).unwrap_or("/");
        Self { page: page.to_owned(), digest: digest_of(to) }
    }
}

fn digest_of(to: &str) -> String {
    let hash = digest(&SHA256, to.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_ref().get(..16).unwrap_or_default())
}

fn name(digest: &str, part: usize) -> String {
    let place = digest.bytes().fold(0, |sum: u8, byte| sum.wrapping_add(byte)) % KEPT;
    format!("{NAME}{place}{part}")
}

/// Adds cookies with the encoded target. The browser sends them only to the endpoint.
pub(crate) fn put(reply: &mut HeaderMap, to: &str, endpoint: &str) {
    let (text, digest) = (URL_SAFE_NO_PAD.encode(to), digest_of(to));
    let mut rest = text.as_str();
    for part in 0..PARTS {
        let (value, after) = rest.split_at_checked(PART).unwrap_or((rest, ""));
        let seconds = if value.is_empty() { 0 } else { LIFETIME };
        let cookie = format!(
            "{}={value}; Path={endpoint}; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}",
            name(&digest, part)
        );
        if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
            cookie.set_sensitive(true);
            reply.append(SET_COOKIE, cookie);
        }
        rest = after;
    }
}

pub(crate) fn find(request: &HeaderMap, digest: &str) -> Option<String> {
    let mut text = Vec::new();
    for part in 0..PARTS {
        let name = name(digest, part);
        let mut found = credential::cookies(request, &name);
        text.extend_from_slice(found.next().unwrap_or_default());
        if found.next().is_some() || text.len() > PARTS * PART {
            return None;
        }
    }
    let to = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    (digest_of(&to) == digest).then_some(to)
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    /// Stores a reply's cookies in `jar`, as a browser does.
    fn store(jar: &mut Vec<(String, String)>, reply: &HeaderMap) {
        for set in reply.get_all(SET_COOKIE) {
            let (pair, attributes) = set.to_str().unwrap().split_once("; ").unwrap();
            assert!(
                pair.len() < 4096 && attributes.starts_with("Path=/auth; Secure; HttpOnly; SameSite=Lax; Max-Age=")
            );
            let (name, value) = pair.split_once('=').unwrap();
            jar.retain(|(known, _)| known != name);
            if !attributes.ends_with("=0") {
                jar.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn headers(jar: &[(String, String)]) -> HeaderMap {
        let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
    }

    #[test]
    fn b64_a_long_target_is_kept_whole_and_the_cookies_of_all_targets_stay_few() {
        let mut jar = Vec::new();
        for length in [SHORT + 1, 3000, 5000, 6000, LONGEST].into_iter().chain((0..40).map(|n| LONGEST - n)) {
            let to = format!("/a?{}", "x".repeat(length - 3));
            let mut reply = HeaderMap::new();
            put(&mut reply, &to, "/auth");
            store(&mut jar, &reply);
            assert_eq!(find(&headers(&jar), &digest_of(&to)).as_ref(), Some(&to), "{length}");
            assert!(headers(&jar)[COOKIE].len() < 24 << 10);
        }
        // Neither a replaced target nor an unknown target is found.
        assert_eq!(find(&headers(&jar), &digest_of("/other")), None);
        let to = format!("/a?{}", "x".repeat(LONGEST - 39 - 3));
        let is_of_it = |cookie: &str| (0..PARTS).any(|part| cookie == name(&digest_of(&to), part));
        for at in 0..jar.len() {
            let mut changed = jar.clone();
            let other = if changed[at].1.starts_with('A') { "B" } else { "A" };
            changed[at].1.replace_range(..1, other);
            for jar in [changed, [jar.clone(), vec![jar[at].clone()]].concat()] {
                assert_eq!(find(&headers(&jar), &digest_of(&to)).is_none(), is_of_it(&jar[at].0));
            }
        }
    }

    #[test]
    fn b64_the_name_of_a_target_is_its_page() {
        for (to, page) in
            [("/a/b?c=d#e", "/a/b"), ("/a#e?f", "/a"), ("https://app.example/x?y", "https://app.example/x")]
        {
            assert_eq!(NamedTarget::new(to).page, page);
        }
        assert_eq!(NamedTarget::new(&format!("/{}", "x".repeat(SHORT))).page, "/");
    }
}
