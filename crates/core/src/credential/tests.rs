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
        assert_eq!(extract(&with(&[value.as_bytes()]), None), Ok(Some(Credential::new("aB.-_~+/9=="))), "{value}");
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
        assert_eq!(extract(&with(&[b"Bearer a"]), Some(query)), Ok(Some(Credential::new("a"))), "{query}");
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

fn with_cookies(values: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

const COOKIES: Places<'_> = Places { query: Some("jwt"), cookies: [Some("token"), Some("session")], dpop: false };

fn token_of(headers: &HeaderMap, query: Option<&str>, places: Places<'_>) -> Result<Option<(String, bool)>, Denial> {
    let found = extract_from(headers, query, places)?;
    Ok(found.map(|found| (found.token.into_owned(), found.by_cookie)))
}

#[test]
fn t18_a_cookie_is_found_among_others_where_the_route_names_it() {
    let found = Ok(Some(("a.b".to_owned(), true)));
    for cookie in [
        &b"token=a.b"[..],
        b"x=1; token=a.b; y=2",
        b"x=\xff;token=a.b",
        b"x; token = a.b ;",
        b"xtoken=1; token=a.b; tokenx=2; Token=3",
        b"session=a.b; token=null; token=",
    ] {
        assert_eq!(token_of(&with_cookies(&[cookie]), None, COOKIES), found, "{}", String::from_utf8_lossy(cookie));
    }
    assert_eq!(token_of(&with_cookies(&[b"x=1", b"token=a.b"]), None, COOKIES), found);
    assert_eq!(token_of(&with_cookies(&[b"token=a.b"]), None, Places::default()), Ok(None));
    let twice = Places { cookies: [Some("token"), Some("token")], ..COOKIES };
    assert_eq!(token_of(&with_cookies(&[b"token=a.b"]), None, twice), found);
    assert_eq!(token_of(&with_cookies(&[b"token=\xff"]), None, COOKIES), Err(Denial::UnusableCredential));
}

#[test]
fn t1_t18_a_cookie_beside_another_credential_is_refused_equal_or_not() {
    let mut both = with_cookies(&[b"token=a"]);
    both.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
    assert_eq!(token_of(&both, None, COOKIES), Err(Denial::TwoCredentials));
    for cookies in [&[&b"token=a; token=a"[..]][..], &[b"token=a", b"token=b"], &[b"token=a; session=a"]] {
        assert_eq!(token_of(&with_cookies(cookies), None, COOKIES), Err(Denial::TwoCredentials));
    }
}

#[test]
fn a_parameter_of_the_query_counts_where_a_dialect_names_it_and_stands_once() {
    let none = HeaderMap::new();
    assert_eq!(token_of(&none, Some("a=1&jwt=x%2E"), COOKIES), Ok(Some(("x.".to_owned(), false))));
    for query in ["jwt=x&jwt=y", "jwt=", "JWT=x", "a=jwt"] {
        assert_eq!(token_of(&none, Some(query), COOKIES), Ok(None), "{query}");
    }
    assert_eq!(token_of(&with(&[b"Bearer b"]), Some("jwt=x"), COOKIES), Ok(Some(("b".to_owned(), false))));
    assert_eq!(strip_parameter("a=%7e&jwt=x&b&%6awt=y", "jwt").as_deref(), Some("a=%7e&b"));
    assert_eq!(strip_parameter("a=1&xjwt=2", "jwt"), None);
}

#[test]
fn t18_a_cookie_is_cut_out_and_the_others_stay() {
    let table: [(&[&[u8]], &[u8]); 6] = [
        (&[b"token=a"], b""),
        (&[b"token=a; x=1"], b"x=1"),
        (&[b"x=1;token=a;y=\xff"], b"x=1; y=\xff"),
        (&[b"x=1", b"token = a; token=b", b"y=2"], b"x=1; y=2"),
        (&[b"token; x"], b"x"),
        (&[b"x=1;y=2"], b"x=1;y=2"),
    ];
    for (before, after) in table {
        let mut headers = with_cookies(before);
        remove_cookie(&mut headers, "token");
        let left = headers.get(COOKIE).map(HeaderValue::as_bytes).unwrap_or_default();
        assert_eq!(left, after, "{before:?}");
    }
}

proptest! {
    #[test]
    fn t18_no_cookie_header_brings_us_down_and_none_of_ours_is_left(
        values in proptest::collection::vec("[ -~\u{80}-\u{ff}]{0,30}", 0..3),
        extra in "(token|session|x| |=|;|null){0,8}",
        query in ".*",
    ) {
        let mut headers = HeaderMap::new();
        for value in values.iter().chain([&extra]) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(COOKIE, value);
            }
        }
        let _ = extract_from(&headers, Some(&query), COOKIES);
        if let Some(rest) = strip_parameter(&query, "jwt") {
            prop_assert_eq!(strip_parameter(&rest, "jwt"), None);
        }
        for name in ["token", "session"] {
            remove_cookie(&mut headers, name);
        }
        prop_assert_eq!(extract_from(&headers, None, COOKIES), Ok(None));
    }
}

proptest! {
    #[test]
    fn extraction_never_panics_and_finds_only_token68(value in proptest::collection::vec(0x20u8..=0xff, 0..40), query in ".*") {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value);
            if let Ok(found) = extract(&headers, Some(&query)) {
                prop_assert!(is_token68(found.unwrap().token.as_bytes()));
            }
        }
        if let Some(rest) = strip_query_token(&query) {
            prop_assert!(!has_query_token(&rest));
        }
    }
}
