//! The facts in a check request: the original request's method, host, target, scheme and client address.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::Neighbour;
use rotogate_core::denial::Denial;
use rotogate_core::headers::{FORWARDED_HOST, Peer, named_scheme};
use rotogate_core::route::authority;

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const TARGET: HeaderName = HeaderName::from_static("x-forwarded-uri");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) method: Method,
    pub(super) host: HeaderValue,
    pub(super) target: PathAndQuery,
    pub(super) is_secure: bool,
    pub(super) client: IpAddr,
}

/// Ignores the headers of other kinds of proxies. `is_ours` returns true for a header that only the gate may set.
pub(super) fn read(neighbour: Neighbour, question: &Parts, is_ours: impl Fn(&str) -> bool) -> Result<Facts, Denial> {
    let headers = &question.headers;
    // Proxies remove the headers that `Connection` names.
    if headers.get_all(CONNECTION).iter().any(|connection| names_a_fact(connection, &is_ours)) {
        return Err(Denial::BadFact(
            "the Connection header names a header that describes the original request or the caller",
        ));
    }
    match neighbour {
        Neighbour::Nginx | Neighbour::Traefik | Neighbour::Caddy | Neighbour::Haproxy => Ok(Facts {
            method: method(single(headers, &METHOD)?)?,
            host: host(single(headers, &FORWARDED_HOST)?)?,
            target: target(only(headers, &TARGET)?)?,
            is_secure: is_secure(single(headers, &PROTO)?)?,
            client: client(single(headers, &FOR)?)?,
        }),
        Neighbour::Envoy => Ok(Facts {
            method: question.method.clone(),
            host: host(authority::check(question)?.as_str())?,
            target: question.uri.path_and_query().cloned().ok_or(Denial::BadTarget)?,
            is_secure: is_secure(single(headers, &PROTO)?)?,
            client: client(last(headers, &FOR)?)?,
        }),
    }
}

impl Facts {
    pub(super) fn into_head(self, headers: HeaderMap) -> Result<Parts, Denial> {
        let Self { method, host, target, is_secure, client } = self;
        let (mut parts, ()) = Request::new(()).into_parts();
        let mut uri = Uri::default().into_parts();
        uri.path_and_query = Some(target);
        parts.uri = Uri::from_parts(uri).map_err(|_| Denial::BadTarget)?;
        parts.method = method;
        parts.headers = headers;
        parts.headers.insert(HOST, host);
        // Most proxies drop `Upgrade`. The gate restores `Upgrade`, so that the rule against cross-site WebSocket
        // handshakes applies.
        if parts.headers.contains_key(SEC_WEBSOCKET_KEY) {
            parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        // The proxy has stated the client's address, so forwarding headers are ignored.
        parts.extensions.insert(Peer::new(client, is_secure).without_forwarding());
        Ok(parts)
    }
}

pub(super) fn is_no_header_of_the_request(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-forwarded-method"
            | "x-forwarded-host"
            | "x-forwarded-uri"
            | "x-forwarded-proto"
            | "x-forwarded-for"
            | "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "expect"
            | "te"
            | "trailer"
    )
}

fn names_a_fact(connection: &HeaderValue, is_ours: impl Fn(&str) -> bool) -> bool {
    let options = String::from_utf8_lossy(connection.as_bytes());
    options.split(',').map(|option| option.trim().to_ascii_lowercase()).any(|option| {
        matches!(&*option, "authorization" | "dpop" | "cookie" | "host")
            || option.starts_with("x-forwarded-")
            || is_ours(&option)
    })
}

/// Returns the value of a header that must occur exactly once and must not be empty.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(value)), None) if !value.is_empty() => Ok(value),
        _ => Err(Denial::BadFact(match name.as_str() {
            "x-forwarded-method" => "x-forwarded-method is missing, empty or repeated",
            "x-forwarded-host" => "x-forwarded-host is missing, empty or repeated",
            "x-forwarded-uri" => "x-forwarded-uri is missing, empty or repeated",
            "x-forwarded-proto" => "x-forwarded-proto is missing, empty or repeated",
            "x-forwarded-for" => "x-forwarded-for is missing, empty or repeated",
            _ => "a header that describes the original request is missing, empty or repeated",
        })),
    }
}

/// Returns the value of a header that must occur exactly once and must not be a list.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    match only(headers, name)? {
        list if list.contains(',') => Err(Denial::BadFact(match name.as_str() {
            "x-forwarded-method" => "x-forwarded-method is a list",
            "x-forwarded-host" => "x-forwarded-host is a list",
            "x-forwarded-proto" => "x-forwarded-proto is a list",
            "x-forwarded-for" => "x-forwarded-for is a list",
            _ => "a header that describes the original request contains a list",
        })),
        one => Ok(one),
    }
}

/// The proxy itself appended the last element.
fn last<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    let list = only(headers, name)?;
    Ok(list.rsplit(',').next().unwrap_or(list).trim())
}

pub(super) fn method(text: &str) -> Result<Method, Denial> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Denial::BadFact("x-forwarded-method is not a valid method"))
}

pub(super) fn host(text: &str) -> Result<HeaderValue, Denial> {
    if !authority::is_authority(text) {
        return Err(Denial::BadHost);
    }
    HeaderValue::from_str(text).map_err(|_| Denial::BadHost)
}

/// Parses a target in origin form. Refuses a target that the parser would change, because the proxy forwards the
/// original.
pub(super) fn target(text: &str) -> Result<PathAndQuery, Denial> {
    let target = PathAndQuery::try_from(text).map_err(|_| Denial::BadTarget)?;
    // Refuses a fragment: `PathAndQuery` drops it, but an upstream may treat it as part of the path.
    if !text.starts_with('/') || target.as_str() != text {
        return Err(Denial::BadTarget);
    }
    Ok(target)
}

pub(super) fn is_secure(scheme: &str) -> Result<bool, Denial> {
    let named = named_scheme(scheme).ok_or(Denial::BadFact("the scheme is neither http nor https"))?;
    Ok(named == "https")
}

pub(super) fn client(text: &str) -> Result<IpAddr, Denial> {
    text.parse().map_err(|_| Denial::BadFact("the client's address is not an IP address"))
}
