//! Finds the bearer token in a request, usually in the `Authorization` header (RFC 6750 §2.1). Two credentials are
//! refused even if they are equal, because the gate could check one and the upstream the other.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use memchr::memchr;

use crate::denial::Denial;

/// The cookie with the access token.
pub const ACCESS_COOKIE: &str = "__Host-access";

/// A token that has not been verified yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    token: &'a str,
    bearer: bool,
}

impl<'a> Credential<'a> {
    /// A bearer token. The gate refuses the token if it is bound to a key.
    pub const fn new(token: &'a str) -> Self {
        Self { token, bearer: true }
    }

    /// A token that may be bound to a key. The caller checks the proof of possession.
    pub const fn maybe_bound(token: &'a str) -> Self {
        Self { token, bearer: false }
    }

    /// Whether the gate refuses a token that is bound to a key.
    pub(crate) const fn is_bearer(self) -> bool {
        self.bearer
    }

    /// The token.
    pub const fn token(self) -> &'a str {
        self.token
    }
}

crate::debug_with!(Credential<'_>);

/// Where a token may be sent, besides `Authorization`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places<'a> {
    /// A query parameter, which is read only without another credential.
    pub query: Option<&'a str>,
    /// Cookies, which must not be sent together with another credential.
    pub cookies: [Option<&'a str>; 2],
    /// Whether `Authorization` may have the scheme `DPoP`.
    pub dpop: bool,
}

/// How a token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As a bearer token (RFC 6750).
    Bearer,
    /// As a DPoP-bound token (RFC 9449 §7.1).
    Dpop,
}

/// The scheme in the first `Authorization` header, or `Bearer` if there is none.
pub fn scheme(headers: &HeaderMap) -> Scheme {
    headers.get(AUTHORIZATION).map_or(Scheme::Bearer, |value| named_scheme(value.as_bytes()))
}

fn named_scheme(authorization: &[u8]) -> Scheme {
    match authorization.split_first_chunk::<5>() {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case(b"dpop ") => Scheme::Dpop,
        Some(_) | None => Scheme::Bearer,
    }
}

/// A credential, and where it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The credential.
    pub token: T,
    /// The scheme of `Authorization`, or `Bearer` for a cookie.
    pub scheme: Scheme,
    /// Whether the credential is in a cookie.
    pub by_cookie: bool,
    /// Whether the credential is in the query.
    pub by_query: bool,
}

/// Finds the credential of a request.
pub fn extract_from<'h>(
    headers: &'h HeaderMap,
    query: Option<&str>,
    places: Places<'_>,
) -> Result<Option<Found<Cow<'h, str>>>, Denial> {
    extract_known(headers, query, places, |_| None)
}

/// Finds the credential of a request. If `known` recognises a token, the token's characters are not checked.
pub fn extract_known<'h, T: From<Cow<'h, str>>>(
    headers: &'h HeaderMap,
    query: Option<&str>,
    places: Places<'_>,
    known: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<Found<T>>, Denial> {
    let mut scheme = Scheme::Bearer;
    let read = |value| {
        if places.dpop {
            scheme = named_scheme(value);
        }
        let token = after_scheme(value, scheme)?;
        known(token).or_else(|| token68(token).map(|token| Cow::Borrowed(token).into()))
    };
    let by_header = extract_as(headers, query, read)?;
    let mut by_cookie = None;
    let [first, second] = places.cookies;
    for name in first.into_iter().chain(second.filter(|name| first != Some(*name))) {
        for value in cookies(headers, name) {
            if by_cookie.replace(value).is_some() {
                return Err(Denial::TwoCredentials);
            }
        }
    }
    let in_query = || Some(Cow::<str>::Owned(single_parameter(query?, places.query?)?));
    match (by_header, by_cookie) {
        (Some(_), Some(_)) => Err(Denial::TwoCredentials),
        (Some(token), None) => Ok(Some(Found { token, scheme, by_cookie: false, by_query: false })),
        (None, Some(value)) => {
            let token = std::str::from_utf8(value).map_err(|_| Denial::UnusableCredential)?;
            let token = Cow::Borrowed(token).into();
            Ok(Some(Found { token, scheme: Scheme::Bearer, by_cookie: true, by_query: false }))
        }
        (None, None) => {
            let found = |token: Cow<'h, str>| Found {
                token: token.into(),
                scheme: Scheme::Bearer,
                by_cookie: false,
                by_query: true,
            };
            Ok(in_query().map(found))
        }
    }
}

/// The values of a cookie (RFC 6265 §4.2). Kuzzle deletes cookies by setting them to `null`.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    pairs(headers)
        .filter_map(move |pair| split_pair(pair).filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value))
        .filter(|value| !value.is_empty() && *value != b"null")
}

/// The names and values of cookies with this name prefix.
pub fn cookies_with_prefix<'h>(headers: &'h HeaderMap, prefix: &str) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
    pairs(headers).filter_map(split_pair).filter(move |(name, _)| name.starts_with(prefix.as_bytes()))
}

/// The pairs are bytes, so that invalid text in other cookies does not hide our cookies.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().flat_map(|header| {
        let mut rest = Some(header.as_bytes());
        std::iter::from_fn(move || {
            let text = rest?;
            let end = memchr(b';', text);
            rest = end.and_then(|end| text.get(end + 1..));
            text.get(..end.unwrap_or(text.len()))
        })
    })
}

/// Trims white space, as upstreams do.
fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'=', pair)?;
    Some((pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii()))
}

fn single_parameter(query: &str, name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) if !value.is_empty() => Some(value.into_owned()),
        _ => None,
    }
}

/// Removes a cookie, and keeps the others unchanged.
pub fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    remove_cookies(headers, |known| known == name.as_bytes());
}

/// Removes the cookies with matching names, and keeps the others unchanged.
pub fn remove_cookies(headers: &mut HeaderMap, is_one: impl Fn(&[u8]) -> bool) {
    let is_it = |pair: &[u8]| is_one(split_pair(pair).map_or(pair.trim_ascii(), |(known, _)| known));
    let (mut has_it, mut has_others) = (false, false);
    for pair in pairs(headers) {
        if is_it(pair) {
            has_it = true;
        } else {
            has_others |= !pair.trim_ascii().is_empty();
        }
    }
    match (has_it, has_others) {
        (false, _) => return,
        // Most requests have only this cookie, so avoid copying.
        (true, false) => return drop(headers.remove(COOKIE)),
        (true, true) => {}
    }
    let kept: Vec<&[u8]> =
        pairs(headers).map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty() && !is_it(pair)).collect();
    let kept = if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok() };
    match kept {
        Some(kept) => drop(headers.insert(COOKIE, kept)),
        None => drop(headers.remove(COOKIE)),
    }
}

/// Removes a parameter from a query. Returns `None` if the parameter is absent.
pub fn strip_parameter(query: &str, name: &str) -> Option<String> {
    let is_it = |piece: &str| form_urlencoded::parse(piece.as_bytes()).next().is_some_and(|(known, _)| known == name);
    let pieces: Vec<&str> = query.split('&').collect();
    let kept: Vec<&str> = pieces.iter().copied().filter(|piece| !is_it(piece)).collect();
    (kept.len() < pieces.len()).then(|| kept.join("&"))
}

/// Refuses two `Authorization` headers, even on public routes, because the upstream would choose one of them.
pub fn at_most_one(headers: &HeaderMap) -> Result<(), Denial> {
    // Skip the look-up if no header repeats.
    let has_two = headers.len() > headers.keys_len() && headers.get_all(AUTHORIZATION).iter().nth(1).is_some();
    if has_two { Err(Denial::TwoCredentials) } else { Ok(()) }
}

/// Returns the bearer token of a request, or `None` if the request has no credential.
///
/// # Errors
/// [`Denial::TwoCredentials`] for a second `Authorization` header, or for a header together with a token in the query.
/// [`Denial::UnusableCredential`] for a token only in the query (RFC 9700 §4.3.2), another scheme, or anything except
/// one `token68` (RFC 9110 §11.2).
pub fn extract<'h>(headers: &'h HeaderMap, query: Option<&str>) -> Result<Option<Credential<'h>>, Denial> {
    let token = extract_as(headers, query, |value| token68(after_scheme(value, Scheme::Bearer)?))?;
    Ok(token.map(Credential::new))
}

fn extract_as<'h, T>(
    headers: &'h HeaderMap,
    query: Option<&str>,
    read: impl FnOnce(&'h [u8]) -> Option<T>,
) -> Result<Option<T>, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let in_query = query.is_some_and(has_query_token);
    match (first, second, in_query) {
        (None, _, false) => Ok(None),
        (None, _, true) => Err(Denial::UnusableCredential),
        (Some(_), Some(_), _) | (Some(_), None, true) => Err(Denial::TwoCredentials),
        (Some(value), None, false) => read(value.as_bytes()).map(Some).ok_or(Denial::UnusableCredential),
    }
}

fn after_scheme(value: &[u8], scheme: Scheme) -> Option<&[u8]> {
    let name: &[u8] = match scheme {
        Scheme::Bearer => b"bearer",
        Scheme::Dpop => b"dpop",
    };
    let (named, rest) = value.split_at_checked(name.len())?;
    if !named.eq_ignore_ascii_case(name) || rest.first() != Some(&b' ') {
        return None;
    }
    rest.get(rest.iter().position(|&b| b != b' ')?..)
}

fn token68(token: &[u8]) -> Option<&str> {
    if is_token68(token) { std::str::from_utf8(token).ok() } else { None }
}

/// A `token68` has at least one character of the set, then any number of `=` (RFC 9110 §11.2).
fn is_token68(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    let body = text.get(..text.len() - padding).unwrap_or_default();
    // A loop without an early exit can be vectorised.
    !body.is_empty() && body.iter().fold(true, |all, &b| all & is_token_character(b))
}

const fn is_token_character(b: u8) -> bool {
    let letter = (b | 0x20).wrapping_sub(b'a') < 26;
    let digit_dot_or_slash = b.wrapping_sub(b'.') < 12;
    letter | digit_dot_or_slash | (b == b'-') | (b == b'_') | (b == b'~') | (b == b'+')
}

/// Also finds `access_token` with escapes, in another letter case, or after `;`.
pub(crate) fn has_query_token(query: &str) -> bool {
    query.len() >= TOKEN_PARAMETER.len() && query.split(SEPARATORS).any(is_token_parameter)
}

/// The query without its `access_token` parameters, or `None` if there are none. If the result is an empty string, the
/// caller must also remove the `?`.
pub fn strip_query_token(query: &str) -> Option<String> {
    if !has_query_token(query) {
        return None;
    }
    let mut out = String::with_capacity(query.len());
    for piece in query.split_inclusive(SEPARATORS) {
        let parameter = piece.strip_suffix(SEPARATORS);
        if !is_token_parameter(parameter.unwrap_or(piece)) {
            out.push_str(piece);
        } else if parameter.is_none() {
            out.pop();
        }
    }
    Some(out)
}

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
mod tests;
