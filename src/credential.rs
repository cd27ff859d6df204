//! Where a bearer token may stand in a request: in one `Authorization` header, once (RFC 6750 §2.1). A request that
//! brings two credentials is refused, equal or not: the gate could judge one and the upstream another.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::denial::Denial;

/// A bearer token as it was sent, and nothing known of it yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credential<'a>(&'a str);

impl<'a> Credential<'a> {
    /// A token that came another way than in the head of a request.
    pub(crate) const fn new(token: &'a str) -> Self {
        Self(token)
    }

    /// The token.
    pub(crate) const fn token(self) -> &'a str {
        self.0
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// On routes that ask nobody: still not two `Authorization` headers, of which the upstream would choose one.
pub(crate) fn at_most_one(headers: &HeaderMap) -> Result<(), Denial> {
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() { Err(Denial::TwoCredentials) } else { Ok(()) }
}

/// The one bearer token of a request, or `None` where it brings none.
///
/// # Errors
/// [`Denial::TwoCredentials`] for a second `Authorization` header, or one beside a token in the query.
/// [`Denial::UnusableCredential`] for a token in the query alone (RFC 6750 §2.3, which RFC 9700 §4.3.2 ends), another
/// scheme, a list, or what is not one `token68` (RFC 9110 §11.2).
pub(crate) fn extract<'h>(headers: &'h HeaderMap, query: Option<&str>) -> Result<Option<Credential<'h>>, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let in_query = query.is_some_and(has_query_token);
    match (first, second, in_query) {
        (None, _, false) => Ok(None),
        (None, _, true) => Err(Denial::UnusableCredential),
        (Some(_), Some(_), _) | (Some(_), None, true) => Err(Denial::TwoCredentials),
        (Some(value), None, false) => {
            bearer(value.as_bytes()).map(|token| Some(Credential(token))).ok_or(Denial::UnusableCredential)
        }
    }
}

fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first() != Some(&b' ') {
        return None;
    }
    let token = rest.get(rest.iter().position(|&b| b != b' ')?..)?;
    if is_token68(token) { std::str::from_utf8(token).ok() } else { None }
}

/// RFC 9110 §11.2: at least one character of the set, then any number of `=`.
fn is_token68(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    let body = text.get(..text.len() - padding).unwrap_or_default();
    // Without a way out of the loop many bytes are looked at in one step, and each request has some hundred of them.
    !body.is_empty() && body.iter().fold(true, |all, &b| all & is_token_character(b))
}

const fn is_token_character(b: u8) -> bool {
    let letter = (b | 0x20).wrapping_sub(b'a') < 26;
    let digit_dot_or_slash = b.wrapping_sub(b'.') < 12;
    letter | digit_dot_or_slash | (b == b'-') | (b == b'_') | (b == b'~') | (b == b'+')
}

/// Is there an `access_token` parameter in the query, in any spelling that some parser reads as one: escaped, in
/// another letter case, after `;`?
pub(crate) fn has_query_token(query: &str) -> bool {
    query.len() >= TOKEN_PARAMETER.len() && query.split(SEPARATORS).any(is_token_parameter)
}

/// The query without its `access_token` parameters, the rest byte for byte as it was. `None` if there were none to
/// remove. An empty string means that nothing is left, and the `?` goes too.
pub(crate) fn strip_query_token(query: &str) -> Option<String> {
    if !has_query_token(query) {
        return None;
    }
    let mut out = String::with_capacity(query.len());
    for piece in query.split_inclusive(SEPARATORS) {
        let parameter = piece.strip_suffix(SEPARATORS);
        if !is_token_parameter(parameter.unwrap_or(piece)) {
            out.push_str(piece);
        } else if parameter.is_none() {
            // The last one: the separator before it goes with it.
            out.pop();
        }
    }
    Some(out)
}

/// No spelling of it is shorter.
const TOKEN_PARAMETER: &str = "access_token";
const SEPARATORS: [char; 2] = ['&', ';'];

fn is_token_parameter(piece: &str) -> bool {
    let name = piece.split('=').next().unwrap_or_default();
    if name.len() < TOKEN_PARAMETER.len() {
        return false;
    }
    let name = form_urlencoded::parse(name.as_bytes()).next().map_or(Cow::Borrowed(""), |(name, _)| name);
    name.trim_matches([' ', '\0']).eq_ignore_ascii_case(TOKEN_PARAMETER)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn t1_one_bearer_token_is_found_in_any_case_of_the_scheme() {
        for value in ["Bearer aB.-_~+/9==", "bearer aB.-_~+/9==", "BEARER aB.-_~+/9==", "Bearer    aB.-_~+/9=="] {
            assert_eq!(extract(&with(&[value.as_bytes()]), None), Ok(Some(Credential("aB.-_~+/9=="))), "{value}");
        }
        assert_eq!(extract(&HeaderMap::new(), Some("a=1")), Ok(None));
    }

    #[test]
    fn t1_anything_but_one_token68_after_bearer_is_refused() {
        let bad: &[&[u8]] = &[
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer  ",
            b"Bearer=abc",
            b"Bearerabc",
            b"Bearer\tabc",
            b"Bearer \tabc",
            b"Bearer abc ",
            b"Bearer abc def",
            b"Bearer abc,def",
            b"Bearer abc, Bearer def",
            b"Bearer Bearer abc",
            b"Bearer a=b",
            b"Bearer =",
            b"Bearer ==",
            b"Bearer \"abc\"",
            b"Bearer abc\xe9",
            b"Bearer \xff",
            b" Bearer abc",
            b"Basic YTpi",
            b"DPoP abc",
            b"Token abc",
            b"abc",
            b"Bear\xe9r abc",
            b"Bearer a:b",
        ];
        for value in bad {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(extract(&with(&[value]), None), Err(Denial::UnusableCredential), "{shown:?}");
        }
    }

    #[test]
    fn t1_a_token_has_the_characters_of_rfc_9110_and_no_others() {
        for byte in 0..=u8::MAX {
            let listed = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_token_character(byte), listed, "{byte:#x}");
        }
    }

    #[test]
    fn t1_two_authorization_headers_are_refused_equal_or_not() {
        for pair in [[&b"Bearer a"[..], b"Bearer a"], [b"Bearer a", b"Bearer b"], [b"Bearer a", b"Basic x"]] {
            assert_eq!(extract(&with(&pair), None), Err(Denial::TwoCredentials));
        }
    }

    #[test]
    fn t2_a_token_in_the_query_is_refused_and_so_are_two_sources() {
        let spellings = [
            "access_token=x",
            "a=1&access_token=x",
            "access%5Ftoken=x",
            "%61ccess_token",
            "Access_Token=x",
            "a;access_token=x",
        ];
        for query in spellings {
            assert_eq!(extract(&HeaderMap::new(), Some(query)), Err(Denial::UnusableCredential), "{query}");
            assert_eq!(extract(&with(&[b"Bearer a"]), Some(query)), Err(Denial::TwoCredentials), "{query}");
        }
        for query in ["", "token=x", "xaccess_token=1", "a=access_token", "access_tokens=1"] {
            assert_eq!(extract(&with(&[b"Bearer a"]), Some(query)), Ok(Some(Credential("a"))), "{query}");
        }
    }

    #[test]
    fn t2_a_query_token_is_cut_out_and_the_rest_stays_as_it_was() {
        let table = [
            ("access_token=x", ""),
            ("access_token=x&a=1", "a=1"),
            ("a=1&access_token=x", "a=1"),
            ("a=%7e+&access%5ftoken=x&b=&&c", "a=%7e+&b=&&c"),
            ("access_token=x&access_token=y&a", "a"),
            ("a;access_token=x;b", "a;b"),
            ("a&access_token", "a"),
        ];
        for (query, rest) in table {
            assert_eq!(strip_query_token(query).as_deref(), Some(rest), "{query}");
        }
        assert_eq!(strip_query_token("a=1&b=access_token"), None);
    }

    proptest! {
        #[test]
        fn extraction_never_panics_and_finds_only_token68(value in proptest::collection::vec(0x20u8..=0xff, 0..40), query in ".*") {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, value);
                if let Ok(found) = extract(&headers, Some(&query)) {
                    prop_assert!(is_token68(found.unwrap().0.as_bytes()));
                }
            }
            if let Some(rest) = strip_query_token(&query) {
                prop_assert!(!has_query_token(&rest));
            }
        }
    }
}
